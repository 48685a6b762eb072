/**
 * The client of Userwire: receives a user's messages in browsers, Deno, Node and Bun, made of Web APIs only.
 *
 *     import { connect } from "/client.js";
 *
 *     const client = connect("https://push.example.com", { user: "alice" });
 *     client.on("gap", (gap) => reload());
 *     for await (const message of client) show(message.data);
 */
import { Client } from "./client.ts";
import type { AddressLike, ConnectOptions } from "./options.ts";

/**
 * Connects as a user, and stays connected until `close()` or until the server says that coming back is no use.
 * Returns at once: `on`, the loop, `state` and `closed` report what happens.
 *
 * @param url Where the service is: `https://host`, `wss://host/ws`, or, in a page that it serves, `/`.
 * @typeParam Data What the backend sends as data; nothing checks it.
 * @throws {TypeError} when the address or the position can't be one, holds a ticket, or there is no WebSocket.
 * @throws {InvalidUsernameError}
 */
export function connect<Data = unknown>(url: AddressLike, options: ConnectOptions): Client<Data> {
  return new Client<Data>(url, options);
}

export type { Client } from "./client.ts";
export type {
  AddressLike,
  Backoff,
  ClientEvents,
  Closed,
  CommonOptions,
  ConnectOptions,
  Identity,
  Lost,
  Message,
  State,
  Transport,
} from "./options.ts";
export type { HandoverBound } from "./handover.ts";
export type { RequestOptions } from "./requests.ts";
export type { Socket, SocketConstructor } from "./session.ts";
export { type Store, storedIn, type TextStorage } from "./store.ts";
export { InvalidUsernameError, RefusedError, RequestError } from "../protocol/errors.ts";
export { shouldReconnect } from "../protocol/close_codes.ts";
export type { BroadcastGapFrame, ByeFrame, GapFrame, HiFrame } from "../protocol/frames.ts";
