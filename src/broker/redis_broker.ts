/** What the brokers over Redis have in common: all but how they subscribe. */
import { Deadlines } from "../deadlines.ts";
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Redis } from "../redis.ts";
import { Attempt } from "./attempt.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import type { RedisAddress } from "./redis_address.ts";

export interface RedisBrokerOptions {
  address: RedisAddress;
  /** The connection for commands; it stays the caller's to close. */
  redis: Redis;
  /** How long a subscription may take to be confirmed, in milliseconds. */
  timeoutMs: number;
  log?: Log;
}

const HEALTH_TICK_MS = 5_000;
/** A tick that comes later than that comes in a process that is short of time. */
const MAX_LATE_MS = 500;
/**
 * How long sends are refused after Redis came back, because other instances take their time to come back too: a send
 * would be answered with too small a number.
 */
const SETTLE_MS = 1_500;
/** How long at most they are refused while this instance itself has not restored all of its subscriptions. */
const MAX_SETTLE_MS = 5_000;
/** How long Redis may take to confirm that nobody listens any more. */
const GOODBYE_MS = 1_000;

export abstract class RedisBroker implements Broker {
  readonly kind = "redis";
  abstract readonly counted: "sockets" | "nodes";
  readonly goodbyes = new Deadlines(GOODBYE_MS);
  readonly #subscribing: Deadlines;
  protected readonly address: RedisAddress;
  protected readonly redis: Redis;
  protected readonly log: Log | undefined;
  readonly #healthTimer: ReturnType<typeof setInterval>;
  #lost = 0;
  #nextTickMs = performance.now() + HEALTH_TICK_MS;
  protected isClosed = false;

  constructor(options: RedisBrokerOptions) {
    this.#subscribing = new Deadlines(options.timeoutMs);
    this.address = options.address;
    this.redis = options.redis;
    this.log = options.log;
    this.#healthTimer = setInterval(() => this.#tick(), HEALTH_TICK_MS);
  }

  unavailable(): string | undefined {
    const why = this.unreachable();
    if (why !== undefined) return why;
    if (this.redis.backAtMs === -Infinity) return undefined; // it was never away: no need to ask the clock
    const backForMs = performance.now() - this.redis.backAtMs;
    return backForMs < (this.#lost > 0 ? MAX_SETTLE_MS : SETTLE_MS)
      ? "Redis is back and subscriptions are being restored"
      : undefined;
  }

  abstract subscribe(
    channel: string,
    subscriber: Subscriber,
    options?: { signal?: AbortSignal },
  ): Promise<Subscription>;

  publish(channel: string, payload: string, options?: { onlyIfHeard?: boolean }): Promise<number> {
    const why = this.unavailable();
    return why === undefined
      ? this.redis.publish(channel, payload, options)
      : Promise.reject(new BrokerUnavailableError(why));
  }

  async counts(channels: readonly string[]): Promise<number[]> {
    refuseIf(this.unavailable());
    return await this.redis.subscriberCounts(channels);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearInterval(this.#healthTimer);
    await this.closeSubscriptions();
    this.#subscribing.close();
    this.goodbyes.close();
  }

  /**
   * Does what gets a subscription confirmed, within the time there is for that.
   * @throws {BrokerUnavailableError}
   * @throws the signal's reason.
   */
  async attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const { limitMs } = this.#subscribing;
    const late = () =>
      new BrokerUnavailableError(`Redis did not confirm a subscription within ${limitMs} ms`);
    const attempt = new Attempt(this.#subscribing, { late, signal });
    try {
      return await work(attempt);
    } catch (error) {
      if (error instanceof BrokerUnavailableError) {
        this.redis.complain("subscription failed", error.message, error.cause);
      }
      throw error;
    } finally {
      attempt.end();
    }
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
    this.log?.error("subscriber failed", { channel, reason: messageOf(error) });
  }

  #tick(): void {
    const lateMs = performance.now() - this.#nextTickMs;
    this.#nextTickMs += lateMs + HEALTH_TICK_MS;
    // Who had no time to listen, or whose Redis is known to hang, learns nothing from silence.
    if (lateMs < MAX_LATE_MS && this.redis.unavailable() === undefined) this.checkHealth();
  }

  /** Called every few seconds. */
  protected abstract checkHealth(): void;

  protected abstract closeSubscriptions(): Promise<unknown>;

  /** Undefined while Redis can be dialled. */
  protected unreachable(): string | undefined {
    return this.isClosed ? "The broker is closed" : this.redis.unavailable();
  }
}

/** @throws {BrokerUnavailableError} when there is a reason. */
export function refuseIf(why: string | undefined): void {
  if (why !== undefined) throw new BrokerUnavailableError(why);
}
