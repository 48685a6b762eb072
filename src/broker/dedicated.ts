/**
 * The way of subscribing in which every subscription has a Redis connection of its own, subscribed to its one channel.
 * So Redis itself knows the truth: the reply of `PUBLISH` is the number of sockets reached and `PUBSUB NUMSUB` is who
 * is online, with no stored state, even after a node was killed.
 *
 * The price is a connection, two file descriptors and some memory per socket; Redis' `maxclients` is the limit.
 */
import type { Attempt } from "../async/attempt.ts";
import { Semaphore } from "../async/semaphore.ts";
import { inSlices } from "../async/slices.ts";
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { Redis } from "../redis/commands.ts";
import { ConnectionBudget } from "../redis/connection_budget.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { ByChannel } from "./by_channel.ts";
import { type DedicatedContext, DedicatedSubscription } from "./dedicated_subscription.ts";
import type { Dialler } from "./dialler.ts";
import { healthRounds, type Subscriptions } from "./subscriptions.ts";

/** Dials at one time. More would only queue in the kernel and make a Redis that restarts slower to come back. */
const MAX_DIALS = 64;
/** As `CLIENT LIST` shows the connections for channels of the service itself. */
const OWN_NAME = "userwire-node";
/** Losses are put together for so long before the log tells of them. */
const TELL_MS = 3_000;

export class DedicatedSubscriptions implements Subscriptions, DedicatedContext {
  readonly counted = "sockets";
  lost = 0;
  onSubscribed: (channel: string) => void = () => {};
  readonly #dialler: Dialler;
  readonly log: Log | undefined;
  readonly #budget: ConnectionBudget;
  readonly #dials = new Semaphore(MAX_DIALS);
  readonly connections = healthRounds();
  readonly #all = new ByChannel<DedicatedSubscription>();
  isClosed = false;
  #losses = 0;
  #tellTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param options What of it can be closed stays the caller's to close, when the subscriptions are closed. */
  constructor(options: { dialler: Dialler; redis: Pick<Redis, "clients">; log?: Log }) {
    const { dialler, redis, log } = options;
    this.#dialler = dialler;
    this.log = log;
    this.#budget = new ConnectionBudget(() => redis.clients());
  }

  get size(): number {
    return this.#all.size;
  }

  channels(): IterableIterator<string> {
    return this.#all.channels();
  }

  confirmed(channel: string): RedisConnection[] {
    return this.#all.of(channel).flatMap(({ current }) => current ?? []);
  }

  /** Each asks for its own, all the time. */
  askAgain(): void {}

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    signal: AbortSignal | undefined,
  ): Promise<Subscription> {
    const subscription = new DedicatedSubscription(channel, subscriber, this.#dialler, this);
    await this.#dialler.attempt(signal, async (attempt) => {
      if (!await this.#budget.take(attempt)) {
        throw new BrokerUnavailableError("Redis holds as many connections as it may: raise its maxclients");
      }
      try {
        await subscription.open(attempt);
      } finally {
        this.#budget.arrived();
      }
    });
    this.#all.add(subscription);
    this.connections.add(subscription);
    if (this.isClosed) {
      await subscription.close();
      throw new BrokerUnavailableError("The broker is closed");
    }
    return subscription;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.#tellTimer);
    const closings: Promise<void>[] = [];
    await inSlices([...this.#all], (subscription) => void closings.push(subscription.close()));
    await Promise.all(closings);
  }

  dial(channel: string, attempt: Attempt): Promise<RedisConnection> {
    const options = { semaphore: this.#dials };
    // So that whoever looks at Redis can tell what belongs to a node from what belongs to a socket.
    const isOwn = channel.includes(RESERVED_PREFIX);
    return this.#dialler.dialSubscribed(channel, attempt, isOwn ? { ...options, name: OWN_NAME } : options);
  }

  onLost(count: number): void {
    this.lost += count;
    this.#budget.expect(count);
    if (count < 0 || this.isClosed) return;
    this.#losses += count;
    this.#tellTimer ??= setTimeout(() => {
      this.#tellTimer = undefined;
      this.log?.warn("subscriptions lost", { count: this.#losses, reason: "They are being restored" });
      this.#losses = 0;
    }, TELL_MS);
  }

  onClosed(subscription: DedicatedSubscription): void {
    this.#all.delete(subscription);
    this.connections.delete(subscription);
  }
}
