/**
 * The broker over Redis in which every subscription has a Redis connection of its own, subscribed to its one
 * channel. So Redis itself knows the truth: the reply of `PUBLISH` is the number of sockets reached and
 * `PUBSUB NUMSUB` is who is online, with no stored state, even after an instance was killed.
 *
 * The price is a connection, two file descriptors and some memory per socket; Redis' `maxclients` is the limit.
 */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Redis, RedisTls } from "../redis.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { parseRedisUrl, type RedisAddress } from "./redis_address.ts";
import { RedisSubscription } from "./redis_subscription.ts";
import { Slots } from "./slots.ts";

/** Dials at one time. More would only queue in the kernel and make a Redis that restarts slower to come back. */
const MAX_DIALS = 64;
const HEALTH_TICK_MS = 5_000;
/** How long sends are refused after Redis came back, while this instance's subscriptions are not all restored. */
const SETTLE_MS = 5_000;

export interface DedicatedRedisBrokerOptions {
  url: string;
  tls?: RedisTls;
  /** The connection for commands; it stays the caller's to close. */
  redis: Redis;
  /** How long a subscription may take to be confirmed, in milliseconds. */
  timeoutMs: number;
  log?: Log;
}

export class DedicatedRedisBroker implements Broker {
  readonly kind = "redis";
  readonly #address: RedisAddress;
  readonly #redis: Redis;
  readonly #timeoutMs: number;
  readonly #log: Log | undefined;
  readonly #dials = new Slots(MAX_DIALS);
  readonly #subscriptions = new Set<RedisSubscription>();
  readonly #healthTimer: ReturnType<typeof setInterval>;
  #lost = 0;
  #connectsSeen = 0;
  #settledAtMs = 0;
  #closed = false;

  constructor(options: DedicatedRedisBrokerOptions) {
    this.#address = { ...parseRedisUrl(options.url), tls: options.tls };
    this.#redis = options.redis;
    this.#timeoutMs = options.timeoutMs;
    this.#log = options.log;
    this.#healthTimer = setInterval(() => {
      for (const subscription of this.#subscriptions) subscription.checkHealth();
    }, HEALTH_TICK_MS);
  }

  unavailable(): string | undefined {
    if (this.#closed) return "The broker is closed";
    const why = this.#redis.unavailable();
    if (why !== undefined) return why;
    // Redis may be back without having all our subscriptions: a send would be answered with too small a number.
    if (this.#redis.connects !== this.#connectsSeen) {
      if (this.#connectsSeen > 0) this.#settledAtMs = performance.now() + SETTLE_MS;
      this.#connectsSeen = this.#redis.connects;
    }
    if (this.#lost > 0 && performance.now() < this.#settledAtMs) {
      return "Redis is back and subscriptions are being restored";
    }
    return undefined;
  }

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    this.#assertAvailable();
    const subscription = new RedisSubscription(channel, subscriber, {
      dial: (channel, signal) => this.#dial(channel, signal),
      whenReady: () => this.#redis.whenReady(),
      onLost: () => this.#lost++,
      onFound: () => this.#lost--,
      onClosed: (subscription) => this.#subscriptions.delete(subscription),
      onSubscriberError: (error) =>
        this.#log?.error("subscriber failed", { channel, reason: messageOf(error) }),
    });
    await subscription.open(options.signal);
    this.#subscriptions.add(subscription);
    if (this.#closed) {
      await subscription.close();
      this.#assertAvailable();
    }
    return subscription;
  }

  async publish(channel: string, payload: string): Promise<number> {
    this.#assertAvailable();
    return await this.#redis.publish(channel, payload);
  }

  async counts(channels: readonly string[]): Promise<number[]> {
    this.#assertAvailable();
    return await this.#redis.subscriberCounts(channels);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#healthTimer);
    await Promise.all([...this.#subscriptions].map((subscription) => subscription.close()));
  }

  #assertAvailable(): void {
    const why = this.unavailable();
    if (why !== undefined) throw new BrokerUnavailableError(why);
  }

  #dial(channel: string, signal: AbortSignal | undefined) {
    return this.#dials.run(() =>
      RedisSubscription.dial(this.#address, {
        channel,
        timeoutMs: this.#timeoutMs,
        ...(signal && { signal }),
      })
    );
  }
}
