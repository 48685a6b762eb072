/** What the brokers over Redis have in common: all but how they subscribe. */
import { Deadlines } from "../async/deadlines.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { Redis, RedisAddress } from "../redis/commands.ts";
import { Attempt } from "../async/attempt.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { type OpenOptions, RedisConnection } from "../redis/raw_connection.ts";
import { encodeCommand } from "../redis/resp.ts";
import { type Held, SelfCheck } from "./self_check.ts";

export interface RedisBrokerOptions {
  /** Where subscriptions are dialled; asked anew for each dial. */
  address: () => RedisAddress;
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
/** How long a subscription may take to give a sign of life after Redis came back; sends are still refused then. */
const LIFE_MS = 1_000;
/** How long at most they are refused while this instance itself has not restored all of its subscriptions. */
const MAX_SETTLE_MS = 30_000;
/** How long Redis may take to confirm that nobody listens any more. */
const GOODBYE_MS = 1_000;

export const NOT_COUNTING =
  "Redis does not count its subscribers, as subscriptions of their own need it to tell who is online";

export abstract class RedisBroker implements Broker {
  readonly kind = "redis";
  abstract readonly counted: "sockets" | "nodes";
  readonly goodbyes = new Deadlines(GOODBYE_MS);
  readonly #subscribing: Deadlines;
  readonly #address: () => RedisAddress;
  protected readonly selfCheck: SelfCheck;
  protected readonly redis: Redis;
  protected readonly log: Log | undefined;
  readonly #healthTimer: ReturnType<typeof setInterval>;
  #lost = 0;
  /** How often all subscriptions had to be dialled again. */
  #generation = 0;
  #isCounting = true;
  #nextTickMs = performance.now() + HEALTH_TICK_MS;
  #lifeTimer: ReturnType<typeof setTimeout> | undefined;
  protected isClosed = false;

  constructor(options: RedisBrokerOptions) {
    this.#subscribing = new Deadlines(options.timeoutMs);
    this.#address = options.address;
    this.redis = options.redis;
    this.log = options.log;
    this.#healthTimer = setInterval(() => this.#tick(), HEALTH_TICK_MS);
    this.selfCheck = new SelfCheck({
      isIdle: () => !this.#isCounting || this.unavailable() !== undefined,
      counts: (channels) => this.redis.subscriberCounts(channels),
      channels: () => this.channels(),
      size: () => this.size,
      confirmed: (channel) => this.confirmed(channel),
      onFound: (channels) => {
        const reason = "Redis does not count them where messages are published: they are dialled again";
        this.log?.warn("subscriptions found on another server", { channels, reason });
      },
      dialAnew: () => this.redis.dialAnew("Redis does not count our subscriptions"),
    });
    this.redis.onOtherServer(() => this.#dialAllAgain());
    this.redis.onReturn(() => this.#askForLife());
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

  /**
   * Takes in how many subscriptions the channel has where the commands go, from somebody who has learned it by the way:
   * when ours are not among them, they are on another server.
   */
  learnCount(channel: string, count: number): void {
    this.selfCheck.counted(channel, count);
  }

  /**
   * It was found out whether this Redis counts its subscribers. Where it does not, nobody can be missing: the self-check
   * would find all of them, again and again.
   */
  onCounted(counts: boolean): void {
    this.#isCounting = counts;
    const reason = "This Redis does not count its subscribers: the numbers of instances reached are not true";
    if (!counts) this.log?.warn("redis does not count subscribers", { reason });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearInterval(this.#healthTimer);
    clearTimeout(this.#lifeTimer);
    this.selfCheck.close();
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

  /**
   * What kept Redis away may have torn subscriptions, too, without a word: Redis goes on counting those, and nothing
   * comes. So all are asked for a sign of life while sends are refused, and those that give none are dialled again.
   */
  #askForLife(): void {
    clearTimeout(this.#lifeTimer);
    this.pingAll();
    const dueMs = performance.now() + LIFE_MS;
    this.#lifeTimer = setTimeout(() => {
      // Whoever had no time to listen learns nothing from silence; the next health checks will.
      if (performance.now() - dueMs < MAX_LATE_MS && this.redis.unavailable() === undefined) this.cutSilent();
    }, LIFE_MS);
  }

  /** A connection that is dialled for one trial, and subscribed to the channel. */
  dialProbe(channel: string, attempt: Attempt): Promise<RedisConnection> {
    return this.dialled((address, options) =>
      RedisConnection.open(address, attempt, {
        ...options,
        name: "userwire-probe",
        commands: [encodeCommand("SUBSCRIBE", channel)],
        replies: 1,
      })
    );
  }

  /** Whether a connection was dialled before all had to be dialled again. */
  isOld({ generation }: RedisConnection): boolean {
    return generation !== this.#generation;
  }

  /** Dials, and once more when all had to be dialled again meanwhile. */
  protected async dialled(
    dial: (address: RedisAddress, options: OpenOptions) => Promise<RedisConnection>,
  ): Promise<RedisConnection> {
    for (;;) {
      const generation = this.#generation;
      const connection = await dial(this.#address(), { onLoginRefused: () => this.redis.loginRefused() });
      connection.generation = generation;
      if (generation === this.#generation) return connection;
      connection.close();
    }
  }

  /** The commands go to another server than before, or to other data: so must all subscriptions. */
  #dialAllAgain(): void {
    this.#generation++;
    this.cutSubscriptions();
  }

  /** Channels of our own. */
  protected abstract channels(): IterableIterator<string>;

  /** How many channels of our own there are. */
  protected abstract get size(): number;

  /** The connections that Redis must count for this channel now. */
  protected abstract confirmed(channel: string): readonly Held[];

  /** Ends all connections of subscriptions, which are then dialled again. */
  protected abstract cutSubscriptions(): void;

  /** Called every few seconds. */
  protected abstract checkHealth(): void;

  /** Asks all connections of subscriptions for a sign of life. */
  protected abstract pingAll(): void;

  /** Ends those that have not given it, which are then dialled again. */
  protected abstract cutSilent(): void;

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
