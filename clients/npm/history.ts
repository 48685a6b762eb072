/** What is kept of a user's messages, as a backend reads it. */
import { bytesOf } from "../../src/protocol/base64.ts";

/** A message that is kept. */
export interface StoredMessage {
  readonly seq: number;
  /** Proof of the position after it: `<epoch>.<seq>.<tag>`. */
  readonly tag?: string;
  readonly id: string;
  /** When it was sent, in Unix milliseconds. */
  readonly ts: number;
  /** The group that it was sent to; missing when it was sent to the user alone. */
  readonly group?: string;
  /** What was sent: any JSON value, or a `Uint8Array`. */
  readonly data: unknown;
}

export interface UserHistory {
  /** Empty when the user was never seen. */
  readonly epoch: string;
  /** Number of the first item; 0 without items. */
  readonly first: number;
  /** Number of the newest message ever sent; 0 before the first. */
  readonly last: number;
  /** Oldest first. */
  readonly items: readonly StoredMessage[];
}

/** A frame, as the service keeps it. */
interface Frame extends Omit<StoredMessage, "group"> {
  readonly enc?: string;
  readonly g?: string;
}

/** @param answer What the service has answered. */
export function historyFrom({ epoch, first, last, items }: HistoryAnswer): UserHistory {
  return { epoch, first, last, items: items.map(messageFrom) };
}

export interface HistoryAnswer extends Omit<UserHistory, "items"> {
  readonly items: readonly Frame[];
}

function messageFrom({ seq, tag, id, ts, enc, g, data }: Frame): StoredMessage {
  return {
    ...{ seq, id, ts, data: enc === "base64" ? bytesOf(data as string) : data },
    ...(tag !== undefined && { tag }),
    ...(g !== undefined && { group: g }),
  };
}
