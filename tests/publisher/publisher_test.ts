/**
 * The publisher as a backend uses it: opened on its own, beside nodes that hold the sockets. The HTTP API over
 * it has tests of its own.
 */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import {
  BrokerUnavailableError,
  ConfigError,
  InvalidMessageError,
  InvalidUsernameError,
} from "../../src/protocol/errors.ts";
import type { Payload } from "../../src/protocol/envelope.ts";
import type { Sendable } from "../../src/publisher/payload.ts";
import type { RedisTls } from "../../src/redis/address.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const HELLO: Payload = { kind: "text", text: "hello" };
const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;

/** How often Redis ran each command since the last look, without what the look itself takes. */
async function commandsOf(redis: RedisServer): Promise<Record<string, number>> {
  const stats = String(await redis.cli("INFO", "commandstats"));
  await redis.cli("CONFIG", "RESETSTAT");
  const counts = [...stats.matchAll(/^cmdstat_([\w|]+):calls=(\d+)/gm)].map((
    [, name, calls],
  ) => [name, Number(calls)]);
  return Object.fromEntries(
    counts.filter(([name]) => name !== "ping" && name !== "info" && name !== "config|resetstat"),
  );
}

// ---------------------------------------------------------------------------------------------------------
// Sending

redisTest("Publisher.send reaches every socket of the user on every node and says how many", async () => {
  await using redis = await RedisServer.start();
  await using here = await Service.start({ REDIS_URL: redis.url });
  await using there = await Service.start({ REDIS_URL: redis.url });
  await using publisher = await Publisher.open({ redisUrl: redis.url });
  await using raw = await openClient(here.socketUrl("alice"));
  await using framed = await openClient(there.socketUrl("alice"), ["userwire.v1"]);
  await using bob = await openClient(there.socketUrl("bob"));
  assertEquals((await framed.nextJson()).t, "hi");

  const bytes = Uint8Array.of(0, 128, 255);
  const cases: { payload: Payload; raw: unknown; data: unknown }[] = [
    { payload: { kind: "json", text: '{ "order": 7.0 }' }, raw: '{ "order": 7.0 }', data: { order: 7 } },
    { payload: { kind: "text", text: 'say "hi"\n' }, raw: 'say "hi"\n', data: 'say "hi"\n' },
    { payload: { kind: "text", text: "" }, raw: "", data: "" },
    { payload: { kind: "binary", bytes }, raw: bytes, data: "AID/" },
  ];
  for (const { payload, raw: wanted, data } of cases) {
    const before = Date.now();
    const { id, sockets } = await publisher.send("alice", payload);
    assertMatch(id, UUID);
    assertEquals(sockets, 2);
    assertEquals(await raw.next(), wanted);
    const frame = await framed.nextJson();
    assertEquals([frame.t, frame.id, frame.data], ["m", id, data]);
    assert(Number(frame.ts) >= before && Number(frame.ts) <= Date.now());
  }
  assertEquals(bob.waiting, []);
});

redisTest("Publisher.send takes one command, whether the user is there or not", async () => {
  await using redis = await RedisServer.start();
  // No service: it asks Redis things by itself.
  using alice = await RedisCommands.connect({ port: redis.port });
  await alice.command("SUBSCRIBE", "alice");
  await using publisher = await Publisher.open({ redisUrl: redis.url, history: 0 });

  await commandsOf(redis);
  assertEquals((await publisher.send("alice", HELLO)).sockets, 1);
  assertEquals((await publisher.send("nobody", HELLO)).sockets, 0);
  // Whom nobody hears need not be counted.
  assertEquals(await commandsOf(redis), { evalsha: 2, publish: 2, "pubsub|numpat": 1 });
  await publisher.online(["alice", "nobody", "alice"]);
  assertEquals(await commandsOf(redis), { "pubsub|numsub": 1 });

  // Who watches by pattern is in what PUBLISH answers, wherever the pattern leads.
  using watcher = await RedisCommands.connect({ port: redis.port });
  await watcher.command("PSUBSCRIBE", "other*");
  await commandsOf(redis);
  assertEquals((await publisher.send("alice", HELLO)).sockets, 1);
  assertEquals(await commandsOf(redis), { evalsha: 1, publish: 1, "pubsub|numpat": 1, "pubsub|numsub": 1 });
});

redisTest("Publisher.send uses the id it is given, and clients see it", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using publisher = await Publisher.open({ redisUrl: redis.url, history: 0 });
  await using alice = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  await alice.nextJson();

  for (const id of ["7", "order:7.v-2_x", "x".repeat(64)]) {
    assertEquals(await publisher.send("alice", HELLO, { id }), { id, sockets: 1 });
    assertEquals((await alice.nextJson()).id, id);
  }
  for (const id of ["", " ", "a b", 'a"b', "é", "x".repeat(65), "a\n"]) {
    await assertRejects(() => publisher.send("alice", HELLO, { id }), InvalidMessageError, "message id");
  }
  assertEquals(alice.waiting, []);
});

Deno.test("Publisher.send refuses what can't be sent, before it is sent", async () => {
  const broker = new MemoryBroker();
  const recorder = new Recorder();
  await broker.subscribe("alice", recorder);
  await using publisher = new Publisher(
    broker,
    new MemoryHistory(broker, { limits: { count: 0, ttlMs: 1 } }),
  );

  for (const text of ["", "{", "undefined", "{'a':1}", "1 2"]) {
    await assertRejects(
      () => publisher.send("alice", { kind: "json", text }),
      InvalidMessageError,
      "not JSON",
    );
  }
  for (const username of ["", "a b", "{alice}", "userwire:x", "x".repeat(129), "\u0000"]) {
    await assertRejects(() => publisher.send(username, HELLO), InvalidUsernameError);
    await assertRejects(() => publisher.isOnline(username), InvalidUsernameError);
    await assertRejects(() => publisher.online(["alice", username]), InvalidUsernameError);
  }
  assertEquals(recorder.payloads, []);
  await broker.close();
});

// ---------------------------------------------------------------------------------------------------------
// Asking

redisTest("Publisher says who is online, and how many sockets each has over all nodes", async () => {
  await using redis = await RedisServer.start();
  await using here = await Service.start({ REDIS_URL: redis.url });
  await using there = await Service.start({ REDIS_URL: redis.url });
  await using publisher = await Publisher.open({ redisUrl: redis.url });
  await using _first = await openClient(here.socketUrl("alice"));
  await using second = await openClient(there.socketUrl("alice"));
  await using bob = await openClient(there.socketUrl("bob"));

  assertEquals([await publisher.count("alice"), await publisher.count("carol")], [2, 0]);
  assertEquals([await publisher.isOnline("bob"), await publisher.isOnline("carol")], [true, false]);
  assertEquals([...await publisher.online(["carol", "alice", "bob", "alice"])], [["carol", 0], ["alice", 2], [
    "bob",
    1,
  ]]);
  assertEquals([...await publisher.online([])], []);

  await second.close();
  await bob.close();
  await new Truth(redis).untilCount("bob", 0);
  await new Truth(redis).untilCount("alice", 1);
  assertEquals([...await publisher.online(["alice", "bob"])], [["alice", 1], ["bob", 0]]);
  assertEquals(await publisher.isOnline("bob"), false);
});

redisTest("Publisher.open takes the same prefix and letter case as the nodes", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({
    REDIS_URL: redis.url,
    USERWIRE_CHANNEL_PREFIX: "shop:",
    USERWIRE_USERNAME_CASE: "lower",
  });
  await using publisher = await Publisher.open({
    redisUrl: redis.url,
    channelPrefix: "shop:",
    foldUsernames: true,
  });
  await using stranger = await Publisher.open({ redisUrl: redis.url });
  await using alice = await openClient(service.socketUrl("Alice"));

  assertEquals((await publisher.send("ALICE", HELLO)).sockets, 1);
  assertEquals(await alice.next(), "hello");
  // Answered under the names that were asked for.
  assertEquals([...await publisher.online(["ALICE", "alice"])], [["ALICE", 1], ["alice", 1]]);
  assertEquals((await stranger.send("alice", HELLO)).sockets, 0);
});

// ---------------------------------------------------------------------------------------------------------
// Opening and closing

redisTest("Publisher.open holds one connection to Redis, and close gives it back", async () => {
  await using redis = await RedisServer.start();
  const clients = async () => String(await redis.cli("CLIENT", "LIST")).trim().split("\n").length - 1;
  const publisher = await Publisher.open({ redisUrl: redis.url });
  await publisher.send("alice", HELLO);
  assertEquals(await clients(), 1);

  await publisher.close();
  await publisher.close();
  await until(async () => await clients() === 0, "Redis to have no client");
  await assertRejects(() => publisher.send("alice", HELLO), BrokerUnavailableError, "closed");
  await assertRejects(() => publisher.isOnline("alice"), BrokerUnavailableError, "closed");
});

redisTest("Publisher.open says clearly that Redis refuses the password", async () => {
  await using redis = await RedisServer.start({ password: "right-one" });
  for (const login of [":wrong-one@", "mallory:wrong-one@", ""]) {
    const redisUrl = `redis://${login}127.0.0.1:${redis.port}`;
    const error = await assertRejects(() => Publisher.open({ redisUrl }), Error);
    assertMatch(
      error.message,
      /^Can't open a publisher: Redis (refused the password or the user|wants a password)$/,
    );
    assert(!Deno.inspect(error).includes("wrong-one"));
  }
  await using publisher = await Publisher.open({ redisUrl: redis.url });
  assertEquals((await publisher.send("alice", HELLO)).sockets, 0);
});

redisTest("Publisher.open does not wait for a Redis that is away, and sends when it is there", async () => {
  await using redis = await RedisServer.start();
  await redis.stop();
  await using publisher = await Publisher.open({ redisUrl: redis.url });

  const error = await assertRejects(() => publisher.send("alice", HELLO), BrokerUnavailableError);
  assertEquals(error.outcome, "refused");
  assertStringIncludes(error.message, "Redis is not available");
  await redis.restart();
  await until(() => publisher.send("alice", HELLO).then(() => true, () => false), "a send to be answered");
});

redisTest(
  "Publisher.send that Redis does not answer rejects in time and says that the outcome is unknown",
  async () => {
    await using redis = await RedisServer.start();
    await using publisher = await Publisher.open({ redisUrl: redis.url, redisTimeoutMs: 2_000 });
    // A heartbeat may be on its way: by the time that one is given up, the send must have been written.
    await redis.pause();

    const error = await assertRejects(
      () => withDeadline(publisher.send("alice", HELLO), 20_000, "the send to be given up"),
      BrokerUnavailableError,
    );

    assertEquals([error.outcome, error.message], ["unknown", "Redis did not answer within 2000 ms"]);
    const next = await assertRejects(() => publisher.send("alice", HELLO), BrokerUnavailableError);
    assertEquals([next.outcome, next.message], ["refused", "Redis does not answer"]);
    redis.resume();
    await until(() => publisher.isOnline("alice").then(() => true, () => false), "an answer");
  },
);

Deno.test("Publisher.open rejects what is no URL of Redis, without showing it", async () => {
  for (const redisUrl of ["", "localhost:6379", "http://localhost", "redis://:s3cret@localhost:99999"]) {
    const error = await assertRejects(() => Publisher.open({ redisUrl }), TypeError, "redis://");
    assert(!Deno.inspect(error).includes("s3cret"));
  }
});

Deno.test("Publisher.open without a Redis reaches nobody but itself", async () => {
  await using publisher = await Publisher.open({});
  assertEquals((await publisher.send("alice", HELLO)).sockets, 0);
  assertEquals(await publisher.isOnline("alice"), false);
});

Deno.test("Publisher.open refuses a database without a prefix, and a prefix that can't be used, before it connects", async () => {
  const faultOf = async (options: Parameters<typeof Publisher.open>[0]) =>
    (await assertRejects(() => Publisher.open(options), ConfigError)).message;
  for (const redisUrl of ["redis://user:hunter2@127.0.0.1:1/3", "unix:///no/redis.sock?db=3"]) {
    const fault = await faultOf({ redisUrl });
    assertMatch(fault, /^redisUrl names database 3, .*: set channelPrefix to a prefix of its own/);
    assert(!fault.includes("hunter2"));
  }
  for (const channelPrefix of ["{a}", "a b", "a\n", "__a", "userwire:"]) {
    assertMatch(await faultOf({ channelPrefix }), /^channelPrefix must be text without white space/);
  }
  await using _publisher = await Publisher.open({ channelPrefix: "prod:" });
});

Deno.test("Publisher.open refuses what is no certificate before it connects, and shows nothing of it", async () => {
  const faultOf = async (redisTls: RedisTls, redisUrl = "rediss://127.0.0.1:1") => {
    const { message } = await assertRejects(() => Publisher.open({ redisUrl, redisTls }), ConfigError);
    assert(!message.includes("hunter2"));
    return message;
  };
  const cert = "-----BEGIN CERTIFICATE-----", key = "-----BEGIN EC PRIVATE KEY-----";
  const expected = "must be a certificate in PEM: give what the file holds, not its path";
  assertEquals(await faultOf({ ca: "/etc/hunter2.pem" }), `redisTls.ca ${expected}`);
  assertEquals(await faultOf({ cert: "hunter2", key }), `redisTls.cert ${expected}`);
  assertMatch(await faultOf({ cert, key: cert + "hunter2" }), /^redisTls.key must be a private key in PEM/);
  for (const half of [{ cert }, { key }]) assertMatch(await faultOf(half), /^redisTls.cert and .key belong/);
  for (const url of ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/mymaster", "unix:///no.sock"]) {
    assertMatch(await faultOf({ ca: cert }, url), /^redisTls is for addresses with rediss:\/\//);
  }
});

// ---------------------------------------------------------------------------------------------------------
// What can be sent

Deno.test("Publisher.send takes values as JSON, strings as text, bytes as bytes, and payloads as they say", async () => {
  await using service = await Service.start();
  const { publisher } = service.server.app;
  await using raw = await openClient(service.socketUrl("alice"));
  await using framed = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  await framed.nextJson();
  const date = new Date(0);
  const cases: [message: Sendable, raw: unknown, data: unknown][] = [
    [{ order: 7 }, '{"order":7}', { order: 7 }],
    [[1, null], "[1,null]", [1, null]],
    [{}, "{}", {}],
    [Object.create(null), "{}", {}],
    [null, "null", null],
    [false, "false", false],
    [7.5, "7.5", 7.5],
    [date, `"${date.toJSON()}"`, date.toJSON()],
    [{ kind: "order", text: 1 }, '{"kind":"order","text":1}', { kind: "order", text: 1 }],
    ["hello", "hello", "hello"],
    ['{"order":7}', '{"order":7}', '{"order":7}'],
    [Uint8Array.of(1, 2), Uint8Array.of(1, 2), "AQI="],
    [Uint8Array.of(1, 2).buffer, Uint8Array.of(1, 2), "AQI="],
    [{ kind: "json", text: "7.0" }, "7.0", 7],
    [{ kind: "text", text: "7" }, "7", "7"],
    [{ kind: "binary", bytes: Uint8Array.of(3) }, Uint8Array.of(3), "Aw=="],
  ];
  for (const [message, wanted, data] of cases) {
    await publisher.send("alice", message);
    assertEquals(await raw.next(), wanted);
    assertEquals((await framed.nextJson()).data, data);
    await publisher.sendToAll(["alice"], message);
    assertEquals(await raw.next(), wanted);
    assertEquals((await framed.nextJson()).data, data);
  }
});

Deno.test("Publisher.send refuses what is no payload, before anything is sent", async () => {
  await using service = await Service.start();
  const { publisher } = service.server.app;
  await using alice = await openClient(service.socketUrl("alice"));
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  const cases: [message: unknown, says: RegExp][] = [
    [undefined, /Undefined is no payload/],
    [() => 7, /function is no payload/],
    [Symbol("x"), /symbol is no payload/],
    [7n, /can't be written as JSON/],
    [{ n: 7n }, /can't be written as JSON/],
    [circle, /can't be written as JSON/],
    [NaN, /NaN is no payload/],
    [-Infinity, /-Infinity is no payload/],
    [new Date("31.11.2026"), /Date is no payload/],
    [Object(NaN), /Number is no payload/],
    [{ toJSON: () => null }, /would be null/],
    [new Map([["order", 7]]), /Map is no payload/],
    [Promise.resolve({ order: 7 }), /Promise is no payload/],
    [new Float32Array(1), /Uint8Array/],
    [{ kind: "text" }, /needs "text"/],
    [{ kind: "json" }, /needs "text"/],
    [{ kind: "json", text: { order: 7 } }, /needs "text"/],
    [{ kind: "json", text: "{order:7}" }, /not JSON/],
    [{ kind: "binary", bytes: [1] }, /needs "bytes"/],
    [{ kind: "binary", text: "x" }, /needs "bytes"/],
    [{ toJSON: () => undefined }, /no payload/],
    [{
      toJSON() {
        throw new Error("not me");
      },
    }, /not me/],
  ];
  for (const [message, says] of cases) {
    const refused = await assertRejects(
      () => publisher.send("alice", message as Sendable),
      InvalidMessageError,
    );
    assertMatch(refused.message, says);
    await assertRejects(() => publisher.sendToAll(["alice"], message as Sendable), InvalidMessageError);
  }
  await publisher.send("alice", "after");
  assertEquals(await alice.next(), "after");
  assertEquals((await publisher.history("alice")).last, 1);
});

Deno.test("Publisher.sendToAll sends also what is larger than a page", async () => {
  await using service = await Service.start();
  const { publisher } = service.server.app;
  const names = ["alice", "bob", "carol"];
  await using bob = await openClient(service.socketUrl("bob"));
  const text = "x".repeat(200_000);
  const results = await withDeadline(publisher.sendToAll(names, text), 20_000, "the sends");
  assertEquals(results.map(({ status }) => status), names.map(() => "fulfilled"));
  assertEquals(await bob.next(), text);
});

Deno.test("Publisher.history is of one epoch, also when another begins while it is read", async () => {
  const broker = new MemoryBroker();
  const history = new MemoryHistory(broker, { limits: { count: 9, ttlMs: 60_000 } });
  await using publisher = new Publisher(broker, history);
  for (let n = 1; n <= 6; n++) await publisher.send("alice", n);
  const since = history.since.bind(history);
  let reads = 0;
  // The store hands out two at a time, and is set back in between.
  history.since = async (channel, after, limit, options) => {
    const page = await since(channel, after, Math.min(limit, 2), options);
    return ++reads === 1 ? page : { ...page, epoch: "another" };
  };
  const { frames, first } = await publisher.history("alice");
  assertEquals([first, frames.map((frame) => JSON.parse(frame).data), reads], [1, [1, 2], 2]);
  await broker.close();
});

Deno.test("Publisher.claim that is not answered is a send that was refused, for none has begun", async () => {
  const broker = new MemoryBroker();
  const history = new MemoryHistory(broker, { limits: { count: 9, ttlMs: 60_000 } });
  await using publisher = new Publisher(broker, history);
  history.claim = () => Promise.reject(new BrokerUnavailableError("No answer", { outcome: "unknown" }));
  const { outcome } = await assertRejects(() => publisher.claim("key", "print"), BrokerUnavailableError);
  assertEquals(outcome, "refused");
  await broker.close();
});
