/** Picks the broker the settings ask for, and opens what it stands on. */
import type { Log } from "../log.ts";
import { type FirstAttempt, Redis } from "../redis.ts";
import type { Broker } from "./broker.ts";
import { MemoryBroker } from "./memory.ts";
import { parseRedisUrl } from "./redis_address.ts";
import { DedicatedRedisBroker } from "./redis_dedicated.ts";

export interface BrokerOptions {
  /** Unset: the broker in memory. */
  redisUrl?: string | undefined;
  /** How long a command or a subscription may take, in milliseconds. @default 3000 */
  redisTimeoutMs?: number;
  log?: Log;
}

/** An open broker. */
export interface OpenedBroker {
  broker: Broker;
  /** How the first attempt to connect ends, waiting for it at most so long. */
  firstAttempt(withinMs: number): Promise<FirstAttempt>;
  /** Closes the broker, then what it stands on. */
  close(): Promise<void>;
}

/**
 * Opens at once; a Redis that is away is connected to as soon as it is there.
 * @throws {TypeError} when the URL is none of Redis.
 */
export function openBroker(options: BrokerOptions): OpenedBroker {
  const { redisUrl: url, redisTimeoutMs: timeoutMs = 3_000, log } = options;
  if (url === undefined) {
    const broker = new MemoryBroker(log ? { log } : {});
    return {
      broker,
      firstAttempt: () => Promise.resolve({ outcome: "ready" }),
      close: () => broker.close(),
    };
  }
  const address = parseRedisUrl(url);
  const redis = Redis.open(url, { timeoutMs, ...(log && { log }) });
  const broker = new DedicatedRedisBroker({ address, redis, timeoutMs, ...(log && { log }) });
  return {
    broker,
    firstAttempt: (withinMs) => redis.firstAttempt(withinMs),
    async close() {
      await broker.close();
      await redis.close();
    },
  };
}
