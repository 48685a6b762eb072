/**
 * The public door of the publisher: a backend written in Deno imports it, by `src/publisher.ts`, and skips the HTTP.
 *
 * ```ts ignore
 * import { Publisher } from "../userwire/src/publisher.ts";
 *
 * await using publisher = await Publisher.open({ redisUrl: "redis://127.0.0.1:6379" });
 * const { sockets } = await publisher.send("alice", { order: 7 });
 * if (sockets === 0) console.log("alice is offline");
 * ```
 *
 * What is named here stays within a major version. The other files of the room may change at any time.
 */
export { Publisher } from "./publisher.ts";
export type { PublisherOptions } from "./options.ts";
export type { HistoryPage, HistoryPage as History, HistoryParts, HistoryRange } from "./history_page.ts";
export type { BroadcastOptions, BroadcastResult } from "./broadcast.ts";
export type { CloseOne, Connection, ConnectionClosed, Connections } from "./connections.ts";
export type { GroupSendOptions, GroupSendResult } from "./group_send.ts";
export type { GroupBook, GroupInfo, GroupMembers, GroupUpdate } from "./groups.ts";
export type { Count, ManySendOptions, SendOptions, SendResult } from "./send.ts";
export type { Sendable } from "./payload.ts";
