/** What a backend sends, and how it is written in a call of the HTTP API. */
import { base64Of } from "../../src/protocol/base64.ts";
import { readTraceParent } from "../../src/protocol/trace_parent.ts";
import { payloadFrom, type Sendable } from "../../src/publisher/payload.ts";
import type { Call } from "./call.ts";
import { JSON_TYPE, query } from "./path.ts";

export interface SendOptions {
  /** How long the message is kept for a user who is away, in full seconds. @default the service's */
  readonly ttlS?: number | undefined;
  /** Only send when the user is online; else the error's code is `user_offline`. @default false */
  readonly expectOnline?: boolean | undefined;
  /** Wait so many milliseconds for the clients to acknowledge, at most 30,000. */
  readonly waitAckMs?: number | undefined;
  /**
   * Have the webhook `message.unacked` sent when no client of the user has acknowledged it after so many full seconds; 0: at
   * once, when the user is offline.
   */
  readonly unackedS?: number | undefined;
  /** Sends with the same key within five minutes are one: 1–128 visible ASCII characters. @default a random one */
  readonly idempotencyKey?: string | undefined;
  /**
   * The span that the send is a part of, as the `traceparent` of W3C Trace Context: clients get it with the message. What is
   * none is left out.
   */
  readonly traceparent?: string | undefined;
}

/** What may be said of a message to a group. */
export interface GroupSendOptions extends SendOptions {
  /** Only for users who are online; `offline` counts the others. @default false */
  readonly expectOnline?: boolean | undefined;
  /** `online` keeps no copy for users who are offline: they get a number, and a gap when they return. @default "all" */
  readonly store?: "all" | "online" | undefined;
  /** A user of the group who does not get it. */
  readonly except?: string | undefined;
}

/** What became of a message. */
export interface Sent {
  /** Id of the message, the same that clients see. */
  readonly id: string;
  /** How many sockets were handed it; missing where the service's subscriptions are shared, see `nodes`. */
  readonly sockets?: number;
  /** How many nodes hold at least one of the user's sockets, where subscriptions are shared. */
  readonly nodes?: number;
  /** Place in the user's history; missing when none is kept. */
  readonly seq?: number;
  readonly epoch?: string;
  /** Nobody was there: whether it waits for the user's return. */
  readonly stored?: boolean;
  /** How many sockets' clients have acknowledged it; only when that was waited for. */
  readonly acked?: number;
}

/** One message of a batch. */
export interface BatchItem {
  /** A user, or several who get the same. */
  readonly to: string | readonly string[];
  /** As for `send`. */
  readonly message: Sendable;
  /** Id of the message: 1–64 of letters, digits and `._:-`. @default a random one */
  readonly id?: string | undefined;
  readonly ttlS?: number | undefined;
  readonly expectOnline?: boolean | undefined;
}

/** What became of an item. */
export interface BatchResult extends Sent {
  /** Sockets, or nodes, of each user, where `to` is a list. */
  readonly users?: Readonly<Record<string, number>>;
  /** It was not sent to anybody, or not to everybody. */
  readonly error?: { readonly code: string; readonly detail: string };
}

/** What may be said of a broadcast. */
export type BroadcastOptions = Pick<SendOptions, "ttlS" | "idempotencyKey" | "traceparent">;

/** What became of a message to everybody. */
export interface BroadcastSent {
  readonly id: string;
  /** Its number among the broadcasts; missing when the service keeps no history. */
  readonly seq?: number;
  readonly epoch?: string;
  /** How many nodes got it. */
  readonly nodes: number;
  /** How many sockets these gave it to, or keep it for; missing when a node did not say so in 2 s, and of a repetition. */
  readonly sockets?: number;
  /** How many nodes have said their number, when it is not all of them. */
  readonly heard?: number;
}

const TYPES = { json: JSON_TYPE, text: "text/plain", binary: "application/octet-stream" } as const;

/**
 * The call that sends a message to whoever the path names.
 * @throws {InvalidMessageError} for what can't be sent.
 */
export function sendCall(path: string, message: Sendable, options: GroupSendOptions): Call {
  const payload = payloadFrom(message);
  return {
    method: "POST",
    path: `${path}${queryOf(options)}`,
    headers: { "content-type": TYPES[payload.kind], ...headersOf(options) },
    body: payload.kind === "binary" ? payload.bytes : payload.text,
    extraMs: options.waitAckMs,
  };
}

export function headersOf(
  { idempotencyKey, traceparent }: Pick<SendOptions, "idempotencyKey" | "traceparent">,
): Record<string, string> {
  const parent = traceparent === undefined ? undefined : readTraceParent(traceparent);
  return {
    "idempotency-key": idempotencyKey ?? crypto.randomUUID(),
    ...(parent !== undefined && { traceparent: parent }),
  };
}

function queryOf({ ttlS, expectOnline, store, except, waitAckMs, unackedS }: GroupSendOptions): string {
  return query({
    ttl: ttlS,
    expect: expectOnline ? "online" : undefined,
    store: store === "online" ? store : undefined,
    except,
    wait: waitAckMs === undefined ? undefined : "ack",
    timeout: waitAckMs,
    unacked: unackedS,
  });
}

/** An item as text: JSON goes out as it was given, with numbers that `JSON.parse` would round. */
export function itemOf({ to, message, id, ttlS, expectOnline }: BatchItem): string {
  const payload = payloadFrom(message);
  const data = payload.kind === "binary"
    ? `"base64":"${base64Of(payload.bytes)}"`
    : payload.kind === "text"
    ? `"text":${JSON.stringify(payload.text)}`
    : `"data":${payload.text}`;
  const rest = JSON.stringify({ to, id, ttl: ttlS, expect: expectOnline ? "online" : undefined });
  return `${rest.slice(0, -1)},${data}}`;
}
