import { assert, assertEquals, assertMatch } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import type { Subscription } from "../../src/broker/broker.ts";
import { Dialler } from "../../src/broker/dialler.ts";
import { SharedSubscriptions } from "../../src/broker/shared.ts";
import type { Log } from "../../src/log/log.ts";
import { Redis } from "../../src/redis/commands.ts";
import { Standalone } from "../../src/redis/standalone.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { connected } from "../../testkit/connected.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { brokerContract } from "../contracts/broker.ts";
import { redisBrokerContract } from "../contracts/redis_broker.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Chance } from "../../testkit/random.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

function open(url: string, options: { log?: Log; sharedConnections?: number } = {}) {
  return openEngine({ redisUrl: url, subscriptions: "shared", sharedConnections: 2, ...options });
}

brokerContract("SharedRedisBroker", async () => {
  const server = await RedisServer.start();
  const ours = open(server.url);
  const theirs = open(server.url);
  await connected(ours, theirs);
  return {
    broker: ours.broker,
    peer: theirs.broker,
    countOutside: async (channel) => Number((await server.cli("PUBSUB", "NUMSUB", channel) as unknown[])[1]),
    async dispose() {
      await ours.close();
      await theirs.close();
      await server[Symbol.asyncDispose]();
    },
  };
}, { test: redisTest });

redisBrokerContract("SharedRedisBroker", (url) => {
  const { broker, close } = open(url);
  return { broker, dispose: close };
}, { isDedicated: false });

/** What the log says of shared connections. */
function said({ records }: ReturnType<typeof memoryLog>): string[] {
  return records.filter(({ event }) => /^(shared connection|subscription) /.test(event))
    .map(({ level, event, fields }) => `${level}: ${event}, ${fields.detail}`);
}

redisTest("SharedRedisBroker dials a Redis that has no room ever more slowly, and says so once", async () => {
  await using server = await RedisServer.start();
  await using stack = new AsyncDisposableStack();
  using admin = await RedisCommands.connect({ port: server.port });
  const log = memoryLog();
  const { broker, close } = open(server.url, { log, sharedConnections: 1 });
  stack.defer(close);
  await until(() => broker.unavailable() === undefined, "Redis to be connected");
  const recorder = new Recorder();
  await broker.subscribe("alice", recorder);
  assertEquals(said(log), []);

  await admin.command("CONFIG", "SET", "maxclients", 1);
  const startedAt = performance.now();
  await admin.command("CLIENT", "KILL", "TYPE", "pubsub");
  const rejected = async () =>
    Number(/^rejected_connections:(\d+)/m.exec(String(await admin.command("INFO", "stats")))?.[1]);
  await until(async () => await rejected() >= 8, "eight refused connections", 30_000);
  // The pauses are random, of 3.5 s together on average, and less than this once in a million times.
  const tookMs = performance.now() - startedAt;
  assert(tookMs > 100, `eight connections were refused within ${tookMs} ms`);
  assertEquals(recorder.changes, ["lost"]);

  await admin.command("CONFIG", "SET", "maxclients", 1_000);
  await recorder.isRestored();
  assertEquals(said(log), [
    "warn: shared connection lost, Redis closed the connection",
    "warn: subscription failed, ERR max number of clients reached",
  ]);
});

redisTest("SharedSubscriptions asks for what was refused again when that may be granted", async () => {
  await using server = await RedisServer.start();
  await using stack = new AsyncDisposableStack();
  const topology = new Standalone(new UrlSource({ url: server.url }));
  const redis = stack.adopt(Redis.open(topology), (redis) => redis.close());
  const dialler = stack.adopt(
    new Dialler({ topology, redis, timeoutMs: 5_000 }),
    (dialler) => dialler.close(),
  );
  // Nobody checks its health, which would ask, too.
  const subscriptions = new SharedSubscriptions({ dialler, redis, connections: 1 });
  stack.defer(() => subscriptions.close());
  await redis.availability.whenReady();
  const recorder = new Recorder();
  await subscriptions.subscribe("alice", recorder, undefined);
  await server.cli("ACL", "SETUSER", "default", "resetchannels"); // hangs up
  await until(
    async () => (await server.cli("ACL", "LOG") as unknown[]).length > 0,
    "the channel to be refused",
  );
  await server.cli("ACL", "SETUSER", "default", "allchannels");
  await until(() => {
    subscriptions.askAgain();
    return recorder.changes.at(-1) === "restored";
  }, "the channel to be had again");
  assertEquals([recorder.changes, subscriptions.lost], [["lost", "restored"], 0]);
});

redisTest("SharedRedisBroker knows who listens, whatever is refused while users come and go", async () => {
  await Chance.run(async (chance) => {
    await using server = await RedisServer.start();
    await using stack = new AsyncDisposableStack();
    const { broker, close } = open(server.url, { sharedConnections: 1 });
    stack.defer(close);
    await until(() => broker.unavailable() === undefined, "Redis to be connected");
    await server.cli("ACL", "SETUSER", "default", "resetchannels", "&good*");
    const watch = new Recorder();
    await broker.subscribe("good", watch);
    const names = Array.from({ length: 8 }, (_, i) => i < 5 ? `good${i}` : `bad${i}`);
    const held = new Map<string, Subscription[]>(names.map((name) => [name, []]));
    const users = Array.from({ length: 40 }, async () => {
      for (let round = 0; round < 20; round++) {
        const name = names[chance.below(names.length)]!;
        await chance.pause();
        const outcome = await broker.subscribe(name, new Recorder()).catch((error: Error) => error.message);
        assertEquals(typeof outcome === "string", name.startsWith("bad"), `${name}: ${outcome}`);
        if (typeof outcome === "string") {
          assertMatch(outcome, /rights that are needed/);
        } else {
          await chance.pause();
          if (round < 19) await outcome.close();
          else held.get(name)!.push(outcome);
        }
      }
    });
    await withDeadline(Promise.all(users), 30_000, "all to have come and gone");
    assertEquals(await broker.counts(names), names.map((name) => Math.min(held.get(name)!.length, 1)));
    await Promise.all([...held.values()].flat().map((subscription) => subscription.close()));
    assertEquals(await broker.counts(names), names.map(() => 0));
    assertEquals(watch.changes, []);
  });
});

redisTest("SharedRedisBroker says once that a channel can't be had back", async () => {
  await using server = await RedisServer.start();
  await using stack = new AsyncDisposableStack();
  const log = memoryLog();
  const { broker, close } = open(server.url, { log, sharedConnections: 1 });
  stack.defer(close);
  await until(() => broker.unavailable() === undefined, "Redis to be connected");
  for (const name of ["bad1", "bad2", "good"]) await broker.subscribe(name, new Recorder());
  await server.cli("ACL", "SETUSER", "default", "resetchannels", "&good");
  const refused = () => log.records.filter(({ event }) => event === "subscription refused");
  await until(() => refused().length > 0, "the log to say it");
  assertEquals(refused().map(({ level, fields }) => [level, fields.channel]), [["warn", "bad1"]]);
  assertMatch(String(refused()[0]!.fields.reason), /^Redis does not grant its user the rights/);
  assertMatch(String(refused()[0]!.fields.detail), /^NOPERM /);
});

redisTest("SharedRedisBroker leaves a channel also when Redis lets nobody unsubscribe", async () => {
  await using server = await RedisServer.start();
  await using stack = new AsyncDisposableStack();
  const { broker, close } = open(server.url, { sharedConnections: 1 });
  stack.defer(close);
  await until(() => broker.unavailable() === undefined, "Redis to be connected");
  await server.cli("ACL", "SETUSER", "default", "-unsubscribe");
  const staying = new Recorder();
  await broker.subscribe("bob", staying);
  const leaving = await broker.subscribe("alice", new Recorder());
  await withDeadline(leaving.close(), 3_000, "the subscription to close");
  await staying.isRestored();
  assertEquals(await broker.counts(["alice", "bob"]), [0, 1]);
  assertMatch(staying.reasons[0]!, /NOPERM .*unsubscribe/);
});
