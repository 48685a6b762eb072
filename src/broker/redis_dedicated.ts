/**
 * The broker over Redis in which every subscription has a Redis connection of its own, subscribed to its one
 * channel. So Redis itself knows the truth: the reply of `PUBLISH` is the number of sockets reached and
 * `PUBSUB NUMSUB` is who is online, with no stored state, even after an instance was killed.
 *
 * The price is a connection, two file descriptors and some memory per socket; Redis' `maxclients` is the limit.
 */
import { BrokerUnavailableError } from "../errors.ts";
import type { Attempt } from "./attempt.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { RedisBroker, refuseIf } from "./redis_broker.ts";
import { RedisConnection } from "./redis_connection.ts";
import { RedisSubscription, type SubscriptionHost } from "./redis_subscription.ts";
import { encodeCommand } from "./resp.ts";
import { Room } from "./room.ts";
import { Slots } from "./slots.ts";

/** Dials at one time. More would only queue in the kernel and make a Redis that restarts slower to come back. */
const MAX_DIALS = 64;

export class DedicatedRedisBroker extends RedisBroker implements SubscriptionHost {
  readonly counted = "sockets";
  readonly #dials = new Slots(MAX_DIALS);
  readonly #room = new Room(() => this.redis.clients());
  readonly #subscriptions = new Set<RedisSubscription>();

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
    return RedisConnection.open(this.address, attempt, {
      commands: [encodeCommand("SUBSCRIBE", channel)],
      replies: 1,
      slots: this.#dials,
    });
  }

  override onLost(count: number): void {
    super.onLost(count);
    this.#room.expect(count);
  }

  onClosed(subscription: RedisSubscription): void {
    this.#subscriptions.delete(subscription);
  }

  protected checkHealth(): void {
    for (const subscription of this.#subscriptions) subscription.checkHealth();
  }

  protected closeSubscriptions(): Promise<unknown> {
    return Promise.all([...this.#subscriptions].map((subscription) => subscription.close()));
  }
}
