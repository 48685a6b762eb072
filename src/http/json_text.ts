/**
 * JSON that may be large and comes from strangers. `JSON.parse` reads a text in one go, and of four megabytes it can make
 * seconds of work in which nobody else is served: millions of empty lists, hundreds of thousands of names. Here a text is
 * checked in short slices with the others; `protocol/json_parts.ts` takes it apart.
 */
import { isJson } from "../protocol/json.ts";

/** Up to so many characters `JSON.parse` takes no longer than a few milliseconds, whatever they are. */
export const SMALL_JSON = 65_536;
/** Characters between two looks at the clock. */
const STRIDE = 16_384;
/** How long a slice is, in milliseconds. */
const SLICE_MS = 8;

/** Of many small pieces the clock is looked at once for so many characters: as long as these take no longer than a slice. */
const SMALL_PIECES = 4_096;

/** Lets others be served between pieces of a long piece of work. */
export class Slices {
  #startMs = performance.now();
  #characters = 0;

  /** To be awaited between two pieces; resolves at once while the slice lasts. */
  async next(): Promise<void> {
    if (performance.now() - this.#startMs < SLICE_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#startMs = performance.now();
  }

  /** The same after a piece of so many characters; undefined, which needs no turn, where it is too small to matter. */
  after(characters: number): Promise<void> | undefined {
    this.#characters += characters;
    if (this.#characters < SMALL_PIECES) return undefined;
    this.#characters = 0;
    return this.next();
  }
}

/** What a text may hold that is then read with `JSON.parse`. */
export interface JsonBounds {
  readonly maxDepth: number;
  readonly maxValues: number;
}

/** The text is JSON of more levels or values than anybody needs there. */
export class JsonBoundsError extends Error {
  override readonly name = "JsonBoundsError";
}

/**
 * Whether the text is one JSON value.
 * @throws {JsonBoundsError} when it goes beyond the bounds, if there are any.
 */
export async function isJsonInSlices(text: string, bounds?: JsonBounds): Promise<boolean> {
  if (!bounds && text.length <= SMALL_JSON) return isJson(text);
  const check = new JsonCheck(text, bounds);
  const slices = new Slices();
  while (!check.isOver) {
    if (!check.advance(STRIDE)) return false;
    await slices.next();
  }
  return check.isComplete;
}

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c, COLON = 0x3a, MINUS = 0x2d, PLUS = 0x2b, DOT = 0x2e;
const OPEN_LIST = 0x5b, CLOSE_LIST = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;
const ZERO = 0x30, NINE = 0x39, SPACE = 0x20;

/** What may come next. */
const enum Next {
  value,
  valueOrEnd,
  key,
  keyOrEnd,
  colon,
  commaOrEnd,
  inString,
  inKey,
}

/** The grammar of RFC 8259, read from left to right in as many steps as one likes. */
class JsonCheck {
  readonly #text: string;
  readonly #bounds: JsonBounds | undefined;
  #at = 0;
  #next = Next.value;
  #values = 0;
  #depth = 0;
  /** For each level whether it is an object. */
  #levels = new Uint8Array(64);

  constructor(text: string, bounds?: JsonBounds) {
    this.#text = text;
    this.#bounds = bounds;
  }

  get isOver(): boolean {
    return this.#at >= this.#text.length;
  }

  /** Whether what was read is a value, to its end. */
  get isComplete(): boolean {
    return this.#depth === 0 && this.#next === Next.commaOrEnd;
  }

  /** Reads on, some characters more or less. False when it is no JSON. */
  advance(chars: number): boolean {
    const end = Math.min(this.#at + chars, this.#text.length);
    while (this.#at < end) {
      if (!this.#step(end)) return false;
    }
    return true;
  }

  #step(end: number): boolean {
    if (this.#next === Next.inString || this.#next === Next.inKey) return this.#string(end);
    const code = this.#text.charCodeAt(this.#at);
    if (code === SPACE || code === 0x0a || code === 0x0d || code === 0x09) {
      this.#at++;
      return true;
    }
    switch (this.#next) {
      case Next.valueOrEnd:
        return code === CLOSE_LIST ? this.#close(false) : this.#value(code);
      case Next.value:
        return this.#value(code);
      case Next.keyOrEnd:
        return code === CLOSE_OBJECT ? this.#close(true) : this.#key(code);
      case Next.key:
        return this.#key(code);
      case Next.colon:
        this.#at++;
        this.#next = Next.value;
        return code === COLON;
      default:
        if (this.#depth === 0) return false;
        if (code === COMMA) {
          this.#at++;
          this.#next = this.#levels[this.#depth] ? Next.key : Next.value;
          return true;
        }
        return (code === CLOSE_LIST || code === CLOSE_OBJECT) && this.#close(code === CLOSE_OBJECT);
    }
  }

  #key(code: number): boolean {
    this.#at++;
    this.#next = Next.inKey;
    return code === QUOTE;
  }

  #value(code: number): boolean {
    if (++this.#values > (this.#bounds?.maxValues ?? Infinity)) {
      throw new JsonBoundsError(`The body holds more values than the ${this.#bounds!.maxValues} it may`);
    }
    if (code === OPEN_LIST || code === OPEN_OBJECT) return this.#open(code === OPEN_OBJECT);
    if (code === QUOTE) {
      this.#at++;
      this.#next = Next.inString;
      return true;
    }
    this.#next = Next.commaOrEnd;
    if (code === MINUS || isDigit(code)) return this.#number();
    for (const literal of ["true", "false", "null"]) {
      if (!this.#text.startsWith(literal, this.#at)) continue;
      this.#at += literal.length;
      return true;
    }
    return false;
  }

  #open(isObject: boolean): boolean {
    if (++this.#depth > (this.#bounds?.maxDepth ?? Infinity)) {
      throw new JsonBoundsError(`The body nests too deeply: at most ${this.#bounds!.maxDepth} levels`);
    }
    if (this.#depth >= this.#levels.length) {
      const levels = new Uint8Array(this.#levels.length * 2);
      levels.set(this.#levels);
      this.#levels = levels;
    }
    this.#levels[this.#depth] = Number(isObject);
    this.#at++;
    this.#next = isObject ? Next.keyOrEnd : Next.valueOrEnd;
    return true;
  }

  #close(isObject: boolean): boolean {
    if (this.#levels[this.#depth] !== Number(isObject)) return false;
    this.#depth--;
    this.#at++;
    this.#next = Next.commaOrEnd;
    return true;
  }

  #string(end: number): boolean {
    const text = this.#text;
    let at = this.#at;
    while (at < end) {
      const code = text.charCodeAt(at++);
      if (code === QUOTE) {
        this.#next = this.#next === Next.inKey ? Next.colon : Next.commaOrEnd;
        break;
      }
      if (code < SPACE) return false;
      if (code !== BACKSLASH) continue;
      const escape = text[at++] ?? "";
      if (escape === "u") {
        if (!/^[\da-fA-F]{4}$/.test(text.slice(at, at + 4))) return false;
        at += 4;
      } else if (escape === "" || !'"\\/bfnrt'.includes(escape)) return false;
    }
    this.#at = at;
    return true;
  }

  #number(): boolean {
    const text = this.#text;
    let at = this.#at;
    if (text.charCodeAt(at) === MINUS) at++;
    if (text.charCodeAt(at) === ZERO) at++;
    else if ((at = afterDigits(text, at)) < 0) return false;
    if (text.charCodeAt(at) === DOT && (at = afterDigits(text, at + 1)) < 0) return false;
    const exponent = text[at];
    if (exponent === "e" || exponent === "E") {
      const sign = text.charCodeAt(at + 1);
      at = afterDigits(text, at + (sign === PLUS || sign === MINUS ? 2 : 1));
      if (at < 0) return false;
    }
    this.#at = at;
    return true;
  }
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}

/** Where the digits end that begin there; negative when there are none. */
function afterDigits(text: string, start: number): number {
  let at = start;
  while (isDigit(text.charCodeAt(at))) at++;
  return at > start ? at : -1;
}
