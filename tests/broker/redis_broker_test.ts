/**
 * The broker over Redis and what dials its subscriptions, on no Redis at all: when sends are refused, who is asked for a
 * sign of life and when, and what is dialled again.
 */
import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import type { Attempt } from "../../src/async/attempt.ts";
import type { Subscription } from "../../src/broker/broker.ts";
import { RedisBroker } from "../../src/broker/redis.ts";
import { Dialler } from "../../src/broker/dialler.ts";
import type { PubSubConnection } from "../../src/redis/pubsub_connection.ts";
import { RedisConnection } from "../../src/redis/raw_connection.ts";
import type { Held, Subscriptions } from "../../src/broker/subscriptions.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import type { Redis } from "../../src/redis/commands.ts";
import { Standalone } from "../../src/redis/standalone.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { HeldIntervals, HeldTimers } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

const RESTORING = "Redis is back and subscriptions are being restored";

/** All that a broker wants of the connection for commands. */
class FakeRedis {
  readonly availability = {
    reason: undefined as string | undefined,
    backAtMs: -Infinity,
    onReturn: (listener: () => void) => void this.#onReturn.push(listener),
    warn: (...said: unknown[]) => void this.warnings.push(said),
  };
  published = 0;
  readonly warnings: unknown[][] = [];
  readonly #onOther: (() => void)[] = [];
  readonly #onReturn: (() => void)[] = [];

  onOtherServer = (listener: () => void) => void this.#onOther.push(listener);
  publish = () => Promise.resolve(++this.published);
  counts = (channels: readonly string[]) => this.ownCounts(channels);
  ownCounts = (channels: readonly string[]) => Promise.resolve(channels.map(() => 1));

  leave(): void {
    this.availability.reason = "Redis is away";
  }

  return(): void {
    this.availability.reason = undefined;
    this.availability.backAtMs = performance.now();
    for (const listener of this.#onReturn) listener();
  }

  becomeAnother(): void {
    for (const listener of this.#onOther) listener();
  }
}

/** A connection that was dialled. */
class FakeConnection {
  generation = -1;
  isClosed = false;
  close(): void {
    this.isClosed = true;
  }
}

/** A way of subscribing that writes down what it is told to do. */
class FakeSubscriptions implements Subscriptions {
  readonly counted = "sockets";
  readonly size = 0;
  lost = 0;
  readonly told: string[] = [];
  readonly #connection = {
    cut: () => void this.told.push("cut all"),
    checkHealth: () => void this.told.push("check"),
    ping: () => void this.told.push("ping"),
    cutIfSilent: () => void this.told.push("cut silent"),
  };

  subscribe = (): Promise<Subscription> => Promise.reject(new Error("nobody subscribes here"));
  channels = (): IterableIterator<string> => [].values();
  confirmed = (): readonly Held[] => [];
  onSubscribed = () => {};
  connections = (): PubSubConnection[] => [this.#connection as Partial<PubSubConnection> as PubSubConnection];
  close = () => Promise.resolve(void this.told.push("close"));
}

/** Dials nothing, and keeps what it gave out. */
class FakeDials implements Disposable {
  readonly #open = RedisConnection.open;
  readonly all: FakeConnection[] = [];
  /** Called with each connection before anybody has it. */
  onDialled = () => {};

  constructor() {
    RedisConnection.open = () => {
      const connection = new FakeConnection();
      this.all.push(connection);
      this.onDialled();
      return Promise.resolve(connection as unknown as RedisConnection);
    };
  }

  [Symbol.dispose](): void {
    RedisConnection.open = this.#open;
  }
}

/** A broker whose time passes when the test says so. */
class World implements AsyncDisposable {
  readonly clock = new StandingClock();
  readonly ticks = new HeldIntervals(5_000);
  readonly lives = new HeldTimers(1_000);
  readonly redis = new FakeRedis();
  readonly dials = new FakeDials();
  readonly #redis = this.redis as unknown as Redis;
  readonly dialler = new Dialler({
    topology: new Standalone(new UrlSource({ url: "redis://127.0.0.1:1" })),
    redis: this.#redis,
    timeoutMs: 3_000,
  });
  readonly subscriptions = new FakeSubscriptions();
  readonly broker = new RedisBroker({ subscriptions: this.subscriptions, redis: this.#redis });

  async dial(): Promise<RedisConnection> {
    const attempt = (work: Attempt) => this.dialler.dial(work, {});
    return await this.dialler.attempt(undefined, attempt);
  }

  /** What the broker was told since the last time. */
  told(): string[] {
    return this.subscriptions.told.splice(0);
  }

  tickAfter(ms: number): string[] {
    this.clock.pass(ms);
    this.ticks.run();
    return this.told();
  }

  lifeAfter(ms: number): string[] {
    this.clock.pass(ms);
    this.lives.run();
    return this.told();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.broker.close();
    this.dialler.close();
    this.dials[Symbol.dispose]();
    this.lives[Symbol.dispose]();
    this.ticks[Symbol.dispose]();
    this.clock[Symbol.dispose]();
  }
}

// ---------------------------------------------------------------------------------------------------------
// When sends are refused

Deno.test("Sends are refused for a second and a half after Redis came back, for others' subscriptions", async () => {
  await using world = new World();
  const { broker, redis, clock } = world;
  assertEquals(broker.unavailable(), undefined);
  redis.leave();
  assertEquals(broker.unavailable(), "Redis is away");
  redis.return();
  clock.pass(1_499);
  assertEquals(broker.unavailable(), RESTORING);
  await assertRejects(() => broker.publish("alice", "hi"), BrokerUnavailableError, RESTORING);
  await assertRejects(() => broker.counts(["alice"]), BrokerUnavailableError, RESTORING);
  assertEquals(redis.published, 0);
  clock.pass(1);
  assertEquals(broker.unavailable(), undefined);
  assertEquals([await broker.publish("alice", "hi"), await broker.counts(["alice"])], [1, [1]]);
});

Deno.test("While own subscriptions are lost after an outage sends are refused, but no longer than 30 s", async () => {
  await using world = new World();
  const { broker, redis, clock, subscriptions } = world;
  subscriptions.lost = 3;
  assertEquals(broker.unavailable(), undefined, "Redis was not away: those who are there can be reached");
  redis.return();
  clock.pass(1_500);
  assertEquals(broker.unavailable(), RESTORING);
  subscriptions.lost = 1;
  clock.pass(28_499);
  assertEquals(broker.unavailable(), RESTORING);
  subscriptions.lost = 0;
  assertEquals(broker.unavailable(), undefined);
  subscriptions.lost = 1;
  assertEquals(broker.unavailable(), RESTORING);
  clock.pass(1);
  assertEquals(broker.unavailable(), undefined);
  // Each outage has its own.
  redis.return();
  clock.pass(29_999);
  assertEquals(broker.unavailable(), RESTORING);
});

Deno.test("A broker that is closed says so, whatever Redis does", async () => {
  await using world = new World();
  await world.broker.close();
  assertEquals(world.broker.unavailable(), "The broker is closed");
  world.redis.leave();
  assertEquals(world.broker.unavailable(), "The broker is closed");
});

// ---------------------------------------------------------------------------------------------------------
// Signs of life

Deno.test("Health is checked with each tick, but not by a process without time, nor of a Redis that hangs", async () => {
  await using world = new World();
  assertEquals(world.tickAfter(5_000), ["check"]);
  assertEquals(world.tickAfter(5_499), ["check"]);
  assertEquals(world.tickAfter(5_500), []);
  // Late is one tick; the next is measured from there.
  assertEquals(world.tickAfter(5_499), ["check"]);
  world.redis.leave();
  assertEquals(world.tickAfter(5_000), []);
  world.redis.return();
  world.told();
  assertEquals(world.tickAfter(5_000), ["check"]);
});

Deno.test("All are asked for a sign of life when Redis is back, and a second later the silent ones are cut", async () => {
  await using world = new World();
  world.redis.return();
  assertEquals(world.told(), ["ping"]);
  assertEquals(world.lifeAfter(1_499), ["cut silent"]);
  assertEquals(world.lives.count, 0);
});

Deno.test("Nobody is cut for silence that was not listened to, or that is Redis'", async () => {
  await using world = new World();
  world.redis.return();
  world.told();
  assertEquals(world.lifeAfter(1_500), [], "the timer came late");
  world.redis.return();
  world.redis.leave();
  world.told();
  assertEquals(world.lifeAfter(1_000), [], "Redis is away again");
});

Deno.test("When Redis comes back twice within a second the time for a sign of life begins anew", async () => {
  await using world = new World();
  world.redis.return();
  world.clock.pass(900);
  world.redis.return();
  assertEquals([world.told(), world.lives.count], [["ping", "ping"], 1]);
  assertEquals(world.lifeAfter(1_000), ["cut silent"]);
});

Deno.test("A broker that is closed checks nothing any more", async () => {
  await using world = new World();
  world.redis.return();
  await world.broker.close();
  assertEquals([world.ticks.count, world.lives.count], [0, 0]);
  assertEquals(world.told(), ["ping", "close"]);
});

// ---------------------------------------------------------------------------------------------------------
// Dialling

Deno.test("Subscriptions are all dialled again when the commands go to another server", async () => {
  await using world = new World();
  const { dialler, redis } = world;
  const before = await world.dial();
  assertEquals(dialler.isOld(before), false);
  redis.becomeAnother();
  assertEquals([world.told(), dialler.isOld(before)], [["cut all"], true]);
  assertEquals(dialler.isOld(await world.dial()), false);
});

Deno.test("What was dialled while the server changed is let go of, and dialled once more", async () => {
  await using world = new World();
  const { dialler, redis, dials } = world;
  let changes = 2;
  dials.onDialled = () => {
    if (changes-- > 0) redis.becomeAnother();
  };
  const connection = await world.dial();
  const { all } = dials;
  assertEquals(all.map(({ isClosed }) => isClosed), [true, true, false]);
  assertStrictEquals(connection, all[2] as unknown);
  assertEquals(dialler.isOld(connection), false);
});

Deno.test("An attempt that Redis ends is warned of, one that nobody wants any more is not", async () => {
  await using world = new World();
  const { dialler, redis } = world;
  const cause = new Error("NOPERM");
  const refused = new BrokerUnavailableError("refused", { cause });
  const failing = (error: Error) => () => dialler.attempt(undefined, () => Promise.reject(error));
  assertStrictEquals(await assertRejects(failing(refused)), refused);
  assertEquals(redis.warnings, [["subscription failed", "refused", cause]]);
  const left = new Error("the client left");
  assertStrictEquals(await assertRejects(failing(left)), left);
  assertEquals(redis.warnings.length, 1);
  // One that has ended can't be given up.
  let ended: Attempt | undefined;
  const client = new AbortController();
  const work = (attempt: Attempt) => Promise.resolve((ended = attempt, 7));
  assertEquals(await dialler.attempt(client.signal, work), 7);
  client.abort(left);
  ended!.throwIfGivenUp();
});
