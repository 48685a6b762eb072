/** The broker over Redis: publishing, counting, health and the self-check. How it subscribes is a part of its own. */
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Redis } from "../redis/commands.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { SelfCheck } from "./self_check.ts";
import type { Subscriptions } from "./subscriptions.ts";

const HEALTH_TICK_MS = 5_000;
/** A tick that comes later than that comes in a process that is short of time. */
const MAX_LATE_MS = 500;
/**
 * How long sends are refused after Redis came back, because other nodes take their time to come back too: a send
 * would be answered with too small a number.
 */
const SETTLE_MS = 1_500;
/** How long a subscription may take to give a sign of life after Redis came back; sends are still refused then. */
const LIFE_MS = 1_000;
/** How long at most they are refused while this node itself has not restored all of its subscriptions. */
const MAX_SETTLE_MS = 30_000;

export const NOT_COUNTING =
  "Redis does not count its subscribers, as subscriptions of their own need it to tell who is online";

export class RedisBroker implements Broker {
  readonly kind = "redis";
  readonly counted: "sockets" | "nodes";
  readonly #subscriptions: Subscriptions;
  readonly #redis: Redis;
  readonly #log: Log | undefined;
  readonly #selfCheck: SelfCheck;
  readonly #healthTimer: ReturnType<typeof setInterval>;
  #isCounting = true;
  #nextTickMs = performance.now() + HEALTH_TICK_MS;
  #lifeTimer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  /** @param options Its way of subscribing ends with the broker; the connection for commands is the caller's to close. */
  constructor(options: { subscriptions: Subscriptions; redis: Redis; log?: Log }) {
    const { subscriptions, redis, log } = options;
    this.#subscriptions = subscriptions;
    this.counted = subscriptions.counted;
    this.#redis = redis;
    this.#log = log;
    this.#healthTimer = setInterval(() => this.#tick(), HEALTH_TICK_MS);
    this.#selfCheck = new SelfCheck({
      isIdle: () => !this.#isCounting || this.unavailable() !== undefined,
      counts: (channels) => redis.ownCounts(channels),
      subscriptions,
      onFound: (channels) => {
        const reason = "Redis does not count them where messages are published: they are dialled again";
        log?.warn("subscriptions found on another server", { channels, reason });
      },
      dialAnew: () => redis.dialAnew("Redis does not count our subscriptions"),
    });
    subscriptions.onSubscribed = (channel) => this.#selfCheck.opened(channel);
    // The commands go to another server than before, or to other data: so must all subscriptions.
    redis.onOtherServer(() => {
      for (const connection of subscriptions.connections()) connection.cut();
    });
    redis.availability.onReturn(() => this.#askForLife());
  }

  unavailable(): string | undefined {
    // Sends are refused where their only answer, the number of sockets, would not be true.
    if (!this.#isCounting && this.counted === "sockets") return NOT_COUNTING;
    const reason = this.#unreachable();
    if (reason !== undefined) return reason;
    const { backAtMs } = this.#redis.availability;
    if (backAtMs === -Infinity) return undefined; // it was never away: no need to ask the clock
    const backForMs = performance.now() - backAtMs;
    return backForMs < (this.#subscriptions.lost > 0 ? MAX_SETTLE_MS : SETTLE_MS)
      ? "Redis is back and subscriptions are being restored"
      : undefined;
  }

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    const reason = this.#unreachable();
    if (reason !== undefined) throw new BrokerUnavailableError(reason);
    return await this.#subscriptions.subscribe(channel, subscriber, options.signal);
  }

  publish(channel: string, payload: string, options?: { onlyIfHeard?: boolean }): Promise<number> {
    const reason = this.unavailable();
    return reason === undefined
      ? this.#redis.publish(channel, payload, options)
      : Promise.reject(new BrokerUnavailableError(reason));
  }

  async counts(channels: readonly string[]): Promise<number[]> {
    const reason = this.unavailable();
    if (reason !== undefined) throw new BrokerUnavailableError(reason);
    return await this.#redis.counts(channels);
  }

  learnCount(channel: string, count: number): void {
    this.#selfCheck.counted(channel, count);
  }

  /**
   * It was found out whether this Redis counts its subscribers. Where it does not, nobody can be missing: the self-check
   * would find all of them, again and again.
   */
  onCounted(counts: boolean): void {
    this.#isCounting = counts;
    const reason = "This Redis does not count its subscribers: the numbers of nodes reached are not true";
    if (!counts) this.#log?.warn("redis does not count subscribers", { reason });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#healthTimer);
    clearTimeout(this.#lifeTimer);
    this.#selfCheck.close();
    await this.#subscriptions.close();
  }

  #tick(): void {
    const lateMs = performance.now() - this.#nextTickMs;
    this.#nextTickMs += lateMs + HEALTH_TICK_MS;
    // Who had no time to listen, or whose Redis is known to hang, learns nothing from silence.
    if (lateMs >= MAX_LATE_MS || this.#redis.availability.reason !== undefined) return;
    for (const connection of this.#subscriptions.connections()) connection.checkHealth();
  }

  /**
   * What kept Redis away may have torn subscriptions, too, without a word: Redis goes on counting those, and nothing
   * comes. So all are asked for a sign of life while sends are refused, and those that give none are dialled again.
   */
  #askForLife(): void {
    clearTimeout(this.#lifeTimer);
    for (const connection of this.#subscriptions.connections()) connection.ping();
    const dueMs = performance.now() + LIFE_MS;
    this.#lifeTimer = setTimeout(() => {
      // A process that had no time to listen learns nothing from silence; the next health checks will.
      if (performance.now() - dueMs >= MAX_LATE_MS || this.#redis.availability.reason !== undefined) return;
      for (const connection of this.#subscriptions.connections()) connection.cutIfSilent();
    }, LIFE_MS);
  }

  /** Undefined while Redis can be dialled. */
  #unreachable(): string | undefined {
    return this.#isClosed ? "The broker is closed" : this.#redis.availability.reason;
  }
}
