/**
 * Contract of a transport: the way between one session and its client. A session writes to a transport and never to a
 * socket, so that another kind of transport needs no other session.
 *
 * It owns what carries the frames, what the client has not taken yet of them, and how the connection is closed. It must
 * not know whose they are, nor what a message says.
 *
 * - Nothing is written before `opened` was called, nor after `close`.
 * - `gone` is called once, and nothing after it. After `close` it may never come: some peers do not answer.
 * - What happens goes to the `events` of that moment: a new owner of the transport puts itself there.
 */
import type { Mode } from "../metrics/metrics.ts";
import type { CloseReason } from "../protocol/close_codes.ts";

/** From the transport up. */
export interface TransportEvents {
  /** The client can be written to. */
  opened(): void;
  /** The client sent a frame. A binary one is there for the length of the call: then its memory is freed. */
  frame(data: string | ArrayBuffer): void;
  /** The client, told to close, goes on sending more than can have been on its way; it is cut. */
  flooded(): void;
  /** It has lasted as long as its kind may: the client is to connect again. */
  expired(): void;
  /** The end. @param code The client's close code, or 0 without one; undefined when it never opened. */
  gone(code: number | undefined): void;
}

export interface CloseOptions {
  /** When the client should come back, in milliseconds from now. */
  retryMs?: number;
  /** Hear the client out first, for at most a second: for one whose frames are the reason, and more are on their way. @default false */
  whenQuiet?: boolean;
}

/** From the session down. */
export interface Transport {
  events: TransportEvents;
  /** Whether the client speaks frames (`userwire.v1`); else it gets payloads as they are. */
  readonly isFramed: boolean;
  /** What it is, as metrics and logs call it. */
  readonly mode: Mode;
  /** *unanswered*: nothing was said to the client yet; *opening*: it was answered, and may never know. */
  readonly state: "unanswered" | "opening" | "open" | "closed";
  /** Whether the client has taken so much of what was written that it is worth going on. */
  readonly hasRoom: boolean;
  /** Bytes that the client has not taken, about. */
  readonly buffered: number;
  /** Writes a message; false, without writing it, when the client has not taken what it was given before. */
  write(frame: string | Uint8Array<ArrayBuffer>): boolean;
  /** Writes what is no message, however much waits. */
  send(frame: string): void;
  /**
   * Called once a second.
   * @param isLate The process is short of time: a client's silence says nothing.
   * @returns How many times in a row something waited and the client had taken nothing.
   */
  tick(isLate: boolean): number;
  /** Tells the client to go, and why. Where it never opened, `gone` comes at once. */
  close(reason: CloseReason, options?: CloseOptions): void;
}
