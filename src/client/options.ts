/** What a client is given, and what it gives. Types only. */
import type { BroadcastGapFrame, ByeFrame, GapFrame, HiFrame } from "../protocol/frames.ts";
import type { HandoverBound } from "./handover.ts";
import type { SocketConstructor } from "./session.ts";
import type { Store } from "./store.ts";

/**
 * `connecting`: an attempt is under way. `open`: the server has said `hi`. `waiting`: for the next attempt, or for
 * the application to take what it was given. `offline`: for the network, by word of the browser. `paused`: by the
 * application. `closed`: for good.
 */
export type State = "connecting" | "open" | "waiting" | "offline" | "paused" | "closed";

/** When to try again. */
export interface Backoff {
  /** The first wait is a random part of this; doubled with each failure. In milliseconds. @default 500 */
  readonly baseMs: number;
  /** Longest wait, in milliseconds. @default 30_000 */
  readonly maxMs: number;
  /** A connection that lasted this long starts the doubling anew, in milliseconds. @default 10_000 */
  readonly steadyMs: number;
}

/** How to connect: `auto` is WebSockets, and server-sent events where those are blocked. */
export type Transport = "auto" | "websocket" | "sse";

/** A connection that ended, or an attempt that failed. */
export interface Lost {
  /** The close code; 1006 when it broke or never came about. */
  readonly code: number;
  readonly reason: string;
  /** Whether it had been open. */
  readonly opened: boolean;
  /** The next attempt comes after so many milliseconds; undefined when none is planned. */
  readonly retryMs: number | undefined;
}

/** The service's address as applications have it: text or a `URL`. */
export type AddressLike = string | { readonly href: string };

/** A message as the application gets it. */
export interface Message<Data = unknown> {
  /** What was sent: a JSON value, text as a string, bytes as a `Uint8Array`. */
  readonly data: Data;
  /** Unique; undefined when the message was published past the service. */
  readonly id: string | undefined;
  /** When it was sent, in Unix milliseconds. */
  readonly ts: number;
  /** Its number among the user's messages; undefined when the service keeps no history, or does not know it. */
  readonly seq: number | undefined;
  /** The group that it was sent to; missing when it was sent to the user alone. */
  readonly group?: string;
  /** The span that the send was a part of (`traceparent` of W3C Trace Context); missing when its sender named none. */
  readonly traceparent?: string;
  /** Whether it was sent before this connection was there for it. */
  readonly replayed: boolean;
}

/** What a client tells those who listen with `on`. */
export interface ClientEvents<Data = unknown> {
  message: Message<Data>;
  /** Messages that can't be delivered: exactly which, or, after the history was lost, that nobody knows. */
  gap: GapFrame;
  /** A message to everybody. Only to those who listen when it comes: nothing of these waits, and no loop gets them. */
  broadcast: Message<Data>;
  /** Broadcasts that can't be delivered, in numbers of their own. */
  broadcastGap: BroadcastGapFrame;
  state: State;
  /** A connection has opened. */
  open: HiFrame;
  /** The server is about to close the connection, and says why. */
  bye: ByeFrame;
  /** A connection has ended, or an attempt has failed. */
  lost: Lost;
  /**
   * Something is not as it should be, and the client goes on: a `RefusedError` when the service lets it not in. Without
   * a listener it goes to the console.
   */
  error: Error;
}

/** How a client ended. */
export interface Closed {
  /** 1000 after `close()`, else the server's close code. */
  readonly code: number;
  readonly reason: string;
}

/** Who connects: a name where the service is open, else the user of the token. */
export type Identity =
  | { readonly user: string }
  /** Called before every attempt to connect. When it fails or takes longer than `timeoutMs`, that attempt has failed. */
  | { readonly token: () => Promise<string> };

export type ConnectOptions = Identity & CommonOptions;

/** What every client may be given. */
export interface CommonOptions {
  /** Position to go on from, as `position` gave it. Wins over that of the store. */
  readonly resume?: string | undefined;
  /** Position among the broadcasts to go on from, as `broadcastPosition` gave it. */
  readonly resumeBroadcasts?: string | undefined;
  /** Where both positions are kept for the next start of the program, as one text. */
  readonly store?: Store | undefined;
  readonly backoff?: Partial<Backoff> | undefined;
  /**
   * How late the server's sign of life may be, how long a connection may take to open, and before that how long
   * `token` and the store's `load` may take, each, in milliseconds.
   * @default 10_000
   */
  readonly timeoutMs?: number | undefined;
  /**
   * What may wait for the application. With more, the client disconnects, and connects again when half of it is
   * gone: what was sent meanwhile comes then, as far as the service keeps it. @default 1000 messages, 4 Mi chars
   */
  readonly buffer?: Partial<HandoverBound> | undefined;
  /**
   * After how many seconds of silence the service gives a sign of life: 15 to 300, or else the nearest. A longer time
   * saves battery, and a server that died is noticed later. @default the service's own, 25
   */
  readonly pingS?: number | undefined;
  /**
   * The same while the page is hidden. When it gets hidden the client connects anew to ask for it, if the service keeps
   * what is sent meanwhile. @default as in a page that is not
   */
  readonly hiddenPingS?: number | undefined;
  /** Reads frames, for numbers that `JSON.parse` rounds. @default JSON.parse */
  readonly parse?: ((text: string) => unknown) | undefined;
  /**
   * What carries the connection: WebSockets, server-sent events by `fetch`, or `auto`, which is WebSockets, and the other
   * as long as something in between blocks those. @default "auto"
   */
  readonly transport?: Transport | undefined;
  /** What sockets are made with, where there is no global `WebSocket`. */
  readonly WebSocket?: SocketConstructor | undefined;
}
