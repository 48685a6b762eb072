/**
 * What becomes of a subscription's connection after it was lost: it is dialled again, by both ways of subscribing,
 * and neither too often nor for somebody who has left.
 */
import { assertEquals } from "@std/assert";
import { Attempt } from "../src/broker/attempt.ts";
import type { Subscriber, Subscription } from "../src/broker/broker.ts";
import { RedisConnection } from "../src/broker/redis_connection.ts";
import { parseRedisUrl } from "../src/broker/redis_address.ts";
import { RedisSubscription } from "../src/broker/redis_subscription.ts";
import { encodeCommand } from "../src/broker/resp.ts";
import { SharedConnection } from "../src/broker/shared_connection.ts";
import { Deadlines } from "../src/deadlines.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { Recorder } from "./support/recorder.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

/** All that a connection needs from its broker, without a broker: Redis is always worth a dial. */
class Host implements AsyncDisposable {
  readonly goodbyes = new Deadlines(10_000);
  readonly #url: string;
  /** Called when a dial has succeeded, before anybody has the connection. */
  onDialled = () => {};

  constructor(url: string) {
    this.#url = url;
  }

  async attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const attempt = new Attempt(this.goodbyes, { late: () => new Error("late"), signal });
    try {
      return await work(attempt);
    } finally {
      attempt.end();
    }
  }

  dial(channel: string, attempt: Attempt): Promise<RedisConnection> {
    return this.#open(attempt, { commands: [encodeCommand("SUBSCRIBE", channel)], replies: 1 });
  }

  dialShared(attempt: Attempt): Promise<RedisConnection> {
    return this.#open(attempt);
  }

  async #open(attempt: Attempt, options = {}): Promise<RedisConnection> {
    const connection = await RedisConnection.open(parseRedisUrl(this.#url), attempt, options);
    this.onDialled();
    return connection;
  }

  whenReady(): Promise<void> {
    return Promise.resolve();
  }

  onLost(): void {}
  onClosed(): void {}
  onSubscriberError(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    this.goodbyes.close();
    return Promise.resolve();
  }
}

/** The ways to subscribe; closing the subscription lets go of its connection. */
const WAYS: { name: string; subscribe(host: Host, subscriber: Subscriber): Promise<Subscription> }[] = [
  {
    name: "RedisSubscription",
    async subscribe(host, subscriber) {
      const subscription = new RedisSubscription("alice", subscriber, host);
      await host.attempt(undefined, (attempt) => subscription.open(attempt));
      return subscription;
    },
  },
  {
    name: "SharedConnection",
    async subscribe(host, subscriber) {
      const connection = new SharedConnection(host);
      const { channel } = await connection.subscribe("alice", subscriber, undefined);
      return { channel, close: () => connection.close() };
    },
  },
];

async function connections(redis: RedisServer): Promise<number> {
  return String(await redis.cli("CLIENT", "LIST")).split("\n").filter((line) => line !== "").length;
}

for (const { name, subscribe } of WAYS) {
  redisTest(
    `${name} that is closed in the instant it is connected again lets go of that connection`,
    async () => {
      await using redis = await RedisServer.start();
      // The connection is handed on in so many turns of promises at most; in each of them it may be closed.
      for (let turns = 0; turns < 20; turns++) {
        await using host = new Host(redis.url);
        const recorder = new Recorder();
        const subscription = await subscribe(host, recorder);
        const closing = Promise.withResolvers<void>();
        let changes: string[] | undefined;
        host.onDialled = async () => {
          for (let turn = 0; turn < turns; turn++) await undefined;
          changes = [...recorder.changes];
          subscription.close().then(closing.resolve);
        };
        await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
        await withDeadline(closing.promise, 5_000, `the end of what was closed after ${turns} turns`);
        await until(async () => await connections(redis) === 1, "Redis to have only our own connection");
        assertEquals(recorder.changes, changes, "nothing is said after it was closed");
      }
    },
  );
}
