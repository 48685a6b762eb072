/**
 * Much work of a few callers, done a little at a time: each has a line, whose work is begun in order, and the lines
 * take turns. So little is under way at one time that whatever is not in a line hardly has to wait.
 */

/** The work of one caller. */
export interface Line {
  /**
   * Does it when it is its turn.
   * @param bytes How large it is.
   * @param sends How many sends it is. @default 1
   */
  run<T>(work: () => Promise<T>, bytes: number, sends?: number): Promise<T>;
}

interface Piece {
  readonly bytes: number;
  readonly sends: number;
  begin(): void;
}

/** So much is under way at one time, over all lines: enough to keep Redis at work while the next is prepared. */
const MAX_BYTES = 256 * 1024;
const MAX_SENDS = 200;

export class Turns {
  /** Lines that have work waiting; the first is the next to have a turn. */
  readonly #waiting = new Set<Piece[]>();
  #bytes = 0;
  #sends = 0;

  line(): Line {
    const pieces: Piece[] = [];
    const run = <T>(work: () => Promise<T>, bytes: number, sends = 1): Promise<T> => {
      const { promise, resolve, reject } = Promise.withResolvers<T>();
      const ended = <R>(tell: (result: R) => void) => (result: R) => {
        tell(result);
        this.#bytes -= bytes;
        this.#sends -= sends;
        this.#next();
      };
      pieces.push({ bytes, sends, begin: () => void work().then(ended(resolve), ended(reject)) });
      this.#waiting.add(pieces);
      this.#next();
      return promise;
    };
    return { run };
  }

  #next(): void {
    for (const pieces of this.#waiting) {
      const { bytes, sends, begin } = pieces[0]!;
      const isFull = this.#bytes + bytes > MAX_BYTES || this.#sends + sends > MAX_SENDS;
      if (isFull && this.#sends > 0) return;
      pieces.shift();
      // To the end of the round, which this loop then comes to once more.
      this.#waiting.delete(pieces);
      if (pieces.length > 0) this.#waiting.add(pieces);
      this.#bytes += bytes;
      this.#sends += sends;
      begin();
    }
  }
}
