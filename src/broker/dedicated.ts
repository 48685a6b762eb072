/**
 * The broker over Redis in which every subscription has a Redis connection of its own, subscribed to its one
 * channel. So Redis itself knows the truth: the reply of `PUBLISH` is the number of sockets reached and
 * `PUBSUB NUMSUB` is who is online, with no stored state, even after an instance was killed.
 *
 * The price is a connection, two file descriptors and some memory per socket; Redis' `maxclients` is the limit.
 */
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Attempt } from "../async/attempt.ts";
import { ByChannel } from "./by_channel.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { NOT_COUNTING, RedisBroker, refuseIf } from "./redis.ts";
import { RedisConnection } from "../redis/raw_connection.ts";
import { RedisSubscription, type SubscriptionHost } from "./dedicated_subscription.ts";
import { encodeCommand } from "../redis/resp.ts";
import { Room } from "../redis/connection_budget.ts";
import { Slots } from "../async/semaphore.ts";

/** Dials at one time. More would only queue in the kernel and make a Redis that restarts slower to come back. */
const MAX_DIALS = 64;
/** Losses are put together for so long before the log tells of them. */
const TELL_MS = 3_000;

export class DedicatedRedisBroker extends RedisBroker implements SubscriptionHost {
  readonly counted = "sockets";
  readonly #dials = new Slots(MAX_DIALS);
  readonly #room = new Room(() => this.redis.clients());
  readonly #subscriptions = new ByChannel<RedisSubscription>();
  #isBlind = false;
  #losses = 0;
  #tellTimer: ReturnType<typeof setTimeout> | undefined;

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    refuseIf(this.unreachable());
    const subscription = new RedisSubscription(channel, subscriber, this);
    await this.attempt(options.signal, async (attempt) => {
      if (!await this.#room.take(attempt)) {
        throw new BrokerUnavailableError("Redis holds as many connections as it may: raise its maxclients");
      }
      try {
        await subscription.open(attempt);
      } finally {
        this.#room.arrived();
      }
    });
    this.#subscriptions.add(subscription);
    if (this.isClosed) {
      await subscription.close();
      refuseIf(this.unreachable());
    }
    return subscription;
  }

  dial(channel: string, attempt: Attempt): Promise<RedisConnection> {
    return this.dialled((address, options) =>
      RedisConnection.open(address, attempt, {
        ...options,
        commands: [encodeCommand("SUBSCRIBE", channel)],
        replies: 1,
        slots: this.#dials,
      })
    );
  }

  override onLost(count: number): void {
    super.onLost(count);
    this.#room.expect(count);
    if (count < 0 || this.isClosed) return;
    this.#losses += count;
    this.#tellTimer ??= setTimeout(() => this.#tellLosses(), TELL_MS);
  }

  override onCounted(counts: boolean): void {
    super.onCounted(counts);
    this.#isBlind = !counts;
  }

  /** Sends are refused where their only answer, the number of sockets, would not be true. */
  override unavailable(): string | undefined {
    return this.#isBlind ? NOT_COUNTING : super.unavailable();
  }

  onConnected({ channel }: RedisSubscription): void {
    this.selfCheck.opened(channel);
  }

  onClosed(subscription: RedisSubscription): void {
    this.#subscriptions.delete(subscription);
  }

  protected channels(): IterableIterator<string> {
    return this.#subscriptions.channels();
  }

  protected get size(): number {
    return this.#subscriptions.size;
  }

  protected confirmed(channel: string): RedisConnection[] {
    return this.#subscriptions.of(channel).flatMap(({ confirmed }) => confirmed ?? []);
  }

  protected cutSubscriptions(): void {
    for (const subscription of this.#subscriptions) subscription.cut();
  }

  #tellLosses(): void {
    this.#tellTimer = undefined;
    this.log?.warn("subscriptions lost", { count: this.#losses, reason: "They are being restored" });
    this.#losses = 0;
  }

  protected checkHealth(): void {
    for (const subscription of this.#subscriptions) subscription.checkHealth();
  }

  protected pingAll(): void {
    for (const subscription of this.#subscriptions) subscription.ping();
  }

  protected cutSilent(): void {
    for (const subscription of this.#subscriptions) subscription.cutIfSilent();
  }

  protected closeSubscriptions(): Promise<unknown> {
    clearTimeout(this.#tellTimer);
    return Promise.all([...this.#subscriptions].map((subscription) => subscription.close()));
  }
}
