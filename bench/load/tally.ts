/**
 * What was sent and what arrived: counts losses, duplicates and messages out of order exactly, per listener, and
 * keeps the latencies while it is told to. A listener is a socket; its messages are numbered from 1.
 */

/** What is wrong with the deliveries of a run; all zero when nothing is. */
export interface Faults {
  lost: number;
  duplicated: number;
  disordered: number;
  /** Messages that came to another user's socket. */
  misdelivered: number;
}

export class Tally {
  /** Number of the last message sent to each listener. */
  readonly #sent: Uint32Array;
  /** Highest number seen by each listener. */
  readonly #seen: Uint32Array;
  /** Lower numbers that have not come yet, of the few listeners that miss some. */
  readonly #holes = new Map<number, Set<number>>();
  #latenciesMs = new Float64Array(0);
  #latencyCount = 0;
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
    this.delivered++;
    this.lastDeliveryMs = performance.now();
    if (this.isTiming) this.#time(latencyMs);
    this.onDelivered();
  }

  /** Keeps latencies from now on, and forgets those of before. */
  beginTiming(): void {
    this.#latencyCount = 0;
    this.isTiming = true;
  }

  /** What is on its way, or lost. */
  get outstanding(): number {
    return this.sent - this.delivered;
  }

  get faults(): Faults {
    return {
      lost: this.outstanding,
      duplicated: this.#duplicated,
      disordered: this.#disordered,
      misdelivered: this.misdelivered,
    };
  }

  /** The latency below which so large a part of the messages stayed, in milliseconds; 0 without any. */
  latencyMs(part: number): number {
    const sorted = this.#latenciesMs.subarray(0, this.#latencyCount).sort();
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
  }

  /**
   * Resolves when all that was sent has arrived, or nothing has for so long.
   * @param graceMs Milliseconds.
   */
  async drain(graceMs: number): Promise<void> {
    let progressMs = performance.now();
    let before = this.delivered;
    while (this.outstanding > 0 && performance.now() - progressMs < graceMs) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (this.delivered === before) continue;
      before = this.delivered;
      progressMs = performance.now();
    }
  }

  #time(latencyMs: number): void {
    if (this.#latencyCount === this.#latenciesMs.length) {
      const bigger = new Float64Array(Math.max(4_096, this.#latencyCount * 2));
      bigger.set(this.#latenciesMs);
      this.#latenciesMs = bigger;
    }
    this.#latenciesMs[this.#latencyCount++] = latencyMs;
  }
}
