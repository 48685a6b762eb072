/**
 * How long things took, in counts: fixed in size however many there are, and off by a thousandth at most. Up to 2 ms
 * each microsecond has its own count, and from there on each doubling has a thousand.
 */

const STEPS_LOG2 = 10;
const MAX_US = 2 ** 31 - 1;
const SLOTS = slotOf(MAX_US) + 1;

export class Histogram {
  readonly #counts = new Uint32Array(SLOTS);
  /** How many there are. */
  count = 0;
  /** The longest, in milliseconds. */
  maxMs = 0;

  /** @param ms Milliseconds; what is below zero counts as zero. */
  add(ms: number): void {
    this.count++;
    if (ms > this.maxMs) this.maxMs = ms;
    this.#counts[slotOf(Math.min(MAX_US, Math.max(0, Math.round(ms * 1_000))))]!++;
  }

  clear(): void {
    this.#counts.fill(0);
    this.count = this.maxMs = 0;
  }

  /** The time below which so large a part stayed, in milliseconds; 0 without any. */
  quantileMs(part: number): number {
    let left = Math.min(this.count, Math.floor(this.count * part) + 1);
    if (left === 0) return 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      left -= this.#counts[slot]!;
      if (left <= 0) return Math.min(startOf(slot) / 1_000, this.maxMs);
    }
    return this.maxMs;
  }

  /**
   * How many fall between each two of these limits.
   * @param limitsMs Ascending. A count more than these is returned: the first is below all, the last from the last on.
   */
  between(limitsMs: readonly number[]): number[] {
    const counts = new Array<number>(limitsMs.length + 1).fill(0);
    let at = 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      while (at < limitsMs.length && startOf(slot) >= limitsMs[at]! * 1_000) at++;
      counts[at]! += this.#counts[slot]!;
    }
    return counts;
  }
}

function slotOf(us: number): number {
  const shift = Math.max(0, 31 - Math.clz32(us) - STEPS_LOG2);
  return (shift << STEPS_LOG2) + (us >> shift);
}

/** The shortest time of a slot, in microseconds. */
function startOf(slot: number): number {
  const shift = Math.max(0, (slot >> STEPS_LOG2) - 1);
  return (slot - (shift << STEPS_LOG2)) * 2 ** shift;
}
