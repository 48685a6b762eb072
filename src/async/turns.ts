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
  readonly #waiting: Piece[][] = [];
  #bytes = 0;
  #sends = 0;

  line(): Line {
    const pieces: Piece[] = [];
    const run = <T>(work: () => Promise<T>, bytes: number, sends = 1): Promise<T> => {
      if (this.#waiting.length === 0 && this.#hasRoom(bytes, sends)) return this.#begin(work, bytes, sends);
      const { promise, resolve } = Promise.withResolvers<T>();
      if (pieces.length === 0) this.#waiting.push(pieces);
      pieces.push({ bytes, sends, begin: () => resolve(this.#begin(work, bytes, sends)) });
      this.#next();
      return promise;
    };
    return { run };
  }

  #hasRoom(bytes: number, sends: number): boolean {
    return this.#sends === 0 || this.#bytes + bytes <= MAX_BYTES && this.#sends + sends <= MAX_SENDS;
  }

  #begin<T>(work: () => Promise<T>, bytes: number, sends: number): Promise<T> {
    this.#bytes += bytes;
    this.#sends += sends;
    const result = work();
    const ended = () => {
      this.#bytes -= bytes;
      this.#sends -= sends;
      this.#next();
    };
    result.then(ended, ended);
    return result;
  }

  #next(): void {
    for (let pieces; (pieces = this.#waiting[0]);) {
      const { bytes, sends, begin } = pieces[0]!;
      if (!this.#hasRoom(bytes, sends)) return;
      pieces.shift();
      // To the end of the round, which this loop then comes to once more.
      if (pieces.length === 0) this.#waiting.shift();
      else if (this.#waiting.length > 1) this.#waiting.push(this.#waiting.shift()!);
      begin();
    }
  }
}
