/** What frames say, as the application gets it. Pure. */
import type { BroadcastFrame, MessageFrame } from "../protocol/frames.ts";
import { parsePosition, type Position } from "../protocol/position.ts";
import type { Message } from "./options.ts";

export function readMessage<Data>(
  { data, id, ts, seq, enc, r }: MessageFrame | BroadcastFrame,
): Message<Data> {
  const value = enc === "base64" ? bytesOf(data as string) : data;
  return { data: value as Data, id, ts, seq, replayed: r === 1 };
}

/** Where a frame says that the reader stands; undefined when that is no position. */
export function placeAt(pos: string, tag: string | undefined): Position | undefined {
  const position = parsePosition(pos);
  return position && { ...position, tag };
}

/** What is wrong when a message comes that is not the next one. */
export function holeBefore(what: string, seq: number, before: Position): Error {
  return new Error(`${what} ${seq} came after ${before.seq}, and no gap was announced`);
}

// Uint8Array.fromBase64 is not everywhere yet.
function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}
