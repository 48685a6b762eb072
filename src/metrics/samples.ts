/**
 * The last 15 minutes of this node: its counters and gauges as they were every five seconds, for the console. They are read
 * from where `/metrics` reads them, so nothing is counted twice, and no message costs anything.
 */
import { ticker } from "../async/ticker.ts";
import type { Metrics, Reading } from "./metrics.ts";

/** How far one sample is from the next, in milliseconds. */
export const EVERY_MS = 5_000;
/** How long they are kept, in milliseconds. */
const KEPT_MS = 15 * 60_000;

/** The numbers of a node at one moment. */
export interface Sample extends Reading {
  /** When it was taken, in Unix milliseconds. */
  readonly at: number;
  /** How long a send took, in milliseconds, of those since the sample before; missing when there were none. */
  readonly send_ms?: { readonly p50: number; readonly p99: number };
}

export class Samples {
  readonly #metrics: Metrics;
  readonly #samples: Sample[] = [];
  readonly #listeners = new Set<(sample: Sample) => void>();
  readonly #stopTaking: () => void;
  #durations: readonly number[];

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
    this.#durations = metrics.sendDurations.look();
    // A program that holds a service ends when all else has.
    this.#stopTaking = ticker.every(EVERY_MS, () => this.take(), { holds: false });
  }

  /** All that are kept, oldest first, and last the node as it is at this moment, which is not kept. */
  all(): Sample[] {
    return [...this.#samples, this.#read()];
  }

  /** Hears of each sample that is kept from now on. @returns Ends that. */
  onSample(listener: (sample: Sample) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Keeps the node as it is now, in place of the oldest sample when that is too old. The timer calls it. */
  take(): void {
    const sample = this.#read();
    this.#durations = this.#metrics.sendDurations.look();
    if (this.#samples.push(sample) > KEPT_MS / EVERY_MS) this.#samples.shift();
    for (const listener of this.#listeners) listener(sample);
  }

  [Symbol.dispose](): void {
    this.#stopTaking();
    this.#listeners.clear();
  }

  #read(): Sample {
    const { sendDurations } = this.#metrics;
    const [p50, p99] = [0.5, 0.99].map((share) => sendDurations.quantile(share, this.#durations));
    return {
      at: Date.now(),
      ...this.#metrics.now(),
      ...(p50 !== undefined && p99 !== undefined && { send_ms: { p50: inMs(p50), p99: inMs(p99) } }),
    };
  }
}

/** In thousandths of a millisecond: more digits say nothing. */
function inMs(seconds: number): number {
  return Math.round(seconds * 1_000_000) / 1_000;
}
