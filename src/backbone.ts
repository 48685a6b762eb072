/** What joins the instances: a broker and an inbox, both in memory or both on one Redis. Picks them by settings. */
import type { Broker } from "./broker/broker.ts";
import { MemoryBroker } from "./broker/memory.ts";
import { parseRedisUrl } from "./broker/redis_address.ts";
import { DedicatedRedisBroker } from "./broker/redis_dedicated.ts";
import { SharedRedisBroker } from "./broker/redis_shared.ts";
import type { Inbox, InboxLimits } from "./inbox/inbox.ts";
import { MemoryInbox } from "./inbox/memory.ts";
import { RedisStreamsInbox } from "./inbox/redis_streams.ts";
import type { Log } from "./log.ts";
import { type FirstAttempt, Redis, type RedisTls } from "./redis.ts";

export interface BackboneOptions {
  /** Unset: in memory. */
  redisUrl?: string | undefined;
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
  log?: Log;
}

export interface Backbone {
  readonly broker: Broker;
  readonly inbox: Inbox;
  /** The connection for commands; none in memory. */
  readonly redis: Redis | undefined;
  /** How the first attempt to connect ends, waiting for it at most so long. */
  firstAttempt(withinMs: number): Promise<FirstAttempt>;
  close(): Promise<void>;
}

/**
 * Opens at once; a Redis that is away is connected to as soon as it is there.
 * @throws {TypeError} when the URL is none of Redis.
 */
export function openBackbone(options: BackboneOptions): Backbone {
  const { redisUrl: url, redisTimeoutMs: timeoutMs = 3_000, history = 100, historyTtlS = 300 } = options;
  const limits: InboxLimits = { count: history, ttlMs: historyTtlS * 1_000 };
  const log = options.log && { log: options.log };
  if (url === undefined) {
    const broker = new MemoryBroker({ ...log });
    const inbox = new MemoryInbox(broker, { limits });
    return {
      broker,
      inbox,
      redis: undefined,
      firstAttempt: () => Promise.resolve({ outcome: "ready" }),
      async close() {
        await broker.close();
        await inbox.close();
      },
    };
  }
  const tls = options.redisTls;
  const address = { ...parseRedisUrl(url), tls };
  const redis = Redis.open(url, { timeoutMs, ...(tls && { tls }), ...log });
  const broker = options.subscriptions === "shared"
    ? new SharedRedisBroker({
      address,
      redis,
      timeoutMs,
      ...log,
      connections: options.sharedConnections ?? 1,
    })
    : new DedicatedRedisBroker({ address, redis, timeoutMs, ...log });
  const inbox = new RedisStreamsInbox(redis, { limits });
  return {
    broker,
    inbox,
    redis,
    firstAttempt: (withinMs) => redis.firstAttempt(withinMs),
    async close() {
      await broker.close();
      await inbox.close();
      await redis.close();
    },
  };
}
