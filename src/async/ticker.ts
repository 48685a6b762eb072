/**
 * The one timer for what this process does every so often: it wakes for all of it together, and what is sent to Redis
 * then goes in one packet. Each timer of its own would wake the process at a moment of its own, and to wake takes more
 * time than most of what is done then: a quarter of a millisecond in Deno 2.9, measured with timers that do nothing.
 */
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import { sleep } from "./sleep.ts";

/** What is due is put off to another turn of the event loop when this one has taken so long. */
const MAX_MS = 1;

/** How far one tick is from the next, in milliseconds; it wakes at those only at which something is due. */
export const TICK_MS = 250;

interface Task {
  /** From one turn of it to the next; it has one at each tick whose number is a multiple of that. Infinity for one alone. */
  readonly ticks: number;
  /** When it is due. */
  next: number;
  readonly holds: boolean;
  readonly work: () => void;
}

interface Timer {
  /** Whether it keeps the process alive from now on. */
  hold(holds: boolean): void;
  clear(): void;
}

type SetTimer = (run: () => void, ms: number) => Timer;

export class Ticker {
  readonly #setTimer: SetTimer;
  readonly #tasks = new Set<Task>();
  readonly #originMs = performance.now();
  #timer: Timer | undefined;
  /** At which tick that runs, and at which one it ran last. */
  #wake = Infinity;
  #ran = 0;
  /** How many tasks keep the process alive. */
  #holders = 0;

  /** @param setTimer Runs something after a time. @default the timers of the runtime */
  constructor(setTimer: SetTimer = setRealTimer) {
    this.#setTimer = setTimer;
  }

  /**
   * Does the work once in a period from now on, together with all that have the same: for the first time within a period.
   * @param periodMs Rounded to whole ticks.
   * @param work Must not throw.
   * @param options.holds Whether it keeps a process alive that has nothing else to do. @default true
   * @returns Ends that.
   */
  every(periodMs: number, work: () => void, options: { holds?: boolean } = {}): () => void {
    const ticks = Math.max(1, Math.round(periodMs / TICK_MS));
    return this.#add({ ticks, next: nextOf(ticks, this.#now()), holds: options.holds ?? true, work });
  }

  /** Resolves at the first tick that is at least so many milliseconds from now, or as soon as the signal is aborted. */
  async pause(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const next = Math.ceil((performance.now() + ms - this.#originMs) / TICK_MS);
    const stop = this.#add({ ticks: Infinity, next, holds: true, work: resolve });
    await sleep(Infinity, promise, signal);
    stop();
  }

  #add(task: Task): () => void {
    this.#tasks.add(task);
    if (task.holds) this.#holders++;
    this.#schedule();
    return () => {
      if (!this.#tasks.delete(task)) return;
      if (task.holds) this.#holders--;
      this.#schedule();
    };
  }

  #now(): number {
    return Math.floor((performance.now() - this.#originMs) / TICK_MS);
  }

  #schedule(): void {
    let wake = Infinity;
    for (const { next } of this.#tasks) wake = Math.min(wake, next);
    if (wake !== this.#wake) {
      this.#timer?.clear();
      this.#wake = wake;
      // A test may turn the clock, or hold it: time passes all the same.
      const inMs = Math.min(
        this.#originMs + wake * TICK_MS - performance.now(),
        (wake - this.#ran) * TICK_MS,
      );
      this.#timer = wake === Infinity
        ? undefined
        : this.#setTimer(() => this.#run(), Math.max(0, Math.ceil(inMs)));
    }
    this.#timer?.hold(this.#holders > 0);
  }

  #run(): void {
    // A timer may run a little too early.
    const now = this.#ran = Math.max(this.#wake, this.#now());
    const due = [...this.#tasks].filter(({ next }) => next <= now);
    // A process that did not run reads for a whole tick before anything is looked at again.
    const from = now > this.#wake ? now + 1 : now;
    for (const task of due) task.next = nextOf(task.ticks, from);
    this.#wake = Infinity;
    this.#timer = undefined;
    this.#schedule();
    this.#work(due);
  }

  #work(due: readonly Task[]): void {
    const startMs = performance.now();
    for (const [i, task] of due.entries()) {
      if (performance.now() - startMs > MAX_MS) return void setImmediate(() => this.#work(due.slice(i)));
      // One that was due before it may have ended it.
      if (this.#tasks.has(task)) task.work();
    }
  }
}

// Of node: those of Deno can be let go of by Deno alone, and the publisher runs in Node as well.
function setRealTimer(run: () => void, ms: number): Timer {
  const timer = setTimeout(run, ms);
  return {
    hold: (holds) => void (holds ? timer.ref() : timer.unref()),
    clear: () => clearTimeout(timer),
  };
}

function nextOf(ticks: number, now: number): number {
  return ticks === Infinity ? Infinity : (Math.floor(now / ticks) + 1) * ticks;
}

export const ticker = new Ticker();
