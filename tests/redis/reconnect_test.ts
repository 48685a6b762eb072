/**
 * What becomes of a subscription's connection after it was lost: it is dialled again, by both ways of subscribing,
 * and neither too often nor for somebody who has left.
 */
import { assert, assertEquals } from "@std/assert";
import { Attempt } from "../../src/async/attempt.ts";
import type { Subscriber, Subscription } from "../../src/broker/broker.ts";
import { RedisConnection } from "../../src/redis/raw_connection.ts";
import { parseRedisUrl } from "../../src/redis/address.ts";
import { type DedicatedContext, DedicatedSubscription } from "../../src/broker/dedicated_subscription.ts";
import type { PubSubContext } from "../../src/redis/pubsub_connection.ts";
import { encodeCommand } from "../../src/redis/resp.ts";
import { PLAIN } from "../../src/redis/pubsub_words.ts";
import { SharedConnection, type SharedContext } from "../../src/broker/shared_connection.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { Pace } from "../../src/async/slices.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

/** A dialler, and those that subscriptions belong to, without a broker: Redis is always worth a dial. */
class Host implements PubSubContext, DedicatedContext, Disposable {
  readonly closeDeadlines = new Deadlines(10_000);
  readonly pace = new Pace();
  readonly isClosed = false;
  readonly #url: string;
  /** Called when a dial has succeeded, before anybody has the connection. */
  onDialled = () => {};

  constructor(url: string) {
    this.#url = url;
  }

  async attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const attempt = new Attempt(this.closeDeadlines, { late: () => new Error("late"), signal });
    try {
      return await work(attempt);
    } finally {
      attempt.end();
    }
  }

  redial<T>(signal: AbortSignal, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    return this.attempt(signal, work);
  }

  dial(channel: string, attempt: Attempt): Promise<RedisConnection> {
    return this.#open(attempt, { commands: [encodeCommand("SUBSCRIBE", channel)] });
  }

  async #open(attempt: Attempt, options = {}): Promise<RedisConnection> {
    const connection = await RedisConnection.open(parseRedisUrl(this.#url), attempt, options);
    this.onDialled();
    return connection;
  }

  /** What those that share a connection have instead. */
  get shared(): SharedContext {
    return {
      dial: (attempt) => this.#open(attempt),
      onSubscribed() {},
      onLost: (count) => this.onLost(count),
      log: undefined,
      onConnectionLost() {},
      onRefused() {},
      onTaken() {},
      words: PLAIN,
    };
  }

  /** Nothing is dialled again before this resolves. */
  ready: Promise<void> = Promise.resolve();

  whenReady(): Promise<void> {
    return this.ready;
  }

  isOld(): boolean {
    return false;
  }

  /** How many subscriptions are lost. */
  lost = 0;

  onLost(count: number): void {
    this.lost += count;
  }

  onSubscribed(): void {}
  onClosed(): void {}
  readonly log = undefined;

  [Symbol.dispose](): void {
    this.closeDeadlines.close();
  }
}

/** The ways to subscribe; closing the subscription lets go of its connection. */
const WAYS: { name: string; subscribe(host: Host, subscriber: Subscriber): Promise<Subscription> }[] = [
  {
    name: "DedicatedSubscription",
    async subscribe(host, subscriber) {
      const subscription = new DedicatedSubscription("alice", subscriber, host, host);
      await host.attempt(undefined, (attempt) => subscription.open(attempt));
      return subscription;
    },
  },
  {
    name: "SharedConnection",
    async subscribe(host, subscriber) {
      const connection = new SharedConnection(host, host.shared);
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
        using host = new Host(redis.url);
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
        await withDeadline(closing.promise, 20_000, `the end of what was closed after ${turns} turns`);
        await until(async () => await connections(redis) === 1, "Redis to have only our own connection");
        assertEquals(recorder.changes, changes, "nothing is said after it was closed");
      }
    },
  );
}

/** A Redis that confirms every subscription and hangs up at once; `dialledMs` has the time of each connection. */
class Fickle implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #serving: Promise<void>[] = [];
  readonly dialledMs: number[] = [];

  constructor() {
    this.#serving.push(this.#accept());
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#listener.addr.port}`;
  }

  async #accept(): Promise<void> {
    for await (const conn of this.#listener) {
      this.dialledMs.push(performance.now());
      this.#serving.push(this.#serve(conn));
    }
  }

  async #serve(conn: Deno.Conn): Promise<void> {
    using _ = conn;
    const [buffer, decoder, encoder] = [new Uint8Array(1_000), new TextDecoder(), new TextEncoder()];
    for (let asked = ""; !asked.includes("SUBSCRIBE");) {
      const count = await conn.read(buffer);
      if (count === null) return;
      const text = decoder.decode(buffer.subarray(0, count));
      asked += text;
      if (text.includes("SETNAME")) await conn.write(encoder.encode("+OK\r\n"));
    }
    await conn.write(encoder.encode("*3\r\n$9\r\nsubscribe\r\n$5\r\nalice\r\n:1\r\n"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const serving of this.#serving) await serving.catch(() => {}); // cut off by the other side
  }
}

for (const { name, subscribe } of WAYS) {
  Deno.test(`${name} dials a Redis that confirms and hangs up ever more slowly`, async () => {
    await using redis = new Fickle();
    using host = new Host(redis.url);
    const recorder = new Recorder();
    const subscription = await subscribe(host, recorder);
    const { dialledMs } = redis;
    await until(() => dialledMs.length >= 9, "nine connections", 30_000);
    await subscription.close();
    recorder.assertPairs();
    // The pauses are random, of 3.5 s together on average, and less than this once in a million times.
    const tookMs = dialledMs[8]! - dialledMs[0]!;
    assert(tookMs > 100, `nine connections within ${tookMs} ms`);
  });
}

redisTest(
  "DedicatedSubscription is missed from its loss to its return, or to the end of waiting for that",
  async () => {
    await using redis = await RedisServer.start();
    using host = new Host(redis.url);
    const recorder = new Recorder();
    const { subscribe } = WAYS[0]!;
    const subscription = await subscribe(host, recorder);
    assertEquals(host.lost, 0);
    const back = Promise.withResolvers<void>();
    host.ready = back.promise;
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await recorder.isLost();
    assertEquals(host.lost, 1);
    back.resolve();
    await recorder.isRestored();
    assertEquals(host.lost, 0);
    host.ready = new Promise(() => {});
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await recorder.isLost();
    assertEquals(host.lost, 1);
    await subscription.close();
    assertEquals(host.lost, 0);
    assertEquals(recorder.changes, ["lost", "restored", "lost"]);
  },
);

redisTest(
  "SharedConnection misses each listener that it lost until that is back or leaves, and no other",
  async () => {
    await using redis = await RedisServer.start();
    using host = new Host(redis.url);
    await using stack = new AsyncDisposableStack();
    const connection = new SharedConnection(host, host.shared);
    stack.defer(() => connection.close());
    const [staying, leaving, newcomer] = [new Recorder(), new Recorder(), new Recorder()];
    await connection.subscribe("alice", staying, undefined);
    const left = await connection.subscribe("alice", leaving, undefined);
    const back = Promise.withResolvers<void>();
    host.ready = back.promise;
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await leaving.isLost();
    assertEquals(host.lost, 2);
    const joining = connection.subscribe("alice", newcomer, undefined);
    joining.catch(() => {}); // it may reject before it is awaited below
    await left.close();
    await left.close();
    assertEquals(host.lost, 1);
    back.resolve();
    await staying.isRestored();
    await joining;
    assertEquals(host.lost, 0);
    assertEquals(await redis.cli("PUBLISH", "alice", "hi"), 1);
    await Promise.all([staying.received(1), newcomer.received(1)]);
    assertEquals([leaving.changes, leaving.payloads, newcomer.changes], [["lost"], [], []]);
  },
);

redisTest(
  "SharedConnection tells ten thousand listeners of a loss in slices, each before it hears of the end",
  async () => {
    await using redis = await RedisServer.start();
    using host = new Host(redis.url);
    await using stack = new AsyncDisposableStack();
    const connection = new SharedConnection(host, host.shared);
    stack.defer(() => connection.close());
    using losses = new TurnCounter();
    using returns = new TurnCounter();
    let early = 0;
    const listener = (): Subscriber => {
      let isLost = false;
      return {
        message() {},
        lost() {
          isLost = true;
          losses.count();
        },
        restored() {
          if (!isLost) early++;
          returns.count();
        },
      };
    };
    const names = Array.from({ length: 10_000 }, (_, i) => `u${i}`);
    await Promise.all(names.map((name) => connection.subscribe(name, listener(), undefined)));
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await until(
      () => returns.all === names.length,
      "all to be told that it is back",
      20_000,
      () => `${returns.all}`,
    );
    assertEquals([losses.all, early, host.lost], [names.length, 0, 0]);
    assert(losses.most <= 250, `${losses.most} in one turn`);
    assert(returns.most <= 250, `${returns.most} in one turn`);
  },
);

redisTest(
  "DedicatedSubscription that is paused is not taken for dead, however long nobody reads",
  async () => {
    await using redis = await RedisServer.start();
    using host = new Host(redis.url);
    const recorder = new Recorder();
    const subscription = new DedicatedSubscription("alice", recorder, host, host);
    await host.attempt(undefined, (attempt) => subscription.open(attempt));
    await redis.cli("CONFIG", "RESETSTAT");
    const lookForLong = () => {
      for (let i = 0; i < 10; i++) subscription.checkHealth();
      subscription.ping();
      assert(!subscription.isSilent);
    };
    subscription.pause();
    lookForLong();
    for (const payload of ["1", "2"]) assertEquals(await redis.cli("PUBLISH", "alice", payload), 1);
    lookForLong();
    assertEquals([subscription.current, recorder.payloads], [undefined, []]);
    subscription.resume();
    await recorder.received(2);
    assertEquals([recorder.payloads, recorder.changes], [["1", "2"], []]);
    assert(subscription.current);
    assertEquals(/cmdstat_ping/.test(String(await redis.cli("INFO", "commandstats"))), false);
    // Nor when it was asked for a sign of life just before.
    subscription.ping();
    assert(subscription.isSilent);
    subscription.pause();
    assert(!subscription.isSilent);
    subscription.resume();
    assertEquals(await redis.cli("PUBLISH", "alice", "3"), 1);
    await recorder.received(3);
    assertEquals(recorder.changes, []);
    await subscription.close();
  },
);

redisTest(
  "DedicatedSubscription that is cut while it is paused is dialled again, and stays paused",
  async () => {
    await using redis = await RedisServer.start();
    using host = new Host(redis.url);
    const recorder = new Recorder();
    const subscription = new DedicatedSubscription("alice", recorder, host, host);
    await host.attempt(undefined, (attempt) => subscription.open(attempt));
    subscription.pause();
    // What came before is waiting to be read.
    await redis.cli("PUBLISH", "alice", "1");
    subscription.cut();
    await recorder.isRestored();
    assertEquals(await redis.cli("PUBLISH", "alice", "2"), 1);
    assertEquals([recorder.payloads, subscription.current], [[], undefined]);
    subscription.resume();
    await recorder.received(1);
    assertEquals([recorder.payloads, recorder.changes], [["2"], ["lost", "restored"]]);
    await subscription.close();
  },
);
