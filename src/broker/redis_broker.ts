/** What the brokers over Redis have in common: all but how they subscribe. */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Redis } from "../redis.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { parseRedisUrl, type RedisAddress } from "./redis_address.ts";

export interface RedisBrokerOptions {
  url: string;
  /** The connection for commands; it stays the caller's to close. */
  redis: Redis;
  /** How long a subscription may take to be confirmed, in milliseconds. */
  timeoutMs: number;
  log?: Log;
}

const HEALTH_TICK_MS = 5_000;
/** How long sends are refused after Redis came back, while subscriptions are not all restored. */
const SETTLE_MS = 5_000;

export abstract class RedisBroker implements Broker {
  readonly kind = "redis";
  abstract readonly counted: "sockets" | "nodes";
  readonly timeoutMs: number;
  protected readonly address: RedisAddress;
  protected readonly redis: Redis;
  readonly #log: Log | undefined;
  readonly #healthTimer: ReturnType<typeof setInterval>;
  #lost = 0;
  #connectsSeen = 0;
  #settledAtMs = 0;
  protected isClosed = false;

  constructor(options: RedisBrokerOptions) {
    this.timeoutMs = options.timeoutMs;
    this.address = parseRedisUrl(options.url);
    this.redis = options.redis;
    this.#log = options.log;
    this.#healthTimer = setInterval(() => this.checkHealth(), HEALTH_TICK_MS);
  }

  unavailable(): string | undefined {
    if (this.isClosed) return "The broker is closed";
    const why = this.redis.unavailable();
    if (why !== undefined) return why;
    // Redis may be back without having this instance's subscriptions yet: a send would reach too few, and say so
    // truthfully, and be of no help.
    if (this.redis.connects !== this.#connectsSeen) {
      if (this.#connectsSeen > 0) this.#settledAtMs = performance.now() + SETTLE_MS;
      this.#connectsSeen = this.redis.connects;
    }
    if (this.#lost > 0 && performance.now() < this.#settledAtMs) {
      return "Redis is back and subscriptions are being restored";
    }
    return undefined;
  }

  abstract subscribe(
    channel: string,
    subscriber: Subscriber,
    options?: { signal?: AbortSignal },
  ): Promise<Subscription>;

  async publish(channel: string, payload: string): Promise<number> {
    this.assertAvailable();
    return await this.redis.publish(channel, payload);
  }

  async counts(channels: readonly string[]): Promise<number[]> {
    this.assertAvailable();
    return await this.redis.subscriberCounts(channels);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearInterval(this.#healthTimer);
    await this.closeSubscriptions();
  }

  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void> {
    return this.redis.whenReady();
  }

  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void {
    this.#lost += count;
  }

  onSubscriberError(channel: string, error: unknown): void {
    this.#log?.error("subscriber failed", { channel, reason: messageOf(error) });
  }

  /** Called every few seconds. */
  protected abstract checkHealth(): void;

  protected abstract closeSubscriptions(): Promise<unknown>;

  protected assertAvailable(): void {
    const why = this.unavailable();
    if (why !== undefined) throw new BrokerUnavailableError(why);
  }
}
