/**
 * What was sent and what arrived: counts losses, duplicates and messages out of order exactly, per listener, and
 * keeps the latencies while it is told to. A listener is a socket; its messages are numbered from 1.
 */
import { Histogram } from "./histogram.ts";

/** What is wrong with the deliveries of a run; all zero when nothing is. */
export interface Faults {
  lost: number;
  duplicated: number;
  disordered: number;
  /** Messages that came to another user's socket, or that nobody has sent. */
  misdelivered: number;
}

export class Tally {
  /** Number of the last message sent to each listener. */
  readonly #sent: Uint32Array;
  /** Highest number seen by each listener. */
  readonly #seen: Uint32Array;
  /** Lower numbers that have not come yet, of the few listeners that miss some. */
  readonly #holes = new Map<number, Set<number>>();
  /** Numbers that were not accepted and have not come, of the few listeners that have some. */
  readonly #refused = new Map<number, Set<number>>();
  #refusedCount = 0;
  /** Of the messages that arrived while this was kept. */
  readonly latency = new Histogram();
  #duplicated = 0;
  #disordered = 0;
  /** Called after each delivery. */
  onDelivered: () => void = () => {};
  /** Whether latencies are kept. */
  isTiming = false;
  sent = 0;
  delivered = 0;
  misdelivered = 0;
  lastDeliveryMs = 0;

  constructor(listeners: number) {
    this.#sent = new Uint32Array(listeners);
    this.#seen = new Uint32Array(listeners);
  }

  /** Counts a message to a listener; returns its number. */
  send(listener: number): number {
    this.sent++;
    return ++this.#sent[listener]!;
  }

  /** @param latencyMs From when the message was due. */
  deliver(listener: number, sequence: number, latencyMs: number): void {
    const seen = this.#seen[listener]!;
    if (sequence > this.#sent[listener]!) {
      this.misdelivered++;
      return;
    }
    if (sequence === seen + 1) {
      this.#seen[listener] = sequence;
    } else if (sequence > seen) {
      let holes = this.#holes.get(listener);
      if (!holes) this.#holes.set(listener, holes = new Set());
      for (let number = seen + 1; number < sequence; number++) holes.add(number);
      this.#seen[listener] = sequence;
    } else if (this.#holes.get(listener)?.delete(sequence)) {
      this.#disordered++;
    } else {
      this.#duplicated++;
      return;
    }
    if (this.#refusedCount > 0 && this.#refused.get(listener)?.delete(sequence)) this.#refusedCount--;
    this.delivered++;
    this.lastDeliveryMs = performance.now();
    if (this.isTiming) this.latency.add(latencyMs);
    this.onDelivered();
  }

  /** Keeps latencies from now on, and forgets those of before. */
  beginTiming(): void {
    this.latency.clear();
    this.isTiming = true;
  }

  /** Says that a message was not accepted, as far as is known: unless it comes all the same, it is not lost. */
  refuse(listener: number, sequence: number): void {
    if (sequence <= this.#seen[listener]! && !this.#holes.get(listener)?.has(sequence)) return;
    let refused = this.#refused.get(listener);
    if (!refused) this.#refused.set(listener, refused = new Set());
    refused.add(sequence);
    this.#refusedCount++;
  }

  /** What is on its way, or lost. */
  get outstanding(): number {
    return this.sent - this.delivered - this.#refusedCount;
  }

  /** What is on its way to one listener, or lost. */
  outstandingOf(listener: number): number {
    const missing = this.#sent[listener]! - this.#seen[listener]! + (this.#holes.get(listener)?.size ?? 0);
    return missing - (this.#refused.get(listener)?.size ?? 0);
  }

  get faults(): Faults {
    return {
      lost: this.outstanding,
      duplicated: this.#duplicated,
      disordered: this.#disordered,
      misdelivered: this.misdelivered,
    };
  }

  /**
   * Resolves when all that was sent has arrived, or nothing has for so long, or the time is up.
   * @param graceMs Milliseconds.
   * @param mostMs Milliseconds in all.
   */
  async drain(graceMs: number, mostMs = Infinity): Promise<void> {
    let progressMs = performance.now();
    const endMs = progressMs + mostMs;
    let before = this.delivered;
    while (this.outstanding > 0 && performance.now() < Math.min(endMs, progressMs + graceMs)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (this.delivered === before) continue;
      before = this.delivered;
      progressMs = performance.now();
    }
  }
}
