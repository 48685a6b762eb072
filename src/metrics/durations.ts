/** How long things took, as a histogram; and what share of them took how long, between two looks at one. */
export class Durations {
  readonly #bounds: readonly number[];
  /** How many took no longer than each bound, and longer than the one before; last, those above all. */
  readonly #buckets: number[];
  #seconds = 0;

  /** @param bounds Upper bounds of the buckets, in seconds, ascending. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#buckets = [...bounds, Infinity].fill(0);
  }

  add(seconds: number): void {
    let bucket = 0;
    while (bucket < this.#bounds.length && seconds > this.#bounds[bucket]!) bucket++;
    this.#buckets[bucket]!++;
    this.#seconds += seconds;
  }

  /** The buckets as they are now, for `quantile` to compare with later. */
  look(): readonly number[] {
    return [...this.#buckets];
  }

  /**
   * So many seconds a share of what was added since took at most: a straight line between the bounds of the bucket it lies in,
   * as `histogram_quantile` of Prometheus has it. Above the last bound it is that bound.
   * @param share 0.99 for the 99th percentile.
   * @param since What `look` gave then; all that was ever added if not given.
   * @returns Undefined when nothing was added.
   */
  quantile(share: number, since?: readonly number[]): number | undefined {
    const counts = this.#buckets.map((count, i) => count - (since?.[i] ?? 0));
    const total = counts.reduce((sum, count) => sum + count, 0);
    if (total === 0) return undefined;
    let left = share * total;
    let bucket = 0;
    while (bucket < this.#bounds.length && left > counts[bucket]!) left -= counts[bucket++]!;
    const upper = this.#bounds[bucket];
    if (upper === undefined) return this.#bounds.at(-1);
    const lower = this.#bounds[bucket - 1] ?? 0;
    return lower + (upper - lower) * left / counts[bucket]!;
  }

  *samples(): Iterable<[string, number]> {
    let count = 0;
    for (const [i, inBucket] of this.#buckets.entries()) {
      count += inBucket;
      yield [`_bucket{le="${this.#bounds[i] ?? "+Inf"}"}`, count];
    }
    yield ["_sum", this.#seconds];
    yield ["_count", count];
  }
}
