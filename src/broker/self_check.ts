/**
 * Sees to it that this process' own subscriptions are counted where its commands go. Both are dialled by the same name,
 * but behind a name may be another server than a moment ago: then messages are published where nobody of ours listens,
 * and nothing else would say so. It needs to know nothing of how servers take over from one another.
 *
 * What is new is looked at within a fraction of a second, together with all else that is new; everything is looked at
 * once in a while. What is found missing twice is closed, to be dialled again. When that does not help, or half of all
 * is missing, it is the connection for commands that is at the wrong place.
 */
import { inSlices } from "../async/slices.ts";
import { ticker } from "../async/ticker.ts";
import type { Held, Subscriptions } from "./subscriptions.ts";

export interface SelfCheckOptions {
  /** Whether nothing can be asked just now. */
  isIdle(): boolean;
  /** How many subscriptions each channel has, where the commands go. */
  counts(channels: readonly string[]): Promise<number[]>;
  readonly subscriptions: Pick<Subscriptions, "size" | "channels" | "confirmed">;
  /** Some were missing, and have been closed. */
  onFound(channels: number): void;
  /** The commands go to the wrong place. */
  dialAnew(): void;
}

/** New ones are put together for so long. */
const GATHER_MS = 100;
/** What was missing is looked at once more after that. */
const AGAIN_MS = 300;
/** A part of all is looked at so often. */
export const SWEEP_TICK_MS = 1_000;
/** So many ticks until everything was looked at. */
const SWEEP_TICKS = 25;
/** Channels in one question. */
const BATCH = 1_000;
/** What is missing again within that was not helped by dialling it again. */
const IN_VAIN_MS = 30_000;

export class SelfCheck {
  readonly #options: SelfCheckOptions;
  readonly #stopSweeping: () => void;
  #gatherTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #againTimers = new Set<ReturnType<typeof setTimeout>>();
  #new = new Set<string>();
  #sweep: IterableIterator<string> | undefined;
  #foundAtMs = -Infinity;
  #dialledAtMs = -Infinity;
  #isClosed = false;

  constructor(options: SelfCheckOptions) {
    this.#options = options;
    this.#stopSweeping = ticker.every(SWEEP_TICK_MS, () => this.#onSweepTick());
  }

  /** A subscription of this channel was confirmed. */
  opened(channel: string): void {
    this.#new.add(channel);
    if (!this.#isClosed) this.#gatherTimer ??= setTimeout(() => this.#onGathered(), GATHER_MS);
  }

  /** Somebody else has learned how many subscriptions the channel has, where the commands go. */
  counted(channel: string, count: number): void {
    const own = this.#options.subscriptions.confirmed(channel).length;
    // It may be younger than the answer: so it is asked for.
    if (count < own) this.opened(channel);
    else this.#new.delete(channel);
  }

  close(): void {
    this.#isClosed = true;
    this.#stopSweeping();
    clearTimeout(this.#gatherTimer);
    for (const timer of this.#againTimers) clearTimeout(timer);
  }

  #onGathered(): void {
    this.#gatherTimer = undefined;
    if (this.#options.isIdle()) return; // the sweep will come to them
    const channels = this.#new;
    this.#new = new Set();
    this.#check(channels);
  }

  #onSweepTick(): void {
    if (this.#options.isIdle()) return;
    const portion: string[] = [];
    const wanted = Math.ceil(this.#options.subscriptions.size / SWEEP_TICKS);
    this.#sweep ??= this.#options.subscriptions.channels();
    while (portion.length < wanted) {
      const { value, done } = this.#sweep.next();
      if (done) {
        this.#sweep = undefined;
        break;
      }
      portion.push(value);
    }
    this.#check(portion);
  }

  /** Looks at channels, and once more at those that are not counted. */
  #check(channels: Iterable<string>): void {
    this.#missing(channels).then((missing) => {
      if (missing.size === 0 || this.#isClosed) return;
      const timer = setTimeout(() => {
        this.#againTimers.delete(timer);
        this.#confirm(missing.keys()).catch(() => {}); // when it can't be asked, it is asked the next time
      }, AGAIN_MS);
      this.#againTimers.add(timer);
    }, () => {});
  }

  async #confirm(channels: Iterable<string>): Promise<void> {
    if ((await this.#missing(channels)).size === 0 || this.#isClosed) return;
    // One that is missing is seldom alone.
    const missing = await this.#missing(this.#options.subscriptions.channels());
    if (missing.size === 0 || this.#isClosed) return;
    const nowMs = performance.now();
    const isInVain = nowMs - this.#foundAtMs < IN_VAIN_MS;
    this.#foundAtMs = nowMs;
    this.#options.onFound(missing.size);
    const isMost = missing.size * 2 > this.#options.subscriptions.size;
    await inSlices([...missing.values()].flat(), (connection) => connection.close());
    if (this.#isClosed) return;
    if ((isInVain || isMost) && nowMs - this.#dialledAtMs >= IN_VAIN_MS) {
      this.#dialledAtMs = nowMs;
      this.#options.dialAnew();
    }
  }

  /** Channels that are counted less often than they are held, with the connections that hold them. */
  async #missing(channels: Iterable<string>): Promise<Map<string, readonly Held[]>> {
    const missing = new Map<string, readonly Held[]>();
    let batch: [string, readonly Held[]][] = [];
    const ask = async () => {
      const asked = batch;
      batch = [];
      const counts = await this.#options.counts(asked.map(([channel]) => channel));
      for (const [i, [channel, before]] of asked.entries()) {
        if (counts[i]! >= before.length) continue;
        // What was closed or lost meanwhile is not missing.
        const now = this.#options.subscriptions.confirmed(channel);
        const still = before.filter((held) => now.includes(held));
        if (counts[i]! < still.length) missing.set(channel, still);
      }
    };
    for (const channel of channels) {
      const held = this.#options.subscriptions.confirmed(channel);
      if (held.length > 0 && batch.push([channel, held]) >= BATCH) await ask();
    }
    if (batch.length > 0) await ask();
    return missing;
  }
}
