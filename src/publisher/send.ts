/**
 * One send: what may be said of it, how it is checked and written before anything goes out, and what it came to. Pure, but
 * for the time of day and random ids.
 */
import { createHash } from "node:crypto";
import type { Appended, AppendOptions, Idempotency, OutgoingMessage } from "../history/history.ts";
import {
  BrokerUnavailableError,
  IdempotencyConflictError,
  InvalidMessageError,
  UserOfflineError,
} from "../protocol/errors.ts";
import { formatEnvelope, MESSAGE_ID, MESSAGE_ID_RULE, type Payload } from "../protocol/envelope.ts";
import { payloadFrom, type Sendable } from "./payload.ts";

/**
 * A number of sockets, or, with shared subscriptions, of the nodes that hold at least one: never one under the
 * other's name. Where receipts are waited for, the sockets are known there too, once each node has said its own.
 */
export type Count = { sockets: number; nodes?: never } | { nodes: number; sockets?: number };

export interface SendOptions {
  /** Id of the message: 1–64 of letters, digits and `._:-`. @default a random UUID */
  id?: string;
  /** How long the message is kept for a user who is away, in milliseconds. @default the history's */
  ttlMs?: number;
  /** Only send when the user is online. @default false */
  expectOnline?: boolean;
  /** Sends with the same key within five minutes are one: 1–128 visible ASCII characters. */
  idempotencyKey?: string;
  /** Wait so many milliseconds for the clients to acknowledge; needs a history. */
  waitAckMs?: number;
  /**
   * Tell the backend (`message.unacked`) when no client of the user has acknowledged it after so many milliseconds; 0: at
   * once, when the user is offline, and else not. Only in the process of a service that is set up for it.
   */
  unackedMs?: number;
  /**
   * The span that the send is a part of, as the `traceparent` of W3C Trace Context: clients get it with the message. What is
   * none is left out.
   */
  traceparent?: string;
}

/** What may be said of a message to many users. */
export type ManySendOptions =
  & Pick<SendOptions, "id" | "ttlMs" | "expectOnline" | "traceparent">
  /** Tells each of the sends from others, see `Publisher.claim`. */
  & Pick<AppendOptions, "idempotency">;

/** What became of a message. */
export type SendResult = Count & {
  /** Id of the message, the same that clients see in its `m` frame. */
  id: string;
  /** Place in the user's history; missing when none is kept. */
  seq?: number;
  epoch?: string;
  /** How many sockets' clients have acknowledged it; only when that was waited for. */
  acked?: number;
  /** This is the result of an earlier send with the same idempotency key; nothing was sent now. */
  repeated?: true;
};

/** Sends and bytes of one portion of many: Redis does nothing else meanwhile, for a millisecond or two. */
export const PORTION_SENDS = 100;
export const PORTION_BYTES = 128 * 1024;

/** Of nearly every send. */
const PLAIN: AppendOptions = {};
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,128}$/;

/** What the history has to know of it. */
export function appendOptionsOf({ ttlMs, expectOnline, idempotency }: AppendOptions): AppendOptions {
  if (ttlMs === undefined && !expectOnline && !idempotency) return PLAIN;
  return {
    ...(ttlMs !== undefined && { ttlMs }),
    ...(expectOnline && { expectOnline }),
    ...(idempotency && { idempotency }),
  };
}

/** Returns the id of a message. @throws {InvalidMessageError} when it is none. */
export function checkedId(id: string | undefined): string {
  if (id === undefined) return crypto.randomUUID();
  if (!MESSAGE_ID.test(id)) throw new InvalidMessageError(`A message id ${MESSAGE_ID_RULE}`);
  return id;
}

/** @throws {InvalidMessageError} when it is no idempotency key. */
export function assertIdempotencyKey(key: string): void {
  if (IDEMPOTENCY_KEY.test(key)) return;
  throw new InvalidMessageError(
    "An idempotency key must have 1 to 128 visible ASCII characters without spaces",
  );
}

/** Whether it was noted or not, nothing was sent: that is what the caller has to know. */
export function nothingSent(error: unknown): never {
  if (!(error instanceof BrokerUnavailableError)) throw error;
  throw new BrokerUnavailableError(error.message, { outcome: "refused", cause: error });
}

/** The caller's key, and what tells this payload from another with the same key. @throws {InvalidMessageError} */
export function idempotencyOf(key: string, payload: Payload): Idempotency {
  assertIdempotencyKey(key);
  const hash = createHash("sha256").update(payload.kind);
  return {
    key,
    fingerprint: hash.update(payload.kind === "binary" ? payload.bytes : payload.text).digest("base64url"),
  };
}

/**
 * Checks what does not depend on who gets it.
 * @param keepsHistory Whether messages are kept for users who are away.
 * @throws {InvalidMessageError}
 */
export function checkedSend(
  message: Sendable,
  { id, ttlMs, expectOnline, idempotencyKey, waitAckMs }: SendOptions,
  keepsHistory: boolean,
): { id: string; payload: Payload; appendOptions: AppendOptions } {
  const payload = payloadFrom(message);
  if (waitAckMs !== undefined && !keepsHistory) {
    throw new InvalidMessageError(
      "Receipts need a history: set USERWIRE_HISTORY above 0, or don't wait for them",
    );
  }
  const hasOptions = ttlMs !== undefined || expectOnline || idempotencyKey !== undefined;
  return {
    id: checkedId(id),
    payload,
    appendOptions: !hasOptions ? PLAIN : {
      ...(ttlMs !== undefined && { ttlMs }),
      ...(expectOnline && { expectOnline }),
      ...(idempotencyKey !== undefined && { idempotency: idempotencyOf(idempotencyKey, payload) }),
    },
  };
}

/**
 * Writes the message, as of now.
 * @param options.receipt As `formatReceipt` writes it.
 * @param options.ts When it was sent. @default now
 * @param options.ttlMs How long it is kept, where that is to stand in it.
 * @param options.group To which it is sent.
 * @param options.traceparent As its sender gave it.
 */
export function outgoingMessage(
  payload: Payload,
  id: string,
  options: {
    receipt?: string | undefined;
    ts?: number;
    ttlMs?: number | undefined;
    group?: string | undefined;
    traceparent?: string | undefined;
  } = {},
): OutgoingMessage {
  return { id, ...formatEnvelope(payload, { id, ts: Date.now(), ...options }) };
}

/**
 * What the caller gets as the result.
 * @param counted What the broker counts.
 * @throws {UserOfflineError | IdempotencyConflictError} when nothing was sent.
 */
export function resultOf(appended: Appended, counted: "sockets" | "nodes"): SendResult {
  if (appended.outcome === "offline") {
    throw new UserOfflineError("No socket is open for this user: nothing was sent");
  }
  if (appended.outcome === "conflict") {
    throw new IdempotencyConflictError("This idempotency key was used for another message: use a new key");
  }
  const { outcome, id, position, reached } = appended;
  const count: Count = counted === "sockets" ? { sockets: reached } : { nodes: reached };
  if (outcome === "appended" && position === undefined) return { id, ...count };
  return { id, ...position, ...count, ...(outcome === "repeated" && { repeated: true }) };
}
