/**
 * What is done for every socket, without keeping all else waiting: in slices, each in a turn of the event loop of its own.
 * `inSlices` goes through everything as soon as it can; `Pace` holds up what comes by itself, for each socket alone, when
 * much of it comes at one time; `Rounds` comes to each once in a period, spread over it, so that what comes of it is
 * spread as well.
 */
import { clearImmediate, setImmediate } from "node:timers";
import { Chain, type Linked } from "./chain.ts";
import { ticker } from "./ticker.ts";

/** So many are in the first slice; the next may have twice as many, when its turn was short, up to the most. */
const FEWEST_ITEMS = 32;
const MOST_ITEMS = 250;
/** A slice that has taken so long ends; a turn that has taken so long, with all that came of it, was no short one. */
const MAX_MS = 2;
/** The clock is looked at after so many. */
const LOOK_ITEMS = 8;

/**
 * Lets through what comes in crowds, one after the other: so many in a turn of the event loop as leave it short.
 *
 *     await pace.turn();
 */
export class Pace {
  readonly #line = new Set<() => void>();
  /** What this turn has let through, and when it began; the first to come in a turn begins it. */
  #isTurn = false;
  #count = 0;
  #startMs = 0;
  #most = FEWEST_ITEMS;
  #end: ReturnType<typeof setImmediate> | undefined;

  /** Undefined for who may go on at once; else it resolves in the turn that has room for him. */
  turn(): Promise<void> | undefined {
    if (!this.#isTurn) {
      this.#begin();
      this.#endLater();
    }
    if (this.#line.size === 0) {
      if (this.#take()) return undefined;
      // Behind what those who went on may have put off to the end of this turn.
      this.#endLater();
    }
    return new Promise((resolve) => this.#line.add(resolve));
  }

  #take(): boolean {
    const hasRoom = this.#count < this.#most &&
      (this.#count % LOOK_ITEMS > 0 || performance.now() - this.#startMs < MAX_MS);
    if (hasRoom) this.#count++;
    return hasRoom;
  }

  #begin(): void {
    this.#isTurn = true;
    this.#count = 0;
    this.#startMs = performance.now();
  }

  #endLater(): void {
    clearImmediate(this.#end);
    this.#end = setImmediate(() => {
      this.#isTurn = false;
      if (this.#line.size > 0) void this.#letThrough();
    });
  }

  async #letThrough(): Promise<void> {
    // What comes of it by promises is done after it: only the turn as a whole shows what that takes.
    const isLong = performance.now() - this.#startMs > MAX_MS;
    this.#most = isLong ? Math.max(FEWEST_ITEMS, this.#most / 2) : Math.min(MOST_ITEMS, this.#most * 2);
    this.#begin();
    for (const resolve of this.#line) {
      if (!this.#take()) break;
      this.#line.delete(resolve);
      resolve();
      // Whoever that was begins meanwhile, and the clock goes on.
      await undefined;
    }
    this.#endLater();
  }
}

/**
 * Does the work for each item. The first slice is done at once, and what fits in it leaves nothing for later.
 *
 * Items may come and go meanwhile: of a live collection, such as a `Set`, it meets those that there are when it comes to
 * them.
 * @param signal Ends it; the promise then resolves as if all was done.
 * @throws what the work throws, which ends it, too.
 */
export async function inSlices<T>(
  items: Iterable<T>,
  work: (item: T) => void,
  signal?: AbortSignal,
): Promise<void> {
  const pace = new Pace();
  void pace.turn();
  for (const item of items) {
    if (signal?.aborted) return;
    work(item);
    // Before the next item is taken: by then it may be gone.
    const turn = pace.turn();
    if (turn) await turn;
  }
}

export interface RoundsOptions {
  /** From one visit of an item to the next, in milliseconds. */
  readonly periodMs: number;
  /** In how many parts a round is done: one part each `periodMs / parts`. */
  readonly parts: number;
  /** A timer that runs so much later than it should runs in a process that is short of time. */
  readonly maxLateMs: number;
  /** While there are no more items than that, the ticker visits several parts at a time, so many milliseconds apart. */
  readonly calm?: { readonly items: number; readonly everyMs: number };
}

/** What is visited together. */
class Part<T extends Linked<T>> extends Chain<T> {
  constructor(readonly rounds: Rounds<T>) {
    super();
  }
}

/**
 * Items, each of which is visited once in a period, a part of them at a time. An item stays in its part, so that its
 * visits are a period apart whoever comes and goes.
 */
export class Rounds<T extends Linked<T>> implements Iterable<T> {
  readonly #options: RoundsOptions;
  readonly #parts: readonly Part<T>[];
  #size = 0;
  #visit: (item: T, isLate: boolean) => void = () => {};
  #running: AbortController | undefined;
  /** Its timer: how far one turn of it is from the next, and what ends it. */
  #everyMs = 0;
  #stopTimer = () => {};
  /** Where the next item goes, and which part is visited next. */
  #joining = 0;
  #part = 0;
  /** When that part is due. */
  #dueMs = 0;
  /** So many of the next parts are late. */
  #lateParts = 0;
  /** Parts whose turn it is. */
  #due: { part: Part<T>; isLate: boolean }[] = [];
  #isVisiting = false;

  constructor(options: RoundsOptions) {
    this.#options = options;
    this.#parts = Array.from({ length: options.parts }, () => new Part<T>(this));
  }

  get size(): number {
    return this.#size;
  }

  /** Takes one that stands in no chain. */
  add(item: T): void {
    this.#parts[this.#joining]!.add(item);
    this.#size++;
    this.#joining = (this.#joining + 1) % this.#parts.length;
  }

  /** @returns Whether it was there. */
  delete(item: T): boolean {
    const { chain } = item;
    if (!(chain instanceof Part) || chain.rounds !== this) return false;
    chain.delete(item);
    this.#size--;
    return true;
  }

  /** Part by part. */
  *[Symbol.iterator](): Generator<T> {
    for (const part of this.#parts) yield* part;
  }

  /**
   * Visits the items from now on, unless it does so already.
   * @param visit Must not throw. `isLate`: the process has been short of time since the last visit, and has not heard
   *   what there was to hear.
   */
  start(visit: (item: T, isLate: boolean) => void): void {
    if (this.#running) return;
    const { periodMs, parts } = this.#options;
    this.#visit = visit;
    this.#running = new AbortController();
    this.#dueMs = performance.now() + periodMs / parts;
    this.#lateParts = 0;
    this.#setTimer();
  }

  stop(): void {
    this.#stopTimer();
    this.#everyMs = 0;
    this.#running?.abort();
    this.#running = undefined;
    this.#isVisiting = false;
    this.#due = [];
  }

  /** Sees to it that it has the timer that it needs for as many items as there are now. */
  #setTimer(): void {
    const { periodMs, parts, calm } = this.#options;
    const isCalm = calm !== undefined && this.#size <= calm.items;
    const everyMs = isCalm ? calm.everyMs : periodMs / parts;
    if (everyMs === this.#everyMs) return;
    this.#stopTimer();
    this.#everyMs = everyMs;
    const tick = () => this.#tick();
    if (isCalm) this.#stopTimer = ticker.every(everyMs, tick);
    else {
      const timer = setInterval(tick, everyMs);
      this.#stopTimer = () => clearInterval(timer);
    }
  }

  #tick(): void {
    const { periodMs, parts, maxLateMs } = this.#options;
    const nowMs = performance.now();
    const lateMs = nowMs - this.#dueMs - (this.#everyMs - periodMs / parts);
    this.#setTimer();
    if (lateMs > maxLateMs) {
      // The rounds go on from here: what was missed is not made up for.
      this.#dueMs = nowMs;
      this.#lateParts = parts;
    }
    do {
      this.#dueMs += periodMs / parts;
      const part = this.#parts[this.#part]!;
      this.#part = (this.#part + 1) % parts;
      const isLate = this.#lateParts > 0;
      if (isLate) this.#lateParts--;
      // A process that needs more than a period for a round does not fall behind further and further.
      if (part.size > 0 && this.#due.length < parts) this.#due.push({ part, isLate });
    } while (this.#dueMs <= nowMs);
    if (!this.#isVisiting && this.#due.length > 0) this.#visitDue(this.#running!.signal);
  }

  #visitDue(signal: AbortSignal): void {
    const visit = this.#visit;
    let isFirstSlice = true;
    const ended = () => {
      if (isFirstSlice) return void (this.#isVisiting = false);
      // What comes due in the turn of the last slice would make that too large.
      setImmediate(() => {
        if (signal.aborted) return;
        this.#isVisiting = false;
        if (this.#due.length > 0) this.#visitDue(signal);
      });
    };
    this.#isVisiting = true;
    void inSlices(this.#visits(ended), ({ item, isLate }) => visit(item, isLate), signal);
    isFirstSlice = false;
  }

  *#visits(ended: () => void): Generator<{ item: T; isLate: boolean }> {
    try {
      for (let due; (due = this.#due.shift()) !== undefined;) {
        const { part, isLate } = due;
        for (const item of part) yield { item, isLate };
      }
    } finally {
      ended();
    }
  }
}
