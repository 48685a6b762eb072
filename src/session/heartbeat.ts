/**
 * The timers of all sessions, so that none has its own: a tick a second for each, not all at one time, and a look twenty
 * times a second at those whose client takes no more, for which Deno has no event. No timer runs while nobody needs one.
 */
import type { Linked } from "../async/chain.ts";
import { inSlices, Rounds } from "../async/slices.ts";

/** How the ticks of a second are spread over it. */
export const TICKS = {
  periodMs: 1_000,
  parts: 25,
  /** A tick that comes so much later than it should comes in a process that is short of time. */
  maxLateMs: 250,
  calm: { items: 400, everyMs: 250 },
};
const ROOM_TICK_MS = 50;

/** Whose client takes no more. */
export interface Full {
  /** Goes on where there is room; whether it needs no more asking. */
  hasRoom(): boolean;
}

interface Ticking<T> extends Linked<T> {
  tick(isLate: boolean): void;
}

export class Heartbeat<T extends Ticking<T>> {
  /** Those that are ticked. */
  readonly members: Rounds<T> = new Rounds(TICKS);
  readonly #full = new Set<Full>();
  #isLooking = false;
  #roomTimer: ReturnType<typeof setInterval> | undefined;

  /** Of how many the client takes no more just now. */
  get full(): number {
    return this.#full.size;
  }

  /** It is ticked from now on. */
  join(member: T): void {
    this.members.add(member);
    this.members.start((member, isLate) => member.tick(isLate));
  }

  /** It is ticked no more. @returns Whether it was. */
  leave(member: T): boolean {
    const wasThere = this.members.delete(member);
    if (this.members.size === 0) this.members.stop();
    this.forget(member);
    return wasThere;
  }

  /** Asks for room from now on, until there is some. */
  watch(full: Full): void {
    this.#full.add(full);
    this.#roomTimer ??= setInterval(() => this.#look(), ROOM_TICK_MS);
  }

  /** Asks no more. */
  forget(full: object): void {
    this.#full.delete(full as Full);
    if (this.#full.size > 0) return;
    clearInterval(this.#roomTimer);
    this.#roomTimer = undefined;
  }

  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const look = (full: Full) => {
      if (full.hasRoom()) this.forget(full);
    };
    void inSlices(this.#full, look).finally(() => this.#isLooking = false);
  }
}
