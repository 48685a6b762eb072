/**
 * Carries the outbox to the backend: takes what is due, sends it, and forgets what was taken. While the backend can't be
 * reached one event at a time is tried, with growing pauses, and all others wait in order; so an outage of hours ends
 * within the pause, and the backend gets no burst of attempts meanwhile. An event that the backend refuses, while it takes
 * others, is put off, and holds nobody up.
 */
import { backoffMs } from "../async/backoff.ts";
import type { Entry, EventStore } from "../events/events.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { Delivery } from "./webhook.ts";

export interface CarrierOptions {
  readonly store: EventStore;
  /** Never rejects. */
  readonly deliver: (entry: Entry) => Promise<Delivery>;
  readonly metrics: Pick<Metrics, "onWebhook" | "oldestEventMs" | "eventsDropped">;
  readonly log: Log;
}

/** So many are under way at one time. */
const AT_ONCE = 8;
/** Others may have written events: the outbox is looked at again after so long. */
const TICK_MS = 1_000;
/** While the backend is away. */
const BACKOFF = { baseMs: 2_000, maxMs: 30_000, jitter: 0.5 };
/** The same trouble is logged once in so long. */
const LOG_AGAIN_MS = 60_000;

export class Carrier {
  readonly #options: CarrierOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<void> | undefined;
  #isWoken = false;
  #failures = 0;
  #loggedMs = -Infinity;
  #isClosed = false;

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.#wait(TICK_MS);
  }

  /** There is something new. */
  wake(): void {
    if (this.#isClosed || this.#failures > 0) return;
    this.#isWoken = true;
    if (!this.#running) this.#wait(0);
  }

  /** What is under way is awaited; it is bounded by the time a delivery may take. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #wait(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#isClosed) this.#timer = setTimeout(() => this.#run(), ms);
  }

  #run(): void {
    this.#running = this.#carry().then((waitMs) => {
      this.#running = undefined;
      this.#wait(waitMs);
    });
  }

  /** Carries all that is due. @returns After how long to look again, in milliseconds. */
  async #carry(): Promise<number> {
    const { store, metrics, log } = this.#options;
    try {
      for (;;) {
        this.#isWoken = false;
        const most = this.#failures > 0 ? 1 : AT_ONCE;
        const { entries, oldestMs, dropped } = await store.take(most);
        metrics.oldestEventMs = oldestMs;
        if (dropped > 0) {
          metrics.eventsDropped += dropped;
          log.error("events dropped", {
            count: dropped,
            reason:
              "They were too old or too many: the backend is told users.unknown, and then who is online",
          });
        }
        await this.#deliverAll(entries);
        if (this.#failures > 0) return backoffMs(this.#failures - 1, BACKOFF);
        if (this.#isClosed || (entries.length < most && !this.#isWoken)) return TICK_MS;
      }
    } catch (error) {
      // The store is away: what was taken comes again.
      log.debug("events not carried", { reason: messageOf(error) });
      return TICK_MS;
    }
  }

  async #deliverAll(entries: readonly Entry[]): Promise<void> {
    const before = this.#failures;
    const ended = await Promise.allSettled(entries.map((entry) => this.#deliver(entry)));
    const outcomes = ended.map((one) => one.status === "fulfilled" ? one.value : "unknown");
    const isAway = outcomes.includes("failed");
    if (isAway) this.#failures = outcomes.every((outcome) => outcome === "failed") ? before + 1 : 1;
    else if (entries.length > 0) this.#failures = 0;
    if (before > 0 && this.#failures === 0) {
      this.#loggedMs = -Infinity;
      this.#options.log.info("webhook works again", { failures: before });
    }
  }

  async #deliver(entry: Entry): Promise<Delivery["outcome"]> {
    const { store, deliver, metrics } = this.#options;
    const delivery = await deliver(entry);
    const { outcome } = delivery;
    metrics.onWebhook(entry.type, outcome);
    if (outcome === "delivered") {
      await store.done(entry.id);
    } else {
      this.#warn(outcome, delivery.reason, entry);
      if (outcome === "refused") await store.putOff(entry.id);
    }
    return outcome;
  }

  #warn(outcome: "failed" | "refused", reason: string, { id, type }: Entry): void {
    const nowMs = performance.now();
    if (nowMs - this.#loggedMs < LOG_AGAIN_MS) return;
    this.#loggedMs = nowMs;
    if (outcome === "failed") this.#options.log.warn("webhook failed", { id, type, reason });
    else this.#options.log.warn("webhook refused", { id, type, reason });
  }
}
