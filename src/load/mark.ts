/**
 * The payloads of the load generator: JSON text of a given size with a mark in it that says whose message it is,
 * which one, and when it was due. Read back out of the raw bytes of whatever frame carries it, without parsing.
 */

const PAD = ".".repeat(64 * 1024);
const TILDE = 0x7e, QUOTE = 0x22, COLON = 0x3a, LETTER_B = 0x62, ZERO = 0x30, NINE = 0x39;
/** A mark with its JSON around it takes at most so many bytes. */
export const MIN_PAYLOAD_BYTES = 64;
export const MAX_PAYLOAD_BYTES = PAD.length;

/**
 * Writes a payload.
 * @param sequence Whole number from 1 on, per user.
 * @param options.dueUs When it was to be sent, in microseconds of the generator's own clock.
 * @param options.bytes Size of the payload.
 */
export function formatMarked(
  user: number,
  sequence: number,
  options: { dueUs: number; bytes: number },
): string {
  const head = `{"b":"~${user}~${sequence}~${options.dueUs}~","pad":"`;
  return `${head}${PAD.slice(0, Math.max(0, options.bytes - head.length - 2))}"}`;
}

/** The mark that was read last. One for many reads: nothing is allocated per message. */
export class Mark {
  user = 0;
  sequence = 0;
  dueUs = 0;
  #at = 0;
  #isWhole = true;

  /** Reads the mark in this stretch of bytes; false when there is none, as in what others send. */
  read(bytes: Uint8Array, from: number, to: number): boolean {
    for (let at = from + 4; at < to; at++) {
      // As `formatMarked` writes it: after `b":"`, with a tilde behind each number.
      if (bytes[at] !== TILDE || bytes[at - 1] !== QUOTE || bytes[at - 2] !== COLON) continue;
      if (bytes[at - 3] !== QUOTE || bytes[at - 4] !== LETTER_B) continue;
      this.#at = at + 1;
      this.user = this.#number(bytes);
      this.sequence = this.#number(bytes);
      this.dueUs = this.#number(bytes);
      if (this.#isWhole) return true;
      this.#isWhole = true;
    }
    return false;
  }

  #number(bytes: Uint8Array): number {
    let value = 0;
    for (let byte = bytes[this.#at++]!; byte >= ZERO && byte <= NINE; byte = bytes[this.#at++]!) {
      value = value * 10 + byte - ZERO;
    }
    if (bytes[this.#at - 1] !== TILDE) this.#isWhole = false;
    return value;
  }
}
