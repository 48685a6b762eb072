/** Events of a single process, in its memory: what ends with the process was never worth more than it. */
import {
  type Entry,
  type EventStore,
  type EventStoreOptions,
  type EventType,
  MAX_AGE_MS,
  MAX_CHANGES,
  MAX_EVENTS,
  MOST_DUE,
  PER_MS,
  PUT_OFF_MS,
  type Taken,
} from "./events.ts";
import { SENDING_MS, type WatchedMessage } from "./unacked.ts";

/** An entry with the moment from which it may be taken, and how often it was refused. */
type Waiting = { readonly entry: Entry; fromMs: number; refusals: number };

/** One user of a message that is watched. */
type Watched = {
  readonly message: WatchedMessage;
  readonly user: string;
  dueMs: number;
  seq?: number | undefined;
};

export class MemoryEventStore implements EventStore {
  readonly #options: EventStoreOptions;
  readonly #nowMs: () => number;
  /** Users, with the `users.unknown` before they were told online. */
  readonly #told = new Map<string, string>();
  readonly #due = new Map<string, number>();
  readonly #outbox = new Map<string, Waiting>();
  readonly #watched = new Map<string, Watched>();
  #n = 0;
  /** Id of the last `users.unknown`. */
  #unknown = "";
  #dropped = 0;

  /** @param nowMs Unix milliseconds. */
  constructor(options: EventStoreOptions, nowMs: () => number = Date.now) {
    this.#options = options;
    this.#nowMs = nowMs;
    this.#tellUnknown();
  }

  note(opened: readonly string[], closed: readonly string[]): Promise<boolean> {
    const since = this.#unknown;
    const news = opened.filter((user) => this.#told.get(user) !== since);
    this.#tell(news, true);
    for (const user of news) this.#told.set(user, since);
    for (const user of opened) this.#due.delete(user);
    const dueMs = this.#nowMs() + this.#options.offlineAfterMs;
    for (const user of closed) if (this.#told.has(user)) this.#due.set(user, dueMs);
    return Promise.resolve(news.length > 0);
  }

  async settle(): Promise<boolean> {
    const nowMs = this.#nowMs();
    const due = [...this.#due].filter(([, dueMs]) => dueMs <= nowMs).slice(0, MOST_DUE);
    if (due.length === 0) return false;
    const counts = await this.#options.counts(due.map(([user]) => user));
    // Who has come back meanwhile was noted, and is not due any more.
    const looked = due.filter(([user, dueMs]) => this.#due.get(user) === dueMs);
    const gone = due.filter((_, i) => counts[i] === 0).map(([user]) => user);
    for (const [user] of looked) this.#due.delete(user);
    const news = looked.map(([user]) => user).filter((user) =>
      gone.includes(user) && this.#told.delete(user)
    );
    this.#tell(news, false);
    return true;
  }

  /** A process that dies takes what it told with it. */
  sweep(): Promise<void> {
    return Promise.resolve();
  }

  take(most: number): Promise<Taken> {
    const nowMs = this.#nowMs();
    for (const [id, { entry }] of this.#outbox) {
      if (entry.atMs > nowMs - MAX_AGE_MS) break;
      this.#outbox.delete(id);
      this.#dropped++;
      this.#tellUnknown();
    }
    const entries: Entry[] = [];
    for (const waiting of this.#outbox.values()) {
      if (entries.length === most) break;
      if (waiting.fromMs > nowMs) continue;
      waiting.fromMs = nowMs + this.#options.holdMs;
      entries.push(waiting.entry);
    }
    const dropped = this.#dropped;
    this.#dropped = 0;
    const [oldest] = this.#outbox.values();
    return Promise.resolve({ entries, oldestMs: oldest?.entry.atMs, dropped });
  }

  done(id: string): Promise<void> {
    this.#outbox.delete(id);
    return Promise.resolve();
  }

  putOff(id: string): Promise<void> {
    const waiting = this.#outbox.get(id);
    if (waiting) {
      waiting.fromMs = this.#nowMs() + PUT_OFF_MS[Math.min(waiting.refusals++, PUT_OFF_MS.length - 1)]!;
    }
    return Promise.resolve();
  }

  watch(message: WatchedMessage, users: readonly string[]): Promise<void> {
    const dueMs = this.#nowMs() + (message.afterMs === 0 ? SENDING_MS : message.afterMs);
    for (const user of users) this.#watched.set(`${message.token} ${user}`, { message, user, dueMs });
    return Promise.resolve();
  }

  sent({ token, afterMs }: WatchedMessage, users: readonly string[], seq?: number): Promise<void> {
    for (const user of users) {
      const watched = this.#watched.get(`${token} ${user}`);
      if (!watched) continue;
      watched.seq = seq;
      if (afterMs === 0) watched.dueMs = this.#nowMs();
    }
    return Promise.resolve();
  }

  unwatch(token: string, users: readonly string[]): Promise<void> {
    for (const user of users) this.#watched.delete(`${token} ${user}`);
    return Promise.resolve();
  }

  async tellUnacked(): Promise<boolean> {
    const nowMs = this.#nowMs();
    const due = [...this.#watched].filter(([, { dueMs }]) => dueMs <= nowMs).slice(0, MOST_DUE);
    if (due.length === 0) return false;
    const counts = await this.#options.counts(due.map(([, { user }]) => user));
    for (const [i, [member, { message, user, seq }]] of due.entries()) {
      // Who has confirmed it meanwhile is not there any more.
      if (!this.#watched.delete(member) || (message.afterMs === 0 && counts[i]! > 0)) continue;
      const { id, ts, group, traceparent } = message;
      this.#next();
      this.#add("message.unacked", {
        ...{ user, id, ts, group, traceparent, seq },
        [this.#options.counted]: counts[i],
      });
    }
    return true;
  }

  life(): string {
    return this.#unknown;
  }

  #tell(users: readonly string[], online: boolean): void {
    for (let i = 0; i < users.length; i += MAX_CHANGES) {
      const changes = users.slice(i, i + MAX_CHANGES).map((user) => ({ user, online, n: this.#next() }));
      this.#add("users.changed", { changes });
    }
  }

  #tellUnknown(): void {
    if (this.#outbox.has(this.#unknown)) return;
    this.#unknown = this.#add("users.unknown", { n: this.#next() });
  }

  #next(): number {
    return this.#n = Math.max(this.#n + 1, this.#nowMs() * PER_MS);
  }

  /** @returns Its id. */
  #add(type: EventType, data: unknown): string {
    const id = `evt_${Math.floor(this.#n / PER_MS)}-${this.#n % PER_MS}`;
    const entry = { id, type, atMs: this.#nowMs(), data: JSON.stringify(data) };
    this.#outbox.set(id, { entry, fromMs: 0, refusals: 0 });
    if (this.#outbox.size > MAX_EVENTS) {
      this.#outbox.delete(this.#outbox.keys().next().value!);
      this.#dropped++;
      if (type !== "users.unknown") this.#tellUnknown();
    }
    return id;
  }
}
