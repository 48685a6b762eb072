/** What came from the server and is on its way to the application: a message, or a gap among them. Pure. */
import { bytesOf } from "../protocol/base64.ts";
import type { BroadcastFrame, GapFrame, MessageFrame } from "../protocol/frames.ts";
import { parsePosition, type Position } from "../protocol/position.ts";
import type { Entry } from "./handover.ts";
import type { Message } from "./options.ts";

export interface Received<Data> extends Entry<Message<Data>> {
  /** Where the application stands when it has it; undefined when it does not count. */
  readonly position: Position | undefined;
  readonly gap: GapFrame | undefined;
  /** The sender waits to hear that the application has it. */
  readonly urgent: boolean;
}

/** The message as the application gets it. */
export function readMessage<Data>(
  { data, id, ts, seq, g, tp, enc, r }: MessageFrame | BroadcastFrame,
): Message<Data> {
  const value = enc === "base64" ? bytesOf(data as string) : data;
  return {
    ...{ data: value as Data, id, ts, seq, replayed: r === 1 },
    ...(g !== undefined && { group: g }),
    ...(tp !== undefined && { traceparent: tp }),
  };
}

/** The position that a frame names; undefined when it is none. */
export function placeAt(pos: string, tag: string | undefined): Position | undefined {
  const position = parsePosition(pos);
  return position && { ...position, tag };
}

/** What is wrong when a message comes that is not the next one. */
export function holeBefore(what: string, seq: number, before: Position): Error {
  return new Error(`${what} ${seq} came after ${before.seq}, and no gap was announced`);
}
