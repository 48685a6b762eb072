/**
 * The engine joins the nodes: a broker, a history and groups, all in memory or all on one Redis. It picks and wires them by
 * settings, and is the only room that knows which implementations there are; what they do it leaves to them.
 */
import type { Broker } from "../broker/broker.ts";
import { MemoryBroker } from "../broker/memory.ts";
import type { Groups } from "../groups/groups.ts";
import { MemoryGroups } from "../groups/memory.ts";
import { RedisGroups } from "../groups/redis.ts";
import type { History, HistoryLimits } from "../history/history.ts";
import { MemoryHistory } from "../history/memory.ts";
import type { FirstAttempt, Scripts } from "../redis/commands.ts";
import { Sentinel } from "../redis/sentinel.ts";
import { Standalone } from "../redis/standalone.ts";
import { UrlSource } from "../redis/url_source.ts";
import type { EngineOptions } from "./options.ts";
import { type ExaminedAt, type FunctionsAt, Shards } from "./shards.ts";

export type { ExaminedAt };

/** What of Redis others need than broker and history. */
export interface EngineRedis extends Scripts {
  /** Why no command can be sent, as a sentence without a full stop; undefined when one can. */
  readonly reason: string | undefined;
  /** How often connections for commands came back. */
  readonly reconnects: number;
  /** What it is set to that may lose data: sentences without a full stop. @throws {BrokerUnavailableError} */
  warnings(): Promise<string[]>;
  /** What each server that can be asked says of itself. @throws {BrokerUnavailableError} */
  examine(): Promise<ExaminedAt[]>;
  /** The Redis functions, on each server that was greeted. */
  functions(): FunctionsAt[];
}

export interface Engine {
  readonly broker: Broker;
  readonly history: History;
  readonly groups: Groups;
  /** Redis; none in memory. */
  readonly redis: EngineRedis | undefined;
  /** How the first attempt to connect ends, waiting for it at most so long, in milliseconds. */
  firstAttempt(withinMs: number): Promise<FirstAttempt>;
  /**
   * Undefined when everything works as far as it was tried; else what does not, as a sentence without a full stop. It
   * says something whenever `broker.unavailable` does, and more: `broker/probe.ts` says what the difference is.
   */
  unready(): string | undefined;
  /** What is wrong for some users, or would be after a failover, while others can be served: sentences without a full stop. */
  faults(): string[];
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
    groups: new MemoryGroups(),
    redis: undefined,
    firstAttempt: () => Promise.resolve({ outcome: "ready" }),
    unready: () => broker.unavailable(),
    faults: () => [],
    reload() {},
    close: () => broker.close(),
  };
}

function openOnRedis(options: EngineOptions, limits: HistoryLimits): Engine {
  const { redisUrl: url, redisUrlFile: file, redisTls: tls, channelPrefix = "" } = options;
  const log = options.log && { log: options.log };
  const source = new UrlSource({ url, file, tls, channelPrefix, ...log });
  const { sentinel, seeds } = source.url;
  const topology = sentinel
    ? new Sentinel(source, {
      user: options.redisSentinelUser,
      password: options.redisSentinelPassword,
      ...log,
    })
    : seeds
    ? undefined
    : new Standalone(source);
  const shards = new Shards(source, topology, {
    timeoutMs: options.redisTimeoutMs ?? 3_000,
    limits,
    subscriptions: options.subscriptions ?? "dedicated",
    sharedConnections: options.sharedConnections ?? 1,
    channelPrefix,
    probe: options.probe ?? false,
    functions: options.redisFunctions ?? "off",
    functionSettings: { ...options.functionLimits ?? limits, maxBytes: options.maxBodyBytes ?? 65_536 },
    ...log,
  });
  return {
    broker: shards.broker,
    history: shards.history,
    groups: new RedisGroups(shards, channelPrefix),
    redis: shards,
    firstAttempt: (withinMs) => shards.firstAttempt(withinMs),
    unready: () => shards.unready(),
    faults: () => shards.faults(),
    reload: () => shards.reload(),
    close: () => shards.close(),
  };
}
