/**
 * The broker over Redis and what dials its subscriptions, on no Redis at all: when sends are refused, who is asked for a
 * sign of life and when, and what is dialled again.
 */
import { setImmediate } from "node:timers";
import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import type { Attempt } from "../../src/async/attempt.ts";
import type { Subscription } from "../../src/broker/broker.ts";
import { RedisBroker } from "../../src/broker/redis.ts";
import { Dialler } from "../../src/broker/dialler.ts";
import type { PubSubConnection } from "../../src/redis/pubsub_connection.ts";
import { RedisConnection } from "../../src/redis/raw_connection.ts";
import { healthRounds, type Held, type Subscriptions } from "../../src/broker/subscriptions.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import type { Redis } from "../../src/redis/commands.ts";
import { Standalone } from "../../src/redis/standalone.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { HeldIntervals, HeldTimers } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

/** Health is checked in so many parts, one each so many milliseconds; the one connection is in the first. */
const PARTS = 50;
const PART_MS = 100;
/** While there are few connections, those of a second at one time. */
const CALM_MS = 1_000;
/** What takes more of them never ends. */
const MANY_TURNS = 1_000;

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
    cutIfOld: () => void this.told.push("cut old"),
    checkHealth: () => void this.told.push("check"),
    ping: () => void this.told.push("ping"),
    isSilent: false,
    cut: () => {
      this.isSilent = false;
      this.told.push("cut");
    },
  };

  /** Whether the one connection gives no sign of life. */
  set isSilent(isSilent: boolean) {
    this.#connection.isSilent = isSilent;
  }

  subscribe = (): Promise<Subscription> => Promise.reject(new Error("nobody subscribes here"));
  channels = (): IterableIterator<string> => [].values();
  confirmed = (): readonly Held[] => [];
  onSubscribed = () => {};
  readonly connections = healthRounds();

  constructor() {
    this.connections.add(this.#connection as Partial<PubSubConnection> as PubSubConnection);
  }

  askAgain = () => void this.told.push("ask again");
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

/** By then every promise that could go on has. */
const turn = () => new Promise((resolve) => setTimeout(() => setImmediate(resolve)));

/** A broker whose time passes when the test says so. */
class World implements AsyncDisposable {
  readonly clock = new StandingClock();
  readonly ticks = new HeldIntervals([PART_MS, CALM_MS]);
  readonly lives = new HeldTimers(500);
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

  /** A round of few, in which the first tick is so late. */
  round(lateMs = 0): string[] {
    // A little time is made up for.
    const last = CALM_MS - (lateMs <= 500 ? lateMs : 0);
    for (const ms of [CALM_MS + lateMs, CALM_MS, CALM_MS, CALM_MS, last]) {
      this.clock.pass(ms);
      this.ticks.run();
    }
    return this.told();
  }

  /** Redis is back, and everybody was asked for a sign of life. */
  async return(): Promise<void> {
    this.redis.return();
    await turn();
  }

  /** A look for signs of life, after a time. */
  async look(ms = 500): Promise<string[]> {
    this.clock.pass(ms);
    this.lives.run();
    await turn();
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
  await world.return();
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
  const { broker, clock, subscriptions } = world;
  subscriptions.lost = 3;
  assertEquals(broker.unavailable(), undefined, "Redis was not away: those who are there can be reached");
  await world.return();
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
  await world.return();
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

Deno.test("Health is checked once in each round, but not by a process without time, nor of a Redis that hangs", async () => {
  await using world = new World();
  assertEquals(world.round(), ["check"]);
  await turn();
  assertEquals(world.round(400), ["check"]);
  await turn();
  // From then on everybody is passed over once.
  assertEquals(world.round(501), []);
  await turn();
  assertEquals(world.round(), ["check"]);
  await turn();
  world.redis.leave();
  assertEquals(world.round(), []);
  await world.return();
  world.told();
  assertEquals(world.round(), ["check"]);
});

Deno.test("All are asked for a sign of life when Redis is back, and who gives none is cut after a second", async () => {
  await using world = new World();
  await world.return();
  world.subscriptions.isSilent = true;
  assertEquals(world.told(), ["ping"]);
  assertEquals(await world.look(), []);
  assertEquals(await world.look(), ["cut"]);
  // Until it is known that all live sends are refused, also when that takes longer.
  world.clock.pass(1_000);
  assertEquals(world.broker.unavailable(), RESTORING);
  assertEquals(await world.look(0), []);
  assertEquals([world.lives.count, world.broker.unavailable()], [0, undefined]);
  await world.return();
  assertEquals([world.told(), await world.look(), world.lives.count], [["ping"], [], 0]);
});

Deno.test("Nobody is cut for silence that was not listened to, or that is Redis'", async () => {
  await using world = new World();
  await world.return();
  world.subscriptions.isSilent = true;
  world.told();
  assertEquals(await world.look(), []);
  assertEquals(await world.look(1_000), [], "the timer came late");
  assertEquals(await world.look(), [], "nor is that compared with anything");
  assertEquals(await world.look(), ["cut"]);
  await world.return();
  world.subscriptions.isSilent = true;
  world.told();
  assertEquals(await world.look(), []);
  world.redis.leave();
  assertEquals(await world.look(), [], "Redis is away again");
  assertEquals(world.lives.count, 0);
});

Deno.test("Nobody is cut while a process that was stopped comes to hear more and more of them", async () => {
  await using world = new World();
  const { subscriptions, redis } = world;
  const connections = Array.from({ length: 10 }, () => ({
    isSilent: false,
    ping() {
      this.isSilent = true;
    },
    cut() {
      this.isSilent = false;
      subscriptions.told.push("cut");
    },
  }));
  for (const connection of connections) {
    subscriptions.connections.add(connection as Partial<PubSubConnection> as PubSubConnection);
  }
  redis.return();
  await turn();
  world.told();
  // For far longer than sends are refused because of others.
  for (const connection of connections.slice(3)) {
    assertEquals(await world.look(), []);
    assertEquals(world.broker.unavailable(), RESTORING);
    connection.isSilent = false;
  }
  assertEquals(await world.look(), []);
  assertEquals(await world.look(), ["cut", "cut", "cut"]);
  assertEquals(await world.look(), []);
  assertEquals([world.lives.count, world.broker.unavailable()], [0, undefined]);
});

Deno.test("When Redis comes back twice within a second the time for a sign of life begins anew", async () => {
  await using world = new World();
  await world.return();
  world.clock.pass(900);
  await world.return();
  assertEquals([world.told(), world.lives.count], [["ping", "ping"], 1]);
  world.subscriptions.isSilent = true;
  assertEquals([await world.look(), await world.look()], [[], ["cut"]]);
});

Deno.test("A broker that is closed checks nothing any more", async () => {
  await using world = new World();
  await world.return();
  await world.broker.close();
  assertEquals([world.ticks.count, world.lives.count], [0, 0]);
  assertEquals(world.told(), ["ping", "close"]);
});

Deno.test("Of ten thousand subscriptions never more than 250 are asked or cut in a turn of the event loop", async () => {
  await using world = new World();
  using turns = new TurnCounter();
  const { broker, redis, subscriptions, clock } = world;
  let cut = 0;
  const connection = (): Partial<PubSubConnection> => ({
    cutIfOld: () => (cut++, turns.count()),
    checkHealth: () => turns.count(),
    ping: () => turns.count(),
    isSilent: true,
    cut() {
      Object.assign(this, { isSilent: false });
      turns.count();
    },
  });
  while (subscriptions.connections.size < 10_000) {
    subscriptions.connections.add(connection() as PubSubConnection);
  }
  redis.becomeAnother();
  assertEquals(cut, 31, "besides the one that writes down what it is told");
  // It was never away, and it is long since it was: sends are refused all the same until the last one is cut.
  for (let i = 0; i < MANY_TURNS && cut < 9_999; i++) {
    clock.pass(0);
    assertEquals(broker.unavailable(), RESTORING);
    await assertRejects(() => broker.publish("alice", "hi"), BrokerUnavailableError, RESTORING);
    await turn();
  }
  await turn();
  assertEquals([broker.unavailable(), turns.all], [undefined, 9_999]);

  world.redis.return();
  for (let i = 0; i < MANY_TURNS && turns.all < 2 * 9_999; i++) {
    assertEquals([world.lives.count, broker.unavailable()], [0, RESTORING], "not all have been asked");
    clock.pass(100);
    await turn();
  }
  await turn();
  clock.pass(500);
  assertEquals(broker.unavailable(), RESTORING, "the last ones still have time to answer");
  assertEquals(turns.all, 2 * 9_999);
  world.lives.run();
  for (let i = 0; i < MANY_TURNS && world.lives.count === 0; i++) await turn();
  world.lives.run();
  for (let i = 0; i < MANY_TURNS && turns.all < 3 * 9_999; i++) {
    clock.pass(100);
    assertEquals(broker.unavailable(), RESTORING, "the silent ones are being cut");
    await turn();
  }
  for (let i = 0; i < MANY_TURNS && world.lives.count === 0; i++) await turn();
  assertEquals(
    [turns.all, broker.unavailable()],
    [3 * 9_999, RESTORING],
    "it is not known yet that all live",
  );
  clock.pass(400);
  world.lives.run();
  for (let i = 0; i < MANY_TURNS && broker.unavailable() !== undefined; i++) {
    clock.pass(100);
    await turn();
  }
  assertEquals([broker.unavailable(), world.lives.count], [undefined, 0]);

  const round = async () => {
    for (let part = 0; part < PARTS; part++) {
      clock.pass(PART_MS);
      world.ticks.run();
      await turn();
    }
  };
  // The first round comes after a long time without any.
  await round();
  assertEquals(turns.all, 3 * 9_999);
  await round();
  assertEquals([turns.all, turns.most], [4 * 9_999, 250]);
});

Deno.test("A broker that is closed in the middle of that tells nobody more", async () => {
  await using world = new World();
  let told = 0;
  const connection: () => Partial<PubSubConnection> = () => ({ ping: () => void told++ });
  for (let i = 0; i < 1_000; i++) {
    world.subscriptions.connections.add(connection() as PubSubConnection);
  }
  world.redis.return();
  await world.broker.close();
  await turn();
  await turn();
  assertEquals([told, world.lives.count], [31, 0]);
});

// ---------------------------------------------------------------------------------------------------------
// Dialling

Deno.test("Subscriptions are all dialled again when the commands go to another server", async () => {
  await using world = new World();
  const { dialler, redis } = world;
  const before = await world.dial();
  assertEquals(dialler.isOld(before), false);
  redis.becomeAnother();
  assertEquals([world.told(), dialler.isOld(before)], [["cut old"], true]);
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

Deno.test("What was lost is dialled 64 at one time, each with its time from its turn on", async () => {
  await using world = new World();
  using ticks = new HeldIntervals(500);
  const { dialler, clock } = world;
  const ends: unknown[] = [];
  let begun = 0;
  const redial = (work: (attempt: Attempt) => Promise<unknown>, signal = new AbortController().signal) => {
    const counted = (attempt: Attempt) => (begun++, work(attempt));
    dialler.redial(signal, counted).then((value) => ends.push(value), ({ message }) => ends.push(message));
  };
  const hung = (attempt: Attempt) => attempt.step(new Promise(() => {}));
  for (let i = 0; i < 64; i++) redial(hung);
  const leaving = new AbortController();
  redial(hung, leaving.signal);
  redial(() => Promise.resolve("there"));
  await turn();
  leaving.abort(new Error("left"));
  clock.pass(2_999);
  ticks.run();
  await turn();
  assertEquals([begun, ends], [64, ["left"]]);
  clock.pass(1);
  ticks.run();
  for (let i = 0; i < MANY_TURNS && ends.length < 66; i++) await turn();
  const late = "Redis did not confirm a subscription within 3000 ms";
  assertEquals([begun, ends.filter((end) => end === late).length], [65, 64]);
  assert(ends.includes("there"));
});
