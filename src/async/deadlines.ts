/** One time limit for many short waits, at the price of one timer for all of them. */

import { Chain, type Linked, UNLINKED } from "./chain.ts";
import { inSlices } from "./slices.ts";
import { TickTime } from "./tick_time.ts";
import { ticker } from "./ticker.ts";

/** A wait that has begun. */
export interface Deadline extends Linked<Deadline> {
  readonly dueMs: number;
  late(): void;
}

/** How late a limit may act. */
const TICK_MS = 500;

export class Deadlines {
  /** In the order of their ends, since all have the same limit. */
  readonly #waits = new Chain<Deadline>();
  #stopTicking: (() => void) | undefined;
  #time = new TickTime(TICK_MS);
  #isClosed = false;

  constructor(readonly limitMs: number) {}

  /**
   * Calls back when the limit has passed, or half a second later, unless it is cleared before: also by what came while this
   * process did not run.
   */
  set(late: () => void): Deadline {
    const deadline: Deadline = { ...UNLINKED, dueMs: performance.now() + this.limitMs, late };
    this.#waits.add(deadline);
    if (!this.#stopTicking) {
      this.#time = new TickTime(TICK_MS);
      this.#stopTicking = ticker.every(TICK_MS, () => this.#tick());
    }
    return deadline;
  }

  clear(deadline: Deadline): void {
    // The timer is kept otherwise: the next wait is rarely far.
    if (this.#waits.delete(deadline) && this.#isClosed) this.#rest();
  }

  /**
   * Passes the promise on, or rejects when the limit has passed. The promise itself goes on.
   * @param errors.late Makes the error to reject with when the limit has passed.
   * @param errors.failed Makes the one to reject with of that of the promise. @default that itself
   */
  within<T>(
    promise: Promise<T>,
    { late, failed }: { late: () => Error; failed?: (error: unknown) => Error },
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const deadline = this.set(() => reject(late()));
      promise.then((value) => {
        this.clear(deadline);
        resolve(value);
      }, (error: unknown) => {
        this.clear(deadline);
        reject(failed ? failed(error) : error);
      });
    });
  }

  /** Keeps no timer from the end of the last wait on. */
  close(): void {
    this.#isClosed = true;
    this.#rest();
  }

  #rest(): void {
    if (this.#waits.size > 0) return;
    this.#stopTicking?.();
    this.#stopTicking = undefined;
  }

  #tick(): void {
    void inSlices(this.#over(this.#time.at(performance.now())), (deadline) => {
      this.#waits.delete(deadline);
      deadline.late();
    });
  }

  *#over(nowMs: number): Generator<Deadline> {
    for (let deadline; (deadline = this.#waits.first) && deadline.dueMs <= nowMs;) yield deadline;
    this.#rest();
  }
}
