/** Reads a body line by line as it comes, and never holds more of it than one line. */
import type { Deadlines } from "../async/deadlines.ts";
import { bodyBroken, textOf, tooSlow } from "./body.ts";
import { RequestFault } from "./problem.ts";

const LF = 0x0a;

/** What a line is: its text, or why it can't be read. */
export type Line = string | Error;

/**
 * The lines of a body, some at a time. Nothing more is read from the network before the next ones are asked for.
 * @param options.maxBytes Of a line; a longer one is passed over, and is a fault.
 * @param options.deadlines From one piece of the body to the next.
 * @param options.signal Ends the body.
 * @throws {RequestFault} when the body breaks off or stands still.
 */
export async function* linesOf(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  { maxBytes, deadlines, signal }: { maxBytes: number; deadlines: Deadlines; signal: AbortSignal },
): AsyncGenerator<Line[]> {
  const reader = body.getReader();
  signal.addEventListener("abort", () => void reader.cancel().catch(() => {}));
  const open = new OpenLine(maxBytes);
  try {
    while (true) {
      const { value: chunk, done } = await deadlines.within(reader.read(), {
        late: () => tooSlow(deadlines),
        failed: bodyBroken,
      });
      if (done) break;
      const lines: Line[] = [];
      let start = 0;
      for (let end; (end = chunk.indexOf(LF, start)) >= 0; start = end + 1) {
        open.add(chunk.subarray(start, end));
        lines.push(open.end());
      }
      open.add(chunk.subarray(start));
      if (lines.length > 0) yield lines;
    }
    if (!open.isEmpty) yield [open.end()];
  } finally {
    // What is still to come is not waited for.
    reader.cancel().catch(() => {});
  }
}

/** A line whose end has not come yet. */
class OpenLine {
  readonly #maxBytes: number;
  #pieces: Uint8Array[] = [];
  #size = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  add(piece: Uint8Array): void {
    this.#size += piece.length;
    if (this.#size > this.#maxBytes) this.#pieces = [];
    else if (piece.length > 0) this.#pieces.push(piece);
  }

  end(): Line {
    const [first = new Uint8Array(), ...others] = this.#pieces;
    const size = this.#size;
    const bytes = others.length === 0 ? first : joined(this.#pieces, size);
    this.#pieces = [];
    this.#size = 0;
    if (size > this.#maxBytes) {
      return new RequestFault(
        "too_large",
        `The line must have at most ${this.#maxBytes} bytes: it has ${size}; send less in one`,
      );
    }
    try {
      return textOf(bytes);
    } catch (error) {
      return error as Error;
    }
  }
}

function joined(pieces: readonly Uint8Array[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
