/**
 * A broker over several: each channel belongs to one of them, and may come to belong to another. Then its subscriptions
 * go there, and what is sent to it is refused until they are back, also those of other nodes.
 */
import { inSlices } from "../async/slices.ts";
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import { isElsewhere, slotOf } from "../redis/commands.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { MovingSubscription } from "./moving_subscription.ts";

/** Which broker a channel belongs to. */
export interface Routes {
  /** @throws {BrokerUnavailableError} when that is not known. */
  of(channel: string): Broker;
  all(): readonly Broker[];
  /** Why there is none; undefined when there is one. */
  reason(): string | undefined;
  /** Whether a channel may come to belong to another one. */
  readonly canMove: boolean;
  /** Finds out anew who keeps what. Resolves when that is known as well as it can be. */
  look(): Promise<void>;
}

/** How long sends to a channel that has moved are refused: other nodes see it up to a second later. */
const SETTLE_MS = 1_500;
/** How long at most, while subscriptions of this node are on their way. */
const MAX_SETTLE_MS = 30_000;

export class RoutedBroker implements Broker {
  readonly kind = "redis";
  readonly counted: "sockets" | "nodes";
  readonly #routes: Routes;
  readonly #log: Log | undefined;
  readonly #subscriptions = new Set<MovingSubscription>();
  /** Slots that have moved, and when. */
  readonly #moved = new Map<number, number>();
  /** Slots whose subscriptions are just being told to move. */
  readonly #telling = new Set<ReadonlySet<number>>();
  /** How many subscriptions of each slot are on their way. */
  readonly #onTheirWay = new Map<number, number>();
  readonly #closing = new AbortController();

  /** @param log Has what subscribers throw. */
  constructor(counted: "sockets" | "nodes", routes: Routes, log?: Log) {
    this.counted = counted;
    this.#routes = routes;
    this.#log = log;
  }

  unavailable(channel?: string): string | undefined {
    if (channel !== undefined) {
      try {
        return this.#routes.of(channel).unavailable() ?? this.#settling(channel);
      } catch (error) {
        return messageOf(error);
      }
    }
    let reason = this.#routes.reason();
    for (const broker of this.#routes.all()) {
      const its = broker.unavailable();
      if (its === undefined) return undefined;
      reason ??= its;
    }
    return reason;
  }

  subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    if (this.#routes.canMove) return this.#subscribeMoving(channel, subscriber, options.signal);
    try {
      return this.#routes.of(channel).subscribe(channel, subscriber, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #subscribeMoving(
    channel: string,
    subscriber: Subscriber,
    signal: AbortSignal | undefined,
  ): Promise<Subscription> {
    const subscription = new MovingSubscription(channel, subscriber, {
      of: () => this.#routes.of(channel),
      look: () => this.#routes.look(),
      onMoving: (count) => this.#onMoving(subscription.slot, count),
      onClosed: () => this.#subscriptions.delete(subscription),
      log: this.#log,
    });
    // Before it is there: it may have to move already.
    this.#subscriptions.add(subscription);
    try {
      await subscription.open(signal);
    } catch (error) {
      this.#subscriptions.delete(subscription);
      throw error;
    }
    return subscription;
  }

  publish(channel: string, payload: string, options?: { onlyIfHeard?: boolean }): Promise<number> {
    const reason = this.unavailable(channel);
    if (reason !== undefined) return Promise.reject(new BrokerUnavailableError(reason));
    return this.#routes.of(channel).publish(channel, payload, options);
  }

  async counts(channels: readonly string[]): Promise<number[]> {
    try {
      return await this.#counts(channels);
    } catch (error) {
      if (!isMisrouted(error)) throw error;
      await this.#routes.look();
      return await this.#counts(channels);
    }
  }

  /** These slots are kept elsewhere now. */
  moved(slots: ReadonlySet<number>): void {
    const nowMs = performance.now();
    for (const [slot, sinceMs] of this.#moved) if (nowMs - sinceMs > MAX_SETTLE_MS) this.#moved.delete(slot);
    for (const slot of slots) this.#moved.set(slot, nowMs);
    this.#telling.add(slots);
    const tell = (subscription: MovingSubscription) => {
      if (slots.has(subscription.slot)) subscription.move();
    };
    void inSlices(this.#subscriptions, tell, this.#closing.signal).finally(() => this.#telling.delete(slots));
  }

  async close(): Promise<void> {
    this.#closing.abort();
    // From then on nothing that is under way is delivered any more.
    const closings = this.#routes.all().map((broker) => broker.close());
    await inSlices([...this.#subscriptions], (subscription) => void closings.push(subscription.close()));
    await Promise.all(closings);
  }

  async #counts(channels: readonly string[]): Promise<number[]> {
    const portions = new Map<Broker, { channels: string[]; places: number[] }>();
    for (const [i, channel] of channels.entries()) {
      const settling = this.#settling(channel);
      if (settling !== undefined) throw new BrokerUnavailableError(settling);
      const broker = this.#routes.of(channel);
      let portion = portions.get(broker);
      if (!portion) portions.set(broker, portion = { channels: [], places: [] });
      portion.channels.push(channel);
      portion.places.push(i);
    }
    const counts = new Array<number>(channels.length);
    await Promise.all([...portions].map(async ([broker, { channels, places }]) => {
      for (const [i, count] of (await broker.counts(channels)).entries()) counts[places[i]!] = count;
    }));
    return counts;
  }

  #onMoving(slot: number, count: 1 | -1): void {
    const moving = (this.#onTheirWay.get(slot) ?? 0) + count;
    if (moving > 0) this.#onTheirWay.set(slot, moving);
    else this.#onTheirWay.delete(slot);
  }

  #settling(channel: string): string | undefined {
    if (this.#moved.size === 0) return undefined;
    const slot = slotOf(channel);
    const sinceMs = this.#moved.get(slot);
    if (sinceMs === undefined) return undefined;
    const forMs = performance.now() - sinceMs;
    const isOnItsWay = this.#onTheirWay.has(slot) || this.#telling.values().some((slots) => slots.has(slot));
    if (forMs < SETTLE_MS || forMs < MAX_SETTLE_MS && isOnItsWay) {
      return "Redis keeps this user's data on another master than before, and subscriptions follow it";
    }
    this.#moved.delete(slot);
    return undefined;
  }
}

/** Whether it failed because somebody else keeps the channel. */
export function isMisrouted(error: unknown): boolean {
  return error instanceof BrokerUnavailableError && isElsewhere(error.cause);
}
