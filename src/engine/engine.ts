/**
 * The engine joins the nodes: a broker and a history, both in memory or both on one Redis. It picks and wires them by
 * settings, and is the only room that knows which implementations there are; what they do it leaves to them.
 */
import type { Broker } from "../broker/broker.ts";
import { MemoryBroker } from "../broker/memory.ts";
import { DedicatedSubscriptions } from "../broker/dedicated.ts";
import { Dialler } from "../broker/dialler.ts";
import { Probe } from "../broker/probe.ts";
import { NOT_COUNTING, RedisBroker } from "../broker/redis.ts";
import { SharedSubscriptions } from "../broker/shared.ts";
import type { History, HistoryLimits } from "../history/history.ts";
import { MemoryHistory } from "../history/memory.ts";
import { RedisStreamsHistory } from "../history/redis_streams.ts";
import type { Log } from "../log/log.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { RedisTls } from "../redis/address.ts";
import { type FirstAttempt, Redis } from "../redis/commands.ts";
import { Sentinel } from "../redis/sentinel.ts";
import { Standalone } from "../redis/standalone.ts";
import { UrlSource } from "../redis/url_source.ts";

export interface EngineOptions {
  /** Unset, and no file either: in memory. */
  redisUrl?: string | undefined;
  /** Absolute path of a file that holds the URL, which may change. */
  redisUrlFile?: string | undefined;
  /** Of the Sentinels that the URL names, where they want one. */
  redisSentinelPassword?: string | undefined;
  /** For `rediss://` only. */
  redisTls?: RedisTls | undefined;
  /** How long a command or a subscription may take, in milliseconds. @default 3000 */
  redisTimeoutMs?: number;
  /** One Redis connection per socket, or some per process. @default "dedicated" */
  subscriptions?: "dedicated" | "shared";
  /** How many per process, when shared. @default 1 */
  sharedConnections?: number;
  /** Messages kept of each user; 0 keeps none. @default 100 */
  history?: number;
  /** How long they are kept, in seconds. @default 300 */
  historyTtlS?: number;
  /** What the names of channels begin with. @default "" */
  channelPrefix?: string;
  /** Try all the time whether what a service needs can be had, for `unready`. @default false */
  probe?: boolean;
  log?: Log;
}

export interface Engine {
  readonly broker: Broker;
  readonly history: History;
  /** The connection for commands; none in memory. */
  readonly redis: Redis | undefined;
  /** How the first attempt to connect ends, waiting for it at most so long, in milliseconds. */
  firstAttempt(withinMs: number): Promise<FirstAttempt>;
  /**
   * Undefined when everything works as far as it was tried; else what does not, as a sentence without a full stop. It
   * says something whenever `broker.unavailable` does, and more: `broker/probe.ts` says what the difference is.
   */
  unready(): string | undefined;
  /**
   * Reads the file with the URL again.
   * @throws {ConfigError} when it holds none; the one before stays.
   */
  reload(): void;
  close(): Promise<void>;
}

/**
 * Opens at once; a Redis that is away is connected to as soon as it is there.
 * @throws {TypeError} when the URL is none of Redis.
 */
export function openEngine(options: EngineOptions): Engine {
  const { history: count = 100, historyTtlS = 300 } = options;
  const limits: HistoryLimits = { count, ttlMs: historyTtlS * 1_000 };
  const isInMemory = options.redisUrl === undefined && options.redisUrlFile === undefined;
  return isInMemory ? openInMemory(options, limits) : openOnRedis(options, limits);
}

function openInMemory(options: EngineOptions, limits: HistoryLimits): Engine {
  const broker = new MemoryBroker(options.log && { log: options.log });
  const history = new MemoryHistory(broker, { limits });
  return {
    broker,
    history,
    redis: undefined,
    firstAttempt: () => Promise.resolve({ outcome: "ready" }),
    unready: () => broker.unavailable(),
    reload() {},
    close: () => broker.close(),
  };
}

function openOnRedis(options: EngineOptions, limits: HistoryLimits): Engine {
  const { redisUrl: url, redisUrlFile: file, redisTls: tls, channelPrefix = "" } = options;
  const { redisTimeoutMs: timeoutMs = 3_000 } = options;
  const log = options.log && { log: options.log };
  const source = new UrlSource({ url, file, tls, channelPrefix, ...log });
  const topology = source.url.sentinel
    ? new Sentinel(source, { password: options.redisSentinelPassword, ...log })
    : new Standalone(source);
  const redis = Redis.open(topology, { timeoutMs, ...log });
  const isShared = options.subscriptions === "shared";
  const dialler = new Dialler({ topology, redis, timeoutMs });
  const subscriptions = isShared
    ? new SharedSubscriptions({ dialler, redis, ...log, connections: options.sharedConnections ?? 1 })
    : new DedicatedSubscriptions({ dialler, redis, ...log });
  const broker = new RedisBroker({ subscriptions, redis, ...log });
  const history = new RedisStreamsHistory(redis, {
    limits,
    onCount: (channel, count) => broker.learnCount(channel, count),
  });
  const channel = `${channelPrefix}${RESERVED_PREFIX}probe:${crypto.randomUUID()}`;
  const probe = options.probe
    ? new Probe({
      redis,
      channel,
      dial: (attempt) => dialler.dialSubscribed(channel, attempt, { name: "userwire-probe" }),
      onCounted: (counts) => broker.onCounted(counts),
      ...log,
    })
    : undefined;
  return {
    broker,
    history,
    redis,
    async firstAttempt(withinMs) {
      const endMs = performance.now() + withinMs;
      const attempt = await redis.availability.firstAttempt(withinMs);
      if (attempt.outcome !== "ready" || !probe) return attempt;
      await probe.first(endMs - performance.now());
      if (isShared || probe.counts !== false) return attempt;
      return { outcome: "refused", reason: NOT_COUNTING, remedy: "set USERWIRE_SUBSCRIPTIONS=shared" };
    },
    // What keeps subscriptions from being restored says more than that they are not.
    unready: () => redis.availability.reason ?? redis.silence() ?? probe?.unready() ?? broker.unavailable(),
    reload: () => topology.reload(),
    async close() {
      await probe?.close();
      await broker.close();
      dialler.close();
      redis.close();
      topology.close();
    },
  };
}
