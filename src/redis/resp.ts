/**
 * Reads what Redis writes: RESP2 replies out of a growing buffer, whole or split at any byte. Of RESP3 it knows nothing, as
 * nobody asks for that: we never send HELLO.
 * Specification: https://redis.io/docs/latest/develop/reference/protocol-spec/
 *
 * No I/O. The caller reads into `space()`, says how much with `filled()`, and takes replies until there are no
 * more. Bulk strings come as views into the buffer: they are valid until the next `space()`, so a reader
 * decodes or copies them at once.
 */

import { Buffer } from "node:buffer";

/** An error reply, such as "NOAUTH Authentication required." It is a value, not thrown. */
export class ReplyError {
  constructor(readonly text: string) {}
}

export type Reply = string | number | null | Uint8Array | ReplyError | Reply[];

/** Whether it says that a channel of sharded pub/sub is subscribed no more; Redis says that also unasked. */
export function isUnsubscribed(reply: Reply): reply is [Uint8Array, Uint8Array, number] {
  return Array.isArray(reply) && reply[0] instanceof Uint8Array && reply[1] instanceof Uint8Array &&
    SUNSUBSCRIBED.equals(reply[0]);
}

const SUNSUBSCRIBED = Buffer.from("sunsubscribe");

/** The bytes can't be RESP. The connection is of no more use. */
export class RespError extends Error {
  override readonly name = "RespError";
}

const CR = 13, LF = 10, DOLLAR = 36, PLUS = 43, MINUS = 45, ZERO = 48, EIGHT = 56, NINE = 57;
const INCOMPLETE = Symbol("incomplete");
type Incomplete = typeof INCOMPLETE;

/** Writes one command as RESP. */
export function encodeCommand(...words: string[]): Uint8Array<ArrayBuffer> {
  let text = `*${words.length}\r\n`;
  for (const word of words) text += `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
  return Buffer.from(text);
}

/** Replies to us are lists of lists at most; what nests deeper comes from something else. */
const MAX_DEPTH = 32;
/** What every pub/sub message begins with; and every one of sharded pub/sub, which one byte tells from it. */
const MESSAGE_HEAD = Buffer.from("*3\r\n$7\r\nmessage\r\n$");
const SMESSAGE_HEAD = Buffer.from("*3\r\n$8\r\nsmessage\r\n$");
const TELLING_AT = 5;
/** Most subscriptions never need more than this, and there may be ten thousand of them. */
const SMALLEST_BUFFER = 512;
/** A buffer that has grown beyond so many times the smallest is let go as soon as it is empty. */
const KEPT_GROWTH = 8;
/** Room made at one time for a payload that is announced but has not arrived. */
const LARGEST_STEP = 4 * 1024 * 1024;
// Throws on bytes that are no UTF-8, and keeps a byte order mark: payloads pass byte for byte.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class RespParser {
  readonly #smallest: number;
  /** A Buffer, whose decoding costs a fifth of a TextDecoder's that is as strict. */
  #buffer: Buffer<ArrayBuffer>;
  #start = 0;
  #end = 0;
  #at = 0;
  /** Size of the reply that has begun to arrive, as far as it is known. */
  #wanted = 0;
  /** Where the message taken last lies. */
  #channelStart = 0;
  #channelEnd = 0;
  #payloadStart = 0;
  #payloadEnd = 0;

  /** @param options.bufferSize Where the buffer begins, and what it goes back to, in bytes. @default 512 */
  constructor(options: { bufferSize?: number } = {}) {
    this.#smallest = options.bufferSize ?? SMALLEST_BUFFER;
    this.#buffer = Buffer.allocUnsafeSlow(this.#smallest);
  }

  /** Free room to read into; never empty. Ends the life of views given out before. */
  space(): Uint8Array<ArrayBuffer> {
    if (this.#start === this.#end) {
      this.#start = this.#end = 0;
      if (this.#buffer.length > this.#smallest * KEPT_GROWTH) {
        this.#buffer = Buffer.allocUnsafeSlow(this.#smallest);
      }
      return this.#buffer;
    }
    const pending = this.#end - this.#start;
    // Not more than a step ahead of what has arrived: a length is only a claim.
    const wanted = Math.min(this.#wanted, pending + LARGEST_STEP);
    if (this.#start + wanted > this.#buffer.length) this.#makeRoom(wanted);
    else if (this.#end === this.#buffer.length) this.#makeRoom(pending * 2);
    return this.#buffer.subarray(this.#end);
  }

  /** Says that `count` bytes were read into the last `space()`. */
  filled(count: number): void {
    this.#end += count;
    // A full buffer means that Redis has more to say: next time more of it is read at once.
    if (count === this.#buffer.length && count < this.#smallest * KEPT_GROWTH) this.#makeRoom(count * 2);
  }

  /**
   * Takes the next reply if it is a pub/sub message that has arrived whole; `channel`, `payload` and `byteLength`
   * are then about it. It is `next()` for the one reply that matters, without building the lists around it.
   */
  message(): boolean {
    const buffer = this.#buffer;
    const end = this.#end;
    let at = this.#start;
    const head = buffer[at + TELLING_AT] === EIGHT ? SMESSAGE_HEAD : MESSAGE_HEAD;
    if (end - at <= head.length) return false;
    for (let i = 0; i < head.length; i++, at++) if (buffer[at] !== head[i]) return false;
    this.#at = at;
    const channelLength = this.#length();
    const channelStart = this.#at;
    // "\r\n$" stands between the channel and the length of the payload.
    this.#at = channelStart + channelLength + 3;
    if (channelLength < 0 || this.#at >= end || buffer[this.#at - 1] !== DOLLAR) return false;
    const payloadLength = this.#length();
    if (payloadLength < 0) return false;
    const payloadStart = this.#at;
    const next = payloadStart + payloadLength + 2;
    if (next > end) {
      this.#wanted = next - this.#start;
      return false;
    }
    if (buffer[next - 2] !== CR || buffer[next - 1] !== LF) return false; // next() says what is wrong
    this.#channelStart = channelStart;
    this.#channelEnd = channelStart + channelLength;
    this.#payloadStart = payloadStart;
    this.#payloadEnd = payloadStart + payloadLength;
    this.#start = next;
    this.#wanted = 0;
    return true;
  }

  /** The channel of the message taken last. Valid, like the payload, until the next `space()`. */
  channel(): string {
    return this.#buffer.toString("utf8", this.#channelStart, this.#channelEnd);
  }

  /** The payload of the message taken last: text when it is UTF-8, else a copy of the bytes. */
  payload(): string | Uint8Array<ArrayBuffer> {
    const text = this.#buffer.toString("utf8", this.#payloadStart, this.#payloadEnd);
    // The mark of a byte that could not be decoded may also stand in the payload itself.
    if (!text.includes("\ufffd")) return text;
    const bytes = this.#buffer.subarray(this.#payloadStart, this.#payloadEnd);
    try {
      return utf8.decode(bytes);
    } catch {
      return Uint8Array.from(bytes);
    }
  }

  /** Size of the payload of the message taken last, in bytes. */
  get byteLength(): number {
    return this.#payloadEnd - this.#payloadStart;
  }

  /**
   * Takes the next reply, or undefined when it has not arrived whole.
   * @throws {RespError}
   */
  next(): Reply | undefined {
    this.#at = this.#start;
    const reply = this.#read(0);
    if (reply === INCOMPLETE) return undefined;
    this.#start = this.#at;
    this.#wanted = 0;
    return reply;
  }

  /** The length at `#at`, which is then behind it; -1 when it has not arrived whole. For the short way only. */
  #length(): number {
    const buffer = this.#buffer;
    const first = this.#at;
    let length = 0;
    let at = first;
    for (; at < this.#end; at++) {
      const byte = buffer[at]!;
      if (byte < ZERO || byte > NINE) break;
      length = length * 10 + byte - ZERO;
    }
    this.#at = at + 2;
    return at > first && at + 1 < this.#end && buffer[at] === CR ? length : -1;
  }

  /** Moves what has arrived to the front of a buffer of at least this size. */
  #makeRoom(size: number): void {
    const pending = this.#end - this.#start;
    if (size <= this.#buffer.length) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
    } else {
      const bigger = Buffer.allocUnsafeSlow(size);
      bigger.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = bigger;
    }
    this.#start = 0;
    this.#end = pending;
  }

  #read(depth: number): Reply | Incomplete {
    if (this.#at >= this.#end) return INCOMPLETE;
    if (depth > MAX_DEPTH) {
      throw new RespError("Redis sent lists that nest too deeply: is this a Redis port?");
    }
    const type = String.fromCharCode(this.#buffer[this.#at++]!);
    switch (type) {
      case "+":
        return this.#line();
      case "-": {
        const line = this.#line();
        return line === INCOMPLETE ? line : new ReplyError(line);
      }
      case ":":
        return this.#integer();
      case "$":
        return this.#bulk();
      case "*":
        return this.#list(depth);
      default:
        throw new RespError(
          `Redis sent ${JSON.stringify(type)} where a reply should begin: is this a Redis port?`,
        );
    }
  }

  #line(): string | Incomplete {
    for (let at = this.#at; at + 1 < this.#end; at++) {
      if (this.#buffer[at] === CR && this.#buffer[at + 1] === LF) {
        const line = this.#buffer.toString("utf8", this.#at, at);
        this.#at = at + 2;
        return line;
      }
    }
    return INCOMPLETE;
  }

  #integer(): number | Incomplete {
    let at = this.#at;
    const sign = at < this.#end ? this.#buffer[at] : undefined;
    if (sign === MINUS || sign === PLUS) at++;
    const first = at;
    let value = 0;
    for (; at < this.#end; at++) {
      const byte = this.#buffer[at]!;
      if (byte < ZERO || byte > NINE) break;
      value = value * 10 + (byte - ZERO);
    }
    if (at + 1 >= this.#end) return INCOMPLETE;
    if (at === first || this.#buffer[at] !== CR || this.#buffer[at + 1] !== LF) {
      throw new RespError("Redis sent a length or number that is none: is this a Redis port?");
    }
    this.#at = at + 2;
    return sign === MINUS ? -value : value;
  }

  #bulk(): Uint8Array | null | Incomplete {
    const length = this.#integer();
    if (length === INCOMPLETE) return length;
    if (length < 0) return null;
    if (this.#at + length + 2 > this.#end) {
      this.#wanted = this.#at + length + 2 - this.#start;
      return INCOMPLETE;
    }
    const end = this.#at + length;
    if (this.#buffer[end] !== CR || this.#buffer[end + 1] !== LF) {
      throw new RespError("Redis sent a text that is longer than it says");
    }
    const bytes = this.#buffer.subarray(this.#at, end);
    this.#at = end + 2;
    return bytes;
  }

  #list(depth: number): Reply[] | null | Incomplete {
    const length = this.#integer();
    if (length === INCOMPLETE) return length;
    if (length < 0) return null;
    const list: Reply[] = [];
    for (let i = 0; i < length; i++) {
      const item = this.#read(depth + 1);
      if (item === INCOMPLETE) return INCOMPLETE;
      list.push(item);
    }
    return list;
  }
}
