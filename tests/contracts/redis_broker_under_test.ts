/**
 * What the contract of a broker over Redis is checked on: a broker, a server to be hurt, and how long things may
 * take.
 */
import { assertRejects } from "@std/assert";
import type { Broker } from "../../src/broker/broker.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RedisServer, type RedisServerOptions, redisTest } from "../../testkit/redis_server.ts";

/** A broker, and how to end it and all it stands on. */
export interface OpenedRedisBroker {
  readonly broker: Broker;
  dispose(): Promise<void>;
}

/** No call may take longer, whatever Redis does, in milliseconds. */
export const CALL_MS = 6_000;
/** A call that needs no answer from a Redis that is known to be away. */
export const QUICK_MS = 3_000;
/** How soon a broker must have noticed that Redis went away, or came back. */
export const NOTICE_MS = 15_000;
const TEST_MS = 60_000;

/** A sentence without a full stop. */
export const SENTENCE = /^\P{Ll}.*[^.]$/u;

/** Declares tests of one implementation, each with a server of its own. */
export class RedisBrokerTests {
  readonly #name: string;
  readonly #open: (url: string) => OpenedRedisBroker;

  constructor(name: string, open: (url: string) => OpenedRedisBroker) {
    this.#name = name;
    this.#open = open;
  }

  /** A test whose broker is opened on a server that is up, and has reached it. */
  test(claim: string, body: (broker: Broker, redis: RedisServer) => Promise<void>): void {
    this.testWithServer(claim, {}, async (redis) => {
      await this.withBroker(redis.url, async (broker) => {
        await isAvailable(broker);
        await body(broker, redis);
      });
    });
  }

  /** A test that opens its brokers itself. */
  testWithServer(
    claim: string,
    options: RedisServerOptions,
    body: (redis: RedisServer) => Promise<void>,
  ): void {
    redisTest(`${this.#name} ${claim}`, async () => {
      await using redis = await RedisServer.start(options);
      await withDeadline(body(redis), TEST_MS, "the test to end");
    });
  }

  async withBroker(url: string, body: (broker: Broker) => Promise<void>): Promise<void> {
    const { broker, dispose } = this.#open(url);
    try {
      await body(broker);
    } finally {
      await withDeadline(dispose(), CALL_MS, "the broker to be disposed of");
    }
  }
}

export async function isAvailable(broker: Broker): Promise<void> {
  await until(() => broker.unavailable() === undefined, "the broker to be available", NOTICE_MS);
}

export async function isUnavailable(broker: Broker): Promise<void> {
  await until(() => broker.unavailable() !== undefined, "the broker to be unavailable", NOTICE_MS);
}

export async function assertUnavailable(
  call: () => Promise<unknown>,
  ms: number,
): Promise<BrokerUnavailableError> {
  return await assertRejects(() => withDeadline(call(), ms, "a call to be answered"), BrokerUnavailableError);
}

/** How many subscriptions Redis counts. */
export async function listeners(redis: RedisServer, channel: string): Promise<number> {
  const reply = await redis.cli("PUBSUB", "NUMSUB", channel);
  return Number((reply as unknown[])[1]);
}

export async function subscriberConnections(redis: RedisServer): Promise<number> {
  return String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).split("\n").filter((line) => line !== "")
    .length;
}
