import { ticker } from "../src/async/ticker.ts";
import { TICKS } from "../src/session/heartbeat.ts";

/**
 * Timers of one length that never fire by themselves, for what is to happen at once and not when its timer says so. No
 * machine is too slow for that, as it is for "within half a second".
 *
 *     using _held = new HeldTimers(1_000);
 */
export class HeldTimers implements Disposable {
  readonly #set = new Map<ReturnType<typeof setTimeout>, () => void>();
  readonly #setTimeout = globalThis.setTimeout;
  readonly #clearTimeout = globalThis.clearTimeout;

  /** @param ms Those that are set from now on for this long are held, in milliseconds and give or take one. */
  constructor(ms: number) {
    const [setTimeout, clearTimeout] = [this.#setTimeout, this.#clearTimeout];
    globalThis.setTimeout = ((callback: () => void, delayMs = 0, ...args: []) => {
      const id = setTimeout(callback, delayMs, ...args);
      if (Math.abs(delayMs - ms) > 1) return id;
      clearTimeout(id);
      this.#set.set(id, callback);
      return id;
    }) as typeof globalThis.setTimeout;
    globalThis.clearTimeout = (id) => {
      this.#set.delete(id as ReturnType<typeof setTimeout>);
      clearTimeout(id);
    };
  }

  /** How many are set, and neither cleared nor run. */
  get count(): number {
    return this.#set.size;
  }

  /** Runs each of them now, and for the last time. */
  run(): void {
    const callbacks = [...this.#set.values()];
    this.#set.clear();
    for (const callback of callbacks) callback();
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#setTimeout;
    globalThis.clearTimeout = this.#clearTimeout;
  }
}

/**
 * Signals of `AbortSignal.timeout` that abort when the test says so, and not by themselves.
 *
 *     using times = new HeldTimeouts();
 *     times.run();
 */
export class HeldTimeouts implements Disposable {
  readonly #set = new Set<AbortController>();
  readonly #timeout = AbortSignal.timeout;

  constructor() {
    AbortSignal.timeout = () => {
      const controller = new AbortController();
      this.#set.add(controller);
      return controller.signal;
    };
  }

  /** The time of all that were made is up. */
  run(): void {
    for (const controller of this.#set) controller.abort(new DOMException("The time is up", "TimeoutError"));
    this.#set.clear();
  }

  [Symbol.dispose](): void {
    AbortSignal.timeout = this.#timeout;
  }
}

/**
 * What is done every so often, at its own intervals or by the ticker: it runs when the test says so, and not by itself;
 * or is only counted.
 *
 *     using seconds = new HeldIntervals(1_000);
 *     seconds.run();
 */
export class HeldIntervals implements Disposable {
  /** How many were ever set. */
  made = 0;
  readonly #set = new Map<unknown, () => void>();
  readonly #setInterval = globalThis.setInterval;
  readonly #clearInterval = globalThis.clearInterval;
  readonly #every = ticker.every;

  /**
   * @param ms What is begun from now on with this period is held, in milliseconds; there may be several.
   * @param options.runs Whether they run by themselves all the same. @default false
   */
  constructor(ms: number | readonly number[], options: { runs?: boolean } = {}) {
    const [setInterval, clearInterval, every] = [this.#setInterval, this.#clearInterval, this.#every];
    const isHeld = (periodMs: number) => [ms].flat().includes(periodMs);
    globalThis.setInterval = ((callback: () => void, delayMs = 0, ...args: []) => {
      const id = setInterval(callback, delayMs, ...args);
      if (!isHeld(delayMs)) return id;
      this.made++;
      this.#set.set(id, callback);
      if (!options.runs) clearInterval(id);
      return id;
    }) as typeof globalThis.setInterval;
    globalThis.clearInterval = (id) => {
      this.#set.delete(id);
      clearInterval(id);
    };
    ticker.every = (periodMs, work, tickerOptions) => {
      const stop = isHeld(periodMs) && !options.runs
        ? () => {}
        : every.call(ticker, periodMs, work, tickerOptions);
      if (!isHeld(periodMs)) return stop;
      this.made++;
      const task = {};
      this.#set.set(task, work);
      return () => {
        this.#set.delete(task);
        stop();
      };
    };
  }

  /** How many are set and not cleared. */
  get count(): number {
    return this.#set.size;
  }

  /** Runs each of them once. */
  run(): void {
    for (const callback of [...this.#set.values()]) callback();
  }

  [Symbol.dispose](): void {
    globalThis.setInterval = this.#setInterval;
    globalThis.clearInterval = this.#clearInterval;
    ticker.every = this.#every;
  }
}

/**
 * The ticks of sessions: each run is a second, in which every session is ticked once. With them all that the ticker does
 * four times a second is held, as to look for commands that are late.
 */
export class HeldSeconds extends HeldIntervals {
  /** Before any tick was due. */
  readonly #beforeMs = performance.now();

  constructor() {
    super([1_000 / TICKS.parts, TICKS.calm.everyMs]);
  }

  override run(): void {
    // By the real clock they may be late, and would then catch up: with a second tick for some.
    const { now } = performance;
    performance.now = () => this.#beforeMs;
    try {
      for (let part = 0; part < TICKS.parts; part++) super.run();
    } finally {
      performance.now = now;
    }
  }
}
