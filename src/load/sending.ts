/**
 * Messages leave, at fixed times whether or not earlier ones were answered, or as fast as they are. What is due while
 * too many are on their way waits, and its latency counts from when it was due.
 */
import { Beat } from "./beat.ts";
import { Histogram } from "./histogram.ts";
import { formatMarked } from "./mark.ts";
import type { Sender } from "./sender.ts";
import type { Tally } from "./tally.ts";

/** How late a message may leave that is to leave at a certain time. */
const BEAT_MS = 0.4;
/** Messages that wait for each that is on its way, at most. */
const WAITING = 3;

/** Who is connected, in the order in which they get messages. */
export class Present {
  readonly #users: number[] = [];
  readonly #places = new Map<number, number>();

  get size(): number {
    return this.#users.length;
  }

  add(user: number): void {
    this.#places.set(user, this.#users.length);
    this.#users.push(user);
  }

  remove(user: number): void {
    const place = this.#places.get(user);
    if (place === undefined) return;
    const last = this.#users.pop()!;
    this.#places.delete(user);
    if (last === user) return;
    this.#users[place] = last;
    this.#places.set(last, place);
  }

  /** Whose turn it is. */
  at(turn: number): number {
    return this.#users[turn % this.#users.length]!;
  }
}

export interface SendingOptions {
  readonly sender: Sender;
  readonly tally: Tally;
  readonly present: Present;
  nameOf(user: number): string;
  /** Messages a second; undefined for as many as are answered. */
  readonly perSecond: number | undefined;
  readonly seconds: number;
  /** Size of each. */
  readonly bytes: number;
}

export class Sending {
  /** How late this process was, at each millisecond. */
  readonly lag = new Histogram();
  /** Messages that were due and did not leave, because too many were on their way. */
  unsent = 0;
  /** How long it took. */
  seconds = 0;
  readonly #options: SendingOptions;
  #turn = 0;

  constructor(options: SendingOptions) {
    this.#options = options;
  }

  /** Resolves when the time is up, at the signal, or when nobody is connected any more. */
  async run(signal: AbortSignal): Promise<void> {
    const { sender, perSecond, seconds, present } = this.#options;
    using beat = new Beat(BEAT_MS);
    await beat.next(); // the thread is up
    const startMs = performance.now();
    const endMs = startMs + seconds * 1_000;
    const isOver = () => signal.aborted || present.size === 0 || performance.now() >= endMs;
    const flow = perSecond === undefined
      ? () => this.#fill(isOver)
      : (nowMs: number) => this.#catchUp(startMs, nowMs);
    if (perSecond === undefined) sender.onAnswer = () => this.#fill(isOver);
    let nowMs = startMs;
    for (let tickMs = startMs, isLast = false; !isLast;) {
      await beat.next();
      isLast = isOver();
      nowMs = performance.now();
      for (; tickMs <= nowMs; tickMs++) this.lag.add(nowMs - tickMs);
      if (present.size > 0) flow(nowMs);
    }
    sender.onAnswer = () => {};
    this.seconds = (nowMs - startMs) / 1_000;
    const due = Math.min(this.#count, Math.floor(this.seconds * (perSecond ?? 0)) + 1);
    if (perSecond !== undefined) this.unsent = Math.max(0, due - this.#turn);
  }

  /** How many there are to be, at fixed times. */
  get #count(): number {
    const { perSecond = 0, seconds } = this.#options;
    return Math.round(perSecond * seconds);
  }

  /** Sends what has become due. */
  #catchUp(startMs: number, nowMs: number): void {
    const { sender, perSecond = 0 } = this.#options;
    while (this.#turn < this.#count && sender.pending < sender.width * (1 + WAITING)) {
      const dueMs = startMs + this.#turn * 1_000 / perSecond;
      if (dueMs > nowMs) break;
      this.#send(dueMs);
    }
  }

  /** Sends as many as are not too many on their way. */
  #fill(isOver: () => boolean): void {
    const { sender } = this.#options;
    while (sender.pending < sender.width && !isOver()) this.#send(performance.now());
  }

  #send(dueMs: number): void {
    const { sender, tally, present, bytes } = this.#options;
    const user = present.at(this.#turn++);
    const sequence = tally.send(user);
    const payload = formatMarked(user, sequence, { dueUs: Math.round(dueMs * 1_000), bytes });
    sender.send(user, this.#options.nameOf(user), payload, sequence);
  }
}
