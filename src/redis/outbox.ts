/**
 * What is on its way to Redis, and what waits for its turn. Only so many bytes are on their way at one time: what
 * somebody gives out by the megabyte is taken in portions, and the time that Redis has for a command begins when the
 * command is written, not when it came.
 */
import { Chain, type Linked, UNLINKED } from "../async/chain.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";

export interface OutboxOptions {
  /** How long an answer may take, and how long a command may wait for its turn, in milliseconds. */
  readonly timeoutMs: number;
  /** A command comes: `check` has to be called from now on until it is empty. */
  onPosted(): void;
  /** An answer came that is no error. */
  onAnswer(): void;
  /** The error to reject with, for one that the library gave. */
  failure(error: unknown): { error: Error; isAnswer: boolean };
}

interface Letter extends Linked<Letter> {
  dueMs: number;
  readonly bytes: number;
  readonly issue: () => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Bytes on their way at one time; a command that has more goes alone. */
const WINDOW_BYTES = 1024 * 1024;
/** While others are answered, one that is late says nothing of Redis. */
const SILENCE_MS = 1_000;

export class Outbox {
  readonly #options: OutboxOptions;
  /** In the order of their deadlines. */
  readonly #written = new Chain<Letter>();
  readonly #waiting = new Chain<Letter>();
  #bytes = 0;
  #answeredAtMs = -Infinity;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /**
   * @param bytes Roughly the size of the command.
   * @throws {BrokerUnavailableError}
   */
  send<T>(issue: () => Promise<T>, bytes: number): Promise<T> {
    return this.#post(issue, bytes, this.#waiting.size === 0 && this.#hasRoom(bytes));
  }

  /** The same, past all that wait. */
  sendNow<T>(issue: () => Promise<T>): Promise<T> {
    return this.#post(issue, 0, true);
  }

  /** Nothing is on its way, nor waits. */
  get isEmpty(): boolean {
    return this.#written.size === 0 && this.#waiting.size === 0;
  }

  /** When the last answer came, on the clock of `performance.now()`. */
  get answeredAtMs(): number {
    return this.#answeredAtMs;
  }

  /**
   * Rejects what is late.
   * @returns Whether that says that Redis does not answer any more.
   */
  check(nowMs: number): boolean {
    const { timeoutMs } = this.#options;
    const isLate = rejectLate(
      this.#written,
      nowMs,
      () => new BrokerUnavailableError(`Redis did not answer within ${timeoutMs} ms`, { outcome: "unknown" }),
    );
    rejectLate(
      this.#waiting,
      nowMs,
      () => new BrokerUnavailableError("Redis is busy with what was sent before"),
    );
    return isLate && nowMs - this.#answeredAtMs > Math.min(SILENCE_MS, timeoutMs);
  }

  /** Rejects what was not written yet. */
  refuse(reason: string): void {
    for (let letter; (letter = this.#waiting.shift());) letter.reject(new BrokerUnavailableError(reason));
  }

  /** Rejects everything. */
  fail(reason: string): void {
    this.refuse(reason);
    for (let letter; (letter = this.#written.shift());) {
      letter.reject(new BrokerUnavailableError(reason, { outcome: "unknown" }));
    }
  }

  #post<T>(issue: () => Promise<T>, bytes: number, isNext: boolean): Promise<T> {
    this.#options.onPosted();
    return new Promise((resolve, reject) => {
      const dueMs = performance.now() + this.#options.timeoutMs;
      const letter: Letter = {
        ...UNLINKED,
        ...{ dueMs, bytes, issue, resolve: resolve as Letter["resolve"], reject },
      };
      if (isNext) this.#write(letter);
      else this.#waiting.add(letter);
    });
  }

  #hasRoom(bytes: number): boolean {
    return this.#bytes === 0 || this.#bytes + bytes <= WINDOW_BYTES;
  }

  #write(letter: Letter): void {
    this.#written.add(letter);
    this.#bytes += letter.bytes;
    letter.issue().then((value) => {
      this.#settle(letter, true);
      this.#options.onAnswer();
      letter.resolve(value);
    }, (cause: unknown) => {
      const { error, isAnswer } = this.#options.failure(cause);
      this.#settle(letter, isAnswer);
      letter.reject(error);
    });
  }

  #settle(letter: Letter, isAnswer: boolean): void {
    this.#written.delete(letter);
    // Also of one that was late: until then it was on its way.
    this.#bytes -= letter.bytes;
    if (isAnswer) this.#answeredAtMs = performance.now();
    for (let next; (next = this.#waiting.first) && this.#hasRoom(next.bytes);) {
      this.#waiting.delete(next);
      next.dueMs = performance.now() + this.#options.timeoutMs;
      this.#write(next);
    }
  }
}

/** Takes away those whose time is up, from the front of the line; returns whether there were any. */
function rejectLate(letters: Chain<Letter>, nowMs: number, late: () => Error): boolean {
  let error: Error | undefined;
  for (let letter; (letter = letters.first) && letter.dueMs <= nowMs;) {
    letters.delete(letter);
    letter.reject(error ??= late());
  }
  return error !== undefined;
}
