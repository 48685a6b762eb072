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
import type { Connection } from "../../src/publisher/connections.ts";
import type { Sendable } from "../../src/publisher/payload.ts";
import { Caller, type ServerOptions } from "./call.ts";
import { type Groups, groupsBy, type GroupSent } from "./groups.ts";
import { type HistoryAnswer, historyFrom, type UserHistory } from "./history.ts";
import { connectionPath, groupPath, JSON_TYPE, query, userPath } from "./path.ts";
import {
  type BatchItem,
  type BatchResult,
  type BroadcastOptions,
  type BroadcastSent,
  type GroupSendOptions,
  headersOf,
  itemOf,
  sendCall,
  type SendOptions,
  type Sent,
} from "./sending.ts";

export { InvalidMessageError } from "../../src/protocol/errors.ts";
export {
  type VerifyOptions,
  verifyWebhook,
  type WebhookBody,
  WebhookVerificationError,
} from "../../src/protocol/signature.ts";
export type { GroupInfo, GroupMembers, Groups, GroupSent, GroupUpdate } from "./groups.ts";
export type { StoredMessage, UserHistory } from "./history.ts";
export type {
  BatchItem,
  BatchResult,
  BroadcastOptions,
  BroadcastSent,
  GroupSendOptions,
  SendOptions,
  Sent,
} from "./sending.ts";
export type { Connection } from "../../src/publisher/connections.ts";
export type { Sendable } from "../../src/publisher/payload.ts";
export { type Answer, type Fetch, type FetchInit, type ServerOptions, UserwireError } from "./call.ts";

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
  /**
   * Sends a message to everybody who is connected, to any node. The key needs the scope `broadcast`, and all users.
   * @param message As for `send`.
   */
  broadcast(message: Sendable, options?: BroadcastOptions): Promise<BroadcastSent>;
  /** Who is in which group. */
  readonly groups: Groups;
  /** How many sockets, or nodes, each user has. @param users At most 10,000. */
  online(users: readonly string[]): Promise<Record<string, number>>;
  /** Whether the user has a socket anywhere. To send, send: `expectOnline` asks and sends in one step. */
  online(user: string): Promise<boolean>;
  /**
   * What is kept of a user's messages, oldest first.
   * @param options.after Number or position to begin after. @param options.limit At most so many. @default 100
   * @throws {UserwireError} with the code `epoch_changed` when the position is of a history that is gone.
   */
  history(
    user: string,
    options?: { readonly after?: number | string | undefined; readonly limit?: number | undefined },
  ): Promise<UserHistory>;
  /**
   * A ticket, which lets one connection in as this user.
   * @param options.ttlS How long it is good for, in seconds. @param options.reuse Any number of connections until then, as a
   *   browser's `EventSource` needs it. @default false
   * @returns It, and where to connect with it: by a socket, and by server-sent events.
   */
  ticket(
    user: string,
    options?: { readonly ttlS?: number | undefined; readonly reuse?: boolean | undefined },
  ): Promise<{ ticket: string; url: string; events: string }>;
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

  const sendTo = async <Body>(path: () => string, message: Sendable, options: GroupSendOptions) =>
    (await caller.call<Body>(sendCall(path(), message, options))).body;

  return {
    send: (user, message, options = {}) => sendTo<Sent>(() => `${userPath(user)}/messages`, message, options),
    sendToGroup: (group, message, options = {}) =>
      sendTo<GroupSent>(() => `${groupPath(group)}/messages`, message, options),
    broadcast: (message, { ttlS, idempotencyKey, traceparent } = {}) =>
      sendTo<BroadcastSent>(() => "/v1/broadcast", message, { ttlS, idempotencyKey, traceparent }),
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
    history: async (user, { after, limit } = {}) => {
      const path = `${userPath(user)}/messages${query({ after, limit })}`;
      return historyFrom((await caller.call<HistoryAnswer>({ method: "GET", path })).body);
    },
    async ticket(user, { ttlS, reuse } = {}) {
      const asked = JSON.stringify({ user, ttl: ttlS, reuse });
      return (await post<{ ticket: string; url: string; events: string }>("/v1/tickets", asked)).body;
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
      const path = `${connectionPath(user, conn)}${query({ code, why })}`;
      await caller.call({ method: "DELETE", path });
    },
    async revoke(user, { jti, issuedBefore } = {}) {
      const asked = JSON.stringify({ jti, issued_before: issuedBefore });
      return (await post<{ jti?: string; issued_before?: number }>(`${userPath(user)}/revocations`, asked))
        .body;
    },
  };
}
