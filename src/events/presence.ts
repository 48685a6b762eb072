/**
 * Notes which users have come to this node and which have left it, many at a time and in order, and drives what is done
 * with it. A user that opens and leaves again and again costs no more than one that does so once in a while.
 */
import { ticker } from "../async/ticker.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { EventStore } from "./events.ts";

/** So many users go into one step at most: everybody else on the store waits meanwhile. */
const MOST_USERS = 250;
/** The first change is noted at once, and those after it together, so long after the last step began. */
const GATHER_MS = 200;
const TICK_MS = 1_000;
/** At the end what is not noted yet may take so long; other nodes find the rest. */
const LAST_MS = 1_000;

export interface PresenceOptions {
  readonly store: EventStore;
  readonly log: Log;
  /** Whether a user has a session here. */
  isHere(user: string): boolean;
  /** All users that have one. */
  usersHere(): Iterable<string>;
  /** There is something new to be carried. */
  onEvent(): void;
}

/** What is not noted yet of a user: that it came, that it left, or both in this order. */
interface News {
  hasCome: boolean;
  hasLeft: boolean;
}

export class Presence {
  readonly #options: PresenceOptions;
  #news = new Map<string, News>();
  #noting: Promise<void> | undefined;
  #startedMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #stopTicking: () => void;
  #ticking: Promise<void> | undefined;
  #life = "";
  #isClosed = false;
  #hasFailed = false;

  constructor(options: PresenceOptions) {
    this.#options = options;
    this.#stopTicking = ticker.every(TICK_MS, () => void this.#tick());
  }

  /** A session of the user is live. */
  opened(user: string): void {
    // Who is back is looked at no more, also when the leaving was not noted yet.
    this.#news.set(user, { hasCome: true, hasLeft: false });
    this.#schedule();
  }

  /** A live session of the user has ended. */
  closed(user: string): void {
    if (this.#options.isHere(user)) return;
    const news = this.#news.get(user);
    if (news) news.hasLeft = true;
    else this.#news.set(user, { hasCome: false, hasLeft: true });
    this.#schedule();
  }

  /** Notes what is left, as far as it can be done soon. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#stopTicking();
    await this.#noting;
    await this.#ticking;
    const endMs = performance.now() + LAST_MS;
    while (this.#news.size > 0 && performance.now() < endMs && await this.#note());
  }

  #schedule(): void {
    if (this.#isClosed || this.#noting || this.#timer !== undefined) return;
    const waitMs = this.#startedMs + GATHER_MS - performance.now();
    this.#timer = setTimeout(() => this.#run(), Math.max(0, waitMs));
  }

  #run(): void {
    this.#timer = undefined;
    this.#noting = this.#note().then((isNoted) => {
      this.#noting = undefined;
      // What failed is tried again by the tick.
      if (isNoted && this.#news.size > 0) this.#schedule();
    });
  }

  /** One step. @returns Whether it was done. */
  async #note(): Promise<boolean> {
    this.#startedMs = performance.now();
    const batch = [...this.#news].slice(0, MOST_USERS);
    for (const [user] of batch) this.#news.delete(user);
    const opened = batch.filter(([, { hasCome }]) => hasCome).map(([user]) => user);
    const closed = batch.filter(([, { hasLeft }]) => hasLeft).map(([user]) => user);
    const { store, onEvent } = this.#options;
    const life = store.life();
    try {
      if (await store.note(opened, closed)) onEvent();
      // What was told of those who have left may have been lost, and then nothing is due.
      if (life !== "" && store.life() !== life) this.#retell(closed);
      this.#recovered();
      return true;
    } catch (error) {
      this.#failed(error);
      // What has come since stands above it, but for a coming that was not noted.
      for (const [user, old] of batch) {
        const { hasCome, hasLeft } = this.#news.get(user) ?? { hasCome: false, hasLeft: old.hasLeft };
        this.#news.set(user, { hasCome: hasCome || old.hasCome, hasLeft });
      }
      return false;
    }
  }

  async #tick(): Promise<void> {
    if (this.#ticking || this.#isClosed) return;
    this.#ticking = this.#step().finally(() => this.#ticking = undefined);
    await this.#ticking;
  }

  async #step(): Promise<void> {
    const { store, usersHere, onEvent } = this.#options;
    const life = store.life();
    if (life !== "" && life !== this.#life) {
      this.#life = life;
      this.#retell(this.#news.keys());
      for (const user of usersHere()) this.opened(user);
    }
    if (this.#news.size > 0) this.#schedule();
    try {
      while (await store.settle()) {
        onEvent();
        if (this.#isClosed) return;
      }
      await store.sweep();
      this.#recovered();
    } catch (error) {
      this.#failed(error);
    }
  }

  /** They have been here, and it may be that this is not written any more. */
  #retell(users: Iterable<string>): void {
    for (const user of users) {
      this.#news.set(user, { hasCome: true, hasLeft: !this.#options.isHere(user) });
    }
  }

  #failed(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#options.log.warn("presence not noted", { reason: messageOf(error) });
  }

  #recovered(): void {
    this.#hasFailed = false;
  }
}
