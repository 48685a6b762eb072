/**
 * Waiting in tests: for a promise, for a state that raises no event, or for one that rings a bell when it
 * changes. All end with a clear error when the time is up, and none leaves a timer behind.
 *
 * The environment variable TEST_TIME_FACTOR (default 1) stretches every deadline, for slow machines.
 */

/** Pauses between two looks: short at first, then a part of the time that was waited, so that long waits cost little. */
const POLL_MS = { min: 5, max: 100 };
const POLL_PART = 0.05;

/** For what must happen: it costs time only when it does not, and no busy machine is to be taken for a fault. */
const MUST_MS = 20_000;

/** Says what there is to see: any value, which the error shows in short. */
export type Seen = () => unknown;

/** The time was up. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";

  readonly #waited: string;

  constructor(what: string, ms: number) {
    const waited = `Waited ${Math.round(ms)} ms for ${what}, in vain`;
    super(waited);
    this.#waited = waited;
  }

  /** Adds what was the case instead, as soon as that is known. */
  instead(what: string): this {
    this.message = `${this.#waited}: ${what}`;
    return this;
  }
}

/** A time span stretched for this machine, in milliseconds. */
export function stretched(ms: number): number {
  const text = Deno.env.get("TEST_TIME_FACTOR") ?? "1";
  const factor = Number(text);
  if (!(factor > 0)) throw new RangeError(`TEST_TIME_FACTOR must be a number above 0: it is "${text}"`);
  return ms * factor;
}

/**
 * Passes the promise on, or rejects when it takes longer than `ms` milliseconds. The promise itself goes on;
 * what becomes of it after that is ignored.
 * @param what What is waited for, for the error: "the close event".
 * @param seen What is the case instead, for the error, which is asked for it when the time is up.
 * @throws {DeadlineError}
 */
export async function withDeadline<T>(
  promise: PromiseLike<T>,
  ms: number,
  what: string,
  seen?: Seen,
): Promise<T> {
  const limitMs = stretched(ms);
  // The error is made here, so that its stack shows who waited.
  const timeUp = new DeadlineError(what, limitMs);
  try {
    return await race(promise, limitMs, timeUp);
  } catch (error) {
    throw error === timeUp && seen ? withSeen(timeUp, seen) : error;
  }
}

/** For the end of something, which may have a drain before it. */
const END_MS = 60_000;

/**
 * The promise of an end, for whoever awaits it: each has a deadline of its own, from then on, since nobody may wait for
 * ever. Who does not await it sets no timer.
 * @param what The end, for the error: "the socket to be closed".
 * @param seen As in `withDeadline`.
 */
export function endOf<T>(promise: PromiseLike<T>, what: string, seen?: Seen): PromiseLike<T> {
  return {
    then: (onEnd, onError) => withDeadline(promise, END_MS, what, seen).then(onEnd, onError),
  };
}

/**
 * Asks until the condition holds: every few milliseconds, and ever more seldom. For states that raise no event, such as what Redis
 * lists as its clients; where there is an event, wait for that.
 * @param what The state waited for, for the error: "Redis to have no subscriber".
 * @param ms Deadline in milliseconds.
 * @param seen What the condition looks at, for the error, which is asked for it when the time is up.
 * @throws {DeadlineError} also when the condition itself hangs.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  ms = MUST_MS,
  seen?: Seen,
): Promise<void> {
  const limitMs = stretched(ms);
  const timeUp = new DeadlineError(what, limitMs);
  const startMs = performance.now();
  for (let answers = 0;; answers++) {
    const waitedMs = performance.now() - startMs;
    const leftMs = limitMs - waitedMs;
    if (leftMs <= 0) throw withSeen(timeUp, seen);
    try {
      if (await race(Promise.resolve(condition()), leftMs, timeUp)) return;
    } catch (error) {
      if (error !== timeUp) throw error;
      if (answers > 0) throw withSeen(timeUp, seen);
      throw timeUp.instead("the question whether it is so was not answered");
    }
    const pauseMs = Math.min(POLL_MS.max, Math.max(POLL_MS.min, waitedMs * POLL_PART));
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/**
 * For objects that others wait for: they ring at every change, and whoever waits looks again.
 */
export class Bell {
  #next = Promise.withResolvers<void>();

  ring(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers<void>();
  }

  /**
   * Resolves when the condition holds: asked now and at every ring.
   * @param seen As in `until`.
   * @throws {DeadlineError} or whatever the condition throws.
   */
  async until(condition: () => boolean, what: string, ms = MUST_MS, seen?: Seen): Promise<void> {
    let rings = 0;
    const wait = async () => {
      for (; !condition(); rings++) await this.#next.promise;
    };
    const limitMs = stretched(ms);
    const timeUp = new DeadlineError(what, limitMs);
    try {
      await race(wait(), limitMs, timeUp);
    } catch (error) {
      throw error === timeUp ? withSeen(timeUp, seen ?? (() => `something changed ${rings} times`)) : error;
    }
  }
}

function withSeen(timeUp: DeadlineError, seen: Seen | undefined): DeadlineError {
  if (seen === undefined) return timeUp.instead("it was never so, as often as it was looked at");
  const value = seen();
  const text = typeof value === "string" ? value : Deno.inspect(value, { depth: 3, strAbbreviateSize: 500 });
  return timeUp.instead(text.length > 2_000 ? `${text.slice(0, 1_000)} … ${text.slice(-1_000)}` : text);
}

async function race<T>(promise: PromiseLike<T>, limitMs: number, timeUp: Error): Promise<T> {
  const { promise: over, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(timeUp), limitMs);
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}
