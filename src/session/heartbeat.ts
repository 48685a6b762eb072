/**
 * The timers of all sessions, so that none has its own: a tick a second for each, and a look twenty times a second at
 * those whose client takes no more, for which Deno has no event. No timer runs while nobody needs one.
 */

/** A tick that comes later than that comes in a process that is short of time. */
const MAX_LATE_MS = 250;
const TICK_MS = 1_000;
const ROOM_TICK_MS = 50;

/** Whose client takes no more. */
export interface Full {
  /** Goes on where there is room; whether it needs no more asking. */
  hasRoom(): boolean;
}

export class Heartbeat {
  readonly #members: Iterable<{ tick(isLate: boolean): void }>;
  readonly #full = new Set<Full>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #roomTimer: ReturnType<typeof setInterval> | undefined;

  /** @param members Those to tick, asked for at each tick. */
  constructor(members: Iterable<{ tick(isLate: boolean): void }>) {
    this.#members = members;
  }

  start(): void {
    if (this.#timer !== undefined) return;
    let dueMs = performance.now() + TICK_MS;
    this.#timer = setInterval(() => {
      const lateMs = performance.now() - dueMs;
      dueMs += lateMs + TICK_MS;
      for (const member of this.#members) member.tick(lateMs > MAX_LATE_MS);
    }, TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Asks for room from now on, until there is some. */
  watch(full: Full): void {
    this.#full.add(full);
    this.#roomTimer ??= setInterval(() => {
      for (const full of this.#full) if (full.hasRoom()) this.forget(full);
    }, ROOM_TICK_MS);
  }

  /** Asks no more. */
  forget(full: object): void {
    this.#full.delete(full as Full);
    if (this.#full.size > 0) return;
    clearInterval(this.#roomTimer);
    this.#roomTimer = undefined;
  }
}
