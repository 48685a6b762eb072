/**
 * Reads what Redis writes: RESP2 and RESP3 replies out of a growing buffer, whole or split at any byte.
 * Specification: https://redis.io/docs/latest/develop/reference/protocol-spec/
 *
 * No I/O. The caller reads into `space()`, says how much with `filled()`, and takes replies until there are no
 * more. Bulk strings come as views into the buffer: they are valid until the next `space()`, so a reader
 * decodes or copies them at once.
 */

/** An error reply, such as "NOAUTH Authentication required." It is a value, not thrown. */
export class ReplyError {
  constructor(readonly text: string) {}
  /** The first word: "NOAUTH", "NOPERM", "LOADING", … */
  get code(): string {
    return this.text.split(" ", 1)[0]!;
  }
}

/** Maps come as flat lists of keys and values; pushes, sets and arrays as lists. */
export type Reply = string | number | bigint | boolean | null | Uint8Array | ReplyError | Reply[];

/** The bytes can't be RESP. The connection is of no more use. */
export class RespError extends Error {
  override readonly name = "RespError";
}

const CR = 13, LF = 10, PLUS = 43, MINUS = 45, ZERO = 48, NINE = 57;
const INCOMPLETE = Symbol("incomplete");
type Incomplete = typeof INCOMPLETE;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes one command as RESP. */
export function encodeCommand(...words: (string | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [encoder.encode(`*${words.length}\r\n`)];
  for (const word of words) {
    const bytes = typeof word === "string" ? encoder.encode(word) : word;
    parts.push(encoder.encode(`$${bytes.length}\r\n`), bytes, encoder.encode("\r\n"));
  }
  return concat(parts);
}

/** Puts byte strings together, so that several commands leave in one write. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What stands before the payload length of a message on this channel; for `RespParser.message`. */
export function messageHead(channel: string): Uint8Array<ArrayBuffer> {
  const name = encoder.encode(channel);
  return concat([encoder.encode(`3\r\n$7\r\nmessage\r\n$${name.length}\r\n`), name, encoder.encode("\r\n$")]);
}

/** Replies to us are lists of lists at most; what nests deeper comes from something else. */
const MAX_DEPTH = 32;

/** Most idle subscriptions never need more than this; there may be ten thousand of them. */
const SMALLEST_BUFFER = 512;

export class RespParser {
  #buffer = new Uint8Array(SMALLEST_BUFFER);
  #start = 0;
  #end = 0;
  #at = 0;

  /** Free room to read into; never empty. Ends the life of views given out before. */
  space(): Uint8Array<ArrayBuffer> {
    if (this.#start === this.#end) {
      this.#start = this.#end = 0;
      // After a burst or a big payload, an idle subscription goes back to the small buffer.
      if (this.#buffer.length > SMALLEST_BUFFER * 8) this.#buffer = new Uint8Array(SMALLEST_BUFFER);
      return this.#buffer;
    }
    if (this.#end === this.#buffer.length) {
      const pending = this.#end - this.#start;
      if (pending > this.#buffer.length / 2) {
        const bigger = new Uint8Array(this.#buffer.length * 2);
        bigger.set(this.#buffer.subarray(this.#start, this.#end));
        this.#buffer = bigger;
      } else {
        this.#buffer.copyWithin(0, this.#start, this.#end);
      }
      this.#start = 0;
      this.#end = pending;
    }
    return this.#buffer.subarray(this.#end);
  }

  /** Says that `count` bytes were read into the last `space()`. */
  filled(count: number): void {
    this.#end += count;
    // A full buffer means that Redis has more to say: next time there is room to read more of it at once.
    if (this.#end === this.#buffer.length && this.#start === 0 && this.#buffer.length < 65_536) {
      const bigger = new Uint8Array(this.#buffer.length * 4);
      bigger.set(this.#buffer);
      this.#buffer = bigger;
    }
  }

  /**
   * Takes the next reply if it is a pub/sub message with this head and has arrived whole; returns its payload.
   * It is `next()` for the one reply that matters, without building the lists around it.
   */
  message(head: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
    const buffer = this.#buffer;
    const lengthAt = this.#start + 1 + head.length;
    if (lengthAt + 3 > this.#end) return undefined;
    const type = buffer[this.#start];
    if (type !== 0x2a && type !== 0x3e) return undefined; // * or >
    for (let i = 0, at = this.#start + 1; i < head.length; i++, at++) {
      if (buffer[at] !== head[i]) return undefined;
    }
    let length = 0;
    let at = lengthAt;
    for (; at < this.#end; at++) {
      const byte = buffer[at]!;
      if (byte < ZERO || byte > NINE) break;
      length = length * 10 + (byte - ZERO);
    }
    const payloadAt = at + 2;
    const end = payloadAt + length + 2;
    // What is not as it should be is left to `next()`, which says what is wrong.
    if (end > this.#end || at === lengthAt || buffer[at] !== CR || buffer[end - 2] !== CR) return undefined;
    this.#start = end;
    return buffer.subarray(payloadAt, payloadAt + length);
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
    return reply;
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
      case "=": { // three letters say what kind of text it is
        const bulk = this.#bulk();
        if (!(bulk instanceof Uint8Array)) return bulk;
        if (bulk.length < 4) throw new RespError("Redis sent a text that does not say its kind");
        return bulk.subarray(4);
      }
      case "!": {
        const bulk = this.#bulk();
        return bulk instanceof Uint8Array ? new ReplyError(decoder.decode(bulk)) : bulk;
      }
      case "*":
      case "~":
      case ">":
        return this.#list(1, depth);
      case "%":
        return this.#list(2, depth);
      case "|": { // attributes about the reply that follows: read past them
        const attributes = this.#list(2, depth);
        return attributes === INCOMPLETE ? attributes : this.#read(depth + 1);
      }
      case "_":
      case "#":
      case ",":
      case "(": {
        const line = this.#line();
        return line === INCOMPLETE ? line : scalarOf(type, line);
      }
      default:
        throw new RespError(
          `Redis sent ${JSON.stringify(type)} where a reply should begin: is this a Redis port?`,
        );
    }
  }

  #line(): string | Incomplete {
    for (let at = this.#at; at + 1 < this.#end; at++) {
      if (this.#buffer[at] === CR && this.#buffer[at + 1] === LF) {
        const line = decoder.decode(this.#buffer.subarray(this.#at, at));
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
    if (this.#at + length + 2 > this.#end) return INCOMPLETE;
    const end = this.#at + length;
    if (this.#buffer[end] !== CR || this.#buffer[end + 1] !== LF) {
      throw new RespError("Redis sent a text that is longer than it says");
    }
    const bytes = this.#buffer.subarray(this.#at, end);
    this.#at = end + 2;
    return bytes;
  }

  #list(perEntry: 1 | 2, depth: number): Reply[] | null | Incomplete {
    const length = this.#integer();
    if (length === INCOMPLETE) return length;
    if (length < 0) return null;
    const list: Reply[] = [];
    for (let i = 0; i < length * perEntry; i++) {
      const item = this.#read(depth + 1);
      if (item === INCOMPLETE) return INCOMPLETE;
      list.push(item);
    }
    return list;
  }
}

/** The types of RESP3 that are one short line. */
function scalarOf(type: "_" | "#" | "," | "(", line: string): Reply {
  switch (type) {
    case "_":
      if (line === "") return null;
      break;
    case "#":
      if (line === "t" || line === "f") return line === "t";
      break;
    case ",": {
      const value = line === "inf" ? Infinity : line === "-inf" ? -Infinity : Number(line);
      if (line !== "" && (!Number.isNaN(value) || line === "nan")) return value;
      break;
    }
    case "(":
      if (/^[+-]?\d+$/.test(line)) return BigInt(line.replace("+", ""));
  }
  throw new RespError(
    `Redis sent ${JSON.stringify((type + line).slice(0, 40))}, which is no value: is this a Redis port?`,
  );
}
