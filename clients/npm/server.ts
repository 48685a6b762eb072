/**
 * What a backend says to a service of Userwire, over its HTTP API, from every runtime with `fetch`:
 *
 *     import { createServer } from "userwire/server";
 *
 *     const userwire = createServer({ url: "https://push.example.com", key: process.env.USERWIRE_KEY });
 *     const { sockets } = await userwire.send("alice", { order: 7 });
 *
 * Each call is repeated when the service or the network fails, and each send carries an idempotency key, so that it is
 * sent once however often it is repeated.
 */
import { base64Of } from "../../src/protocol/base64.ts";
import type { Connection } from "../../src/publisher/connections.ts";
import { readTraceParent } from "../../src/protocol/trace_parent.ts";
import { payloadFrom, type Sendable } from "../../src/publisher/payload.ts";
import { Caller, type ServerOptions } from "./call.ts";
import { type Groups, groupsBy, type GroupSent } from "./groups.ts";
import { groupPath, JSON_TYPE, query, userPath } from "./path.ts";

export { InvalidMessageError } from "../../src/protocol/errors.ts";
export {
  type VerifyOptions,
  verifyWebhook,
  type WebhookBody,
  WebhookVerificationError,
} from "../../src/protocol/signature.ts";
export type { GroupInfo, GroupMembers, Groups, GroupSent, GroupUpdate } from "./groups.ts";
export type { Connection } from "../../src/publisher/connections.ts";
export type { Sendable } from "../../src/publisher/payload.ts";
export { type Answer, type Fetch, type FetchInit, type ServerOptions, UserwireError } from "./call.ts";

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

/** The connections of a user that have answered. */
export interface Connections {
  readonly items: readonly Connection[];
  /** How many were asked; missing where the service's subscriptions are shared, see `nodes`. */
  readonly sockets?: number;
  /** How many nodes were asked for all they hold, where subscriptions are shared. */
  readonly nodes?: number;
  /** How many of these did not answer in 2 s: 0 when the list is complete. */
  readonly unanswered: number;
}

/** A service of Userwire. Each method throws a `UserwireError` when the call is refused or can't be made. */
export interface Server {
  /**
   * Sends a message to every socket of a user.
   * @param message A string is sent as text, a `Uint8Array` as bytes, every other value as JSON.
   * @throws {InvalidMessageError} for what can't be sent, before anything is.
   */
  send(user: string, message: Sendable, options?: SendOptions): Promise<Sent>;
  /** Sends up to 1,000 messages; all are checked before the first is sent. @returns One result each, in order. */
  sendBatch(
    items: readonly BatchItem[],
    options?: Pick<SendOptions, "idempotencyKey" | "traceparent">,
  ): Promise<BatchResult[]>;
  /**
   * Sends a message to every user of a group; a retry with the same key goes on where the one before broke off.
   * @throws {UserwireError} with the code `group_not_found` when there is no such group.
   */
  sendToGroup(group: string, message: Sendable, options?: GroupSendOptions): Promise<GroupSent>;
  /** Who is in which group. */
  readonly groups: Groups;
  /** How many sockets, or nodes, each user has. @param users At most 10,000. */
  online(users: readonly string[]): Promise<Record<string, number>>;
  /** Whether the user has a socket anywhere. To send, send: `expectOnline` asks and sends in one step. */
  online(user: string): Promise<boolean>;
  /** A ticket, which lets one socket in as this user. @param options.ttlS How long it is good for, in seconds. */
  ticket(
    user: string,
    options?: { readonly ttlS?: number | undefined },
  ): Promise<{ ticket: string; url: string }>;
  /**
   * Closes every socket of a user.
   * @param options.code Close code; clients take the default, 4403, as final. @param options.why What they see.
   * @returns How many were told, or on how many nodes.
   */
  kick(
    user: string,
    options?: { readonly code?: number | undefined; readonly why?: string | undefined },
  ): Promise<{ closed?: number; nodes?: number }>;
  /** Every connection of a user, on all nodes. */
  connections(user: string): Promise<Connections>;
  /**
   * Closes one connection of a user, as `kick` does all of them.
   * @param conn Its id.
   * @throws {UserwireError} with the code `connection_not_found` when the user has none of this id.
   */
  closeConnection(
    user: string,
    conn: string,
    options?: { readonly code?: number | undefined; readonly why?: string | undefined },
  ): Promise<void>;
  /**
   * Lets a user's tokens and tickets in no more, and closes the sockets they let in.
   * @param options.jti The one token that is meant. @param options.issuedBefore Unix seconds: all that are older.
   *   @default all until now
   */
  revoke(
    user: string,
    options?: { readonly jti?: string | undefined; readonly issuedBefore?: number | undefined },
  ): Promise<{ jti?: string; issued_before?: number }>;
}

const TYPES = { json: JSON_TYPE, text: "text/plain", binary: "application/octet-stream" } as const;

/**
 * A service to call. Opens nothing, and needs no closing.
 * @throws {TypeError} when the address or the key can't be one.
 */
export function createServer(options: ServerOptions): Server {
  const caller = new Caller(options);
  const post = <Body>(path: string, body: string, headers: Record<string, string> = {}) =>
    caller.call<Body>({ method: "POST", path, headers: { "content-type": JSON_TYPE, ...headers }, body });

  async function online(users: string | readonly string[]): Promise<boolean | Record<string, number>> {
    if (typeof users !== "string") {
      return (await post<Record<string, number>>("/v1/users/online", JSON.stringify({ users }))).body;
    }
    const { body } = await caller.call<{ online: boolean }>({ method: "GET", path: userPath(users) });
    return body.online;
  }

  async function sendTo<Body>(path: () => string, message: Sendable, options: GroupSendOptions) {
    const payload = payloadFrom(message);
    const { body } = await caller.call<Body>({
      method: "POST",
      path: `${path()}/messages${queryOf(options)}`,
      headers: {
        "content-type": TYPES[payload.kind],
        ...headersOf(options),
      },
      body: payload.kind === "binary" ? payload.bytes : payload.text,
      extraMs: options.waitAckMs,
    });
    return body;
  }

  return {
    send: (user, message, options = {}) => sendTo<Sent>(() => userPath(user), message, options),
    sendToGroup: (group, message, options = {}) =>
      sendTo<GroupSent>(() => groupPath(group), message, options),
    groups: groupsBy(caller),
    async sendBatch(items, options = {}) {
      const { body } = await post<{ results: BatchResult[] }>(
        "/v1/messages",
        `{"items":[${items.map(itemOf).join()}]}`,
        headersOf(options),
      );
      return body.results;
    },
    online: online as Server["online"],
    async ticket(user, { ttlS } = {}) {
      return (await post<{ ticket: string; url: string }>("/v1/tickets", JSON.stringify({ user, ttl: ttlS })))
        .body;
    },
    async kick(user, { code, why } = {}) {
      const path = `${userPath(user)}/connections${query({ code, why })}`;
      return (await caller.call<{ closed?: number; nodes?: number }>({ method: "DELETE", path })).body;
    },
    async connections(user) {
      const path = `${userPath(user)}/connections`;
      return (await caller.call<Connections>({ method: "GET", path })).body;
    },
    async closeConnection(user, conn, { code, why } = {}) {
      const path = `${userPath(user)}/connections/${encodeURIComponent(conn)}${query({ code, why })}`;
      await caller.call({ method: "DELETE", path });
    },
    async revoke(user, { jti, issuedBefore } = {}) {
      const asked = JSON.stringify({ jti, issued_before: issuedBefore });
      return (await post<{ jti?: string; issued_before?: number }>(`${userPath(user)}/revocations`, asked))
        .body;
    },
  };
}

function headersOf(
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

/** As text: JSON goes out as it was given, with numbers that `JSON.parse` would round. */
function itemOf({ to, message, id, ttlS, expectOnline }: BatchItem): string {
  const payload = payloadFrom(message);
  const data = payload.kind === "binary"
    ? `"base64":"${base64Of(payload.bytes)}"`
    : payload.kind === "text"
    ? `"text":${JSON.stringify(payload.text)}`
    : `"data":${payload.text}`;
  const rest = JSON.stringify({ to, id, ttl: ttlS, expect: expectOnline ? "online" : undefined });
  return `${rest.slice(0, -1)},${data}}`;
}
