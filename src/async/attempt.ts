/**
 * A cancellable operation with a deadline: given up when its time is over, or nobody wants it any more.
 *
 * The room `async/` owns what is about time and order alone: deadlines, pauses, back-off, semaphores, turns, slices. It
 * knows no word of the product.
 */
import type { Deadline, Deadlines } from "./deadlines.ts";

export class Attempt {
  readonly #deadlines: Deadlines | undefined;
  readonly #deadline: Deadline | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #abort: () => void;
  #givenUp: { reason: unknown } | undefined;
  #reject: ((reason: unknown) => void) | undefined;

  /**
   * Begins it; call `end` when it is over.
   * @param deadlines Without them it has all the time there is.
   * @param options.late With deadlines: makes the error that says that its time is over.
   * @param options.signal Gives it up, for the signal's reason.
   * @throws the signal's reason.
   */
  constructor(
    deadlines: Deadlines | undefined,
    { late, signal }: { late?(): Error; signal: AbortSignal | undefined },
  ) {
    signal?.throwIfAborted();
    this.#deadlines = deadlines;
    this.#deadline = deadlines?.set(() => this.#giveUp(late!()));
    this.#signal = signal;
    this.#abort = () => this.#giveUp(signal!.reason);
    signal?.addEventListener("abort", this.#abort);
  }

  /**
   * One step of it: the promise, or the reason why it is given up if that comes first. The promise itself goes on.
   * @param tooLate Gets what the promise brings after that.
   * @throws the reason.
   */
  step<T>(promise: Promise<T>, tooLate?: (value: T) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then((value) => {
        if (!this.#givenUp) return resolve(value);
        tooLate?.(value);
        reject(this.#givenUp.reason);
      }, reject);
      if (this.#givenUp) reject(this.#givenUp.reason);
    });
  }

  /** @throws the reason why it was given up, if it was. */
  throwIfGivenUp(): void {
    if (this.#givenUp) throw this.#givenUp.reason;
  }

  /** It is over: nothing gives it up any more. */
  end(): void {
    if (this.#deadline) this.#deadlines!.clear(this.#deadline);
    this.#signal?.removeEventListener("abort", this.#abort);
  }

  #giveUp(reason: unknown): void {
    this.#givenUp ??= { reason };
    this.#reject?.(reason);
  }
}
