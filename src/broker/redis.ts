/** The broker over Redis: publishing, counting, health and the self-check. How it subscribes is a part of its own. */
import { inSlices } from "../async/slices.ts";
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { PubSubConnection } from "../redis/pubsub_connection.ts";
import type { Redis } from "../redis/commands.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { SelfCheck } from "./self_check.ts";
import type { Subscriptions } from "./subscriptions.ts";

/** Who looks for a sign of life later than that is short of time. */
const MAX_LATE_MS = 500;
/**
 * How long sends are refused after Redis came back, because other nodes take their time to come back too: a send
 * would be answered with too small a number.
 */
const SETTLE_MS = 1_500;
/**
 * So often is looked for signs of life after Redis came back; sends are refused meanwhile. Who has given none is dialled
 * again when nobody else has given one since the look before.
 */
const LIFE_MS = 500;
/** How long at most they are refused while this node itself has not restored all of its subscriptions. */
const MAX_SETTLE_MS = 30_000;

const RESTORING = "Redis is back and subscriptions are being restored";

export const NOT_COUNTING =
  "Redis does not count its subscribers, as subscriptions of their own need it to tell who is online";

export class RedisBroker implements Broker {
  readonly kind = "redis";
  readonly counted: "sockets" | "nodes";
  readonly #subscriptions: Subscriptions;
  readonly #redis: Redis;
  readonly #log: Log | undefined;
  readonly #selfCheck: SelfCheck;
  #isCounting = true;
  /** Ends what is being done for every subscription. */
  readonly #closing = new AbortController();
  /** How often something is just being done for every subscription that must be over before sends are accepted. */
  #passes = 0;
  /** When all were asked for a sign of life the last time. */
  #askedAtMs = -Infinity;
  #asking: AbortController | undefined;
  /** Subscriptions that had given no sign of life when it was looked for the last time. */
  #silent = 0;
  #lifeTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param options Its way of subscribing ends with the broker; the connection for commands is the caller's to close. */
  constructor(options: { subscriptions: Subscriptions; redis: Redis; log?: Log }) {
    const { subscriptions, redis, log } = options;
    this.#subscriptions = subscriptions;
    this.counted = subscriptions.counted;
    this.#redis = redis;
    this.#log = log;
    subscriptions.connections.start((connection, isLate) => {
      // Who had no time to listen, or whose Redis is known to hang, learns nothing from silence.
      if (!isLate && redis.availability.reason === undefined) connection.checkHealth();
    });
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
    redis.onOtherServer(() => void this.#pass((connection) => connection.cutIfOld()));
    redis.availability.onReturn(() => void this.#askForLife());
  }

  unavailable(): string | undefined {
    // Sends are refused where their only answer, the number of sockets, would not be true.
    if (!this.#isCounting && this.counted === "sockets") return NOT_COUNTING;
    const reason = this.#unreachable();
    if (reason !== undefined) return reason;
    if (this.#passes > 0) return RESTORING;
    const { backAtMs } = this.#redis.availability;
    if (backAtMs === -Infinity) return undefined; // it was never away: no need to ask the clock
    const nowMs = performance.now();
    const isSettling = nowMs - Math.max(backAtMs, this.#askedAtMs) < SETTLE_MS;
    return isSettling || this.#silent + this.#subscriptions.lost > 0 && nowMs - backAtMs < MAX_SETTLE_MS
      ? RESTORING
      : undefined;
  }

  subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    const reason = this.#unreachable();
    return reason === undefined
      ? this.#subscriptions.subscribe(channel, subscriber, options.signal)
      : Promise.reject(new BrokerUnavailableError(reason));
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

  /** New subscriptions work again: those that were refused had better not wait for their next health check. */
  onWorking(): void {
    this.#subscriptions.askAgain();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#subscriptions.connections.stop();
    clearTimeout(this.#lifeTimer);
    this.#selfCheck.close();
    await this.#subscriptions.close();
  }

  /**
   * What kept Redis away may have torn subscriptions, too, without a word: Redis goes on counting those, and nothing
   * comes. So all are asked for a sign of life while sends are refused, and those that give none are dialled again.
   */
  async #askForLife(): Promise<void> {
    clearTimeout(this.#lifeTimer);
    this.#asking?.abort();
    this.#asking = new AbortController();
    const stop = AbortSignal.any([this.#asking.signal, this.#closing.signal]);
    await this.#pass((connection) => connection.ping(), stop);
    if (stop.aborted) return;
    // The last of them has its time from now on.
    this.#askedAtMs = performance.now();
    this.#awaitLife(Infinity, stop);
  }

  /** @param before How many had given no sign of life at the look before. */
  #awaitLife(before: number, stop: AbortSignal): void {
    const dueMs = performance.now() + LIFE_MS;
    this.#lifeTimer = setTimeout(async () => {
      const isLate = performance.now() - dueMs >= MAX_LATE_MS;
      const silent: PubSubConnection[] = [];
      await this.#pass((connection) => void (connection.isSilent && silent.push(connection)), stop);
      if (stop.aborted) return;
      this.#silent = silent.length;
      if (silent.length === 0 || this.#redis.availability.reason !== undefined) return;
      // A process that had no time to listen, or still comes to hear more of them, learns nothing from silence.
      const isHearing = silent.length < before;
      if (!isLate && !isHearing) await this.#cutSilent(silent, stop);
      if (!stop.aborted) this.#awaitLife(isLate ? Infinity : silent.length, stop);
    }, LIFE_MS);
  }

  async #cutSilent(connections: readonly PubSubConnection[], stop: AbortSignal): Promise<void> {
    await inSlices(connections, (connection) => {
      if (connection.isSilent) connection.cut();
    }, stop);
  }

  /** Does something for every connection that must have been done before sends are accepted. */
  async #pass(
    work: (connection: PubSubConnection) => void,
    stop: AbortSignal = this.#closing.signal,
  ): Promise<void> {
    this.#passes++;
    await inSlices(this.#subscriptions.connections, work, stop);
    this.#passes--;
  }

  /** Undefined while Redis can be dialled. */
  #unreachable(): string | undefined {
    return this.#closing.signal.aborted ? "The broker is closed" : this.#redis.availability.reason;
  }
}
