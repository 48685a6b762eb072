/**
 * The reference flow over two nodes and one real Redis: connect, send through any node, deliver. What the
 * reference system's own clients and backends rely on is held to the byte. How connections end is in
 * `close_paths_test.ts`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

/** A client as the reference system ships it: the root path, and its name in the first frame. */
async function openReferenceClient(service: Service, username: string): Promise<WsClient> {
  const client = await openClient(service.server.url.replace("http:", "ws:"));
  client.send(JSON.stringify({ user_name: username }));
  // Answered in order with what came before: whoever has the pong has been heard.
  client.send("ping");
  assertEquals(await client.next(), "pong");
  return client;
}

/** A payload of a backend that knows nothing of us, sent once the channel has the subscriptions it waits for. */
async function publishOutside(
  redis: RedisServer,
  channel: string,
  payload: string | Uint8Array,
  sockets = 1,
) {
  const truth = new Truth(redis);
  await truth.untilCount(channel, sockets);
  assertEquals(await redis.cli("PUBLISH", channel, payload), sockets);
}

redisTest(
  "The reference client connects at the root, says its name and gets each payload byte for byte",
  async () => {
    await using redis = await RedisServer.start();
    await using here = await Service.start({ REDIS_URL: redis.url });
    await using there = await Service.start({ REDIS_URL: redis.url });
    await using alice = await openReferenceClient(here, "alice");

    const payloads = [
      "hello",
      "",
      '{ "spaced" : [1.0, 1e2, "\\u00e9"] }',
      "ping",
      "  white\tspace\r\n",
      "\ufeffmark, é, 🚀, \u0000",
      "\u0001uw2 looks like an envelope",
      "x".repeat(200_000),
    ];
    for (const payload of payloads) {
      await publishOutside(redis, "alice", payload);
      assertEquals(await alice.next(), payload);
    }

    const bytes = Uint8Array.of(0, 255, 254, 10, 13, 0x80);
    await publishOutside(redis, "alice", bytes);
    assertEquals(await alice.next(), bytes);

    const json = '{ "order" : 7.0 }';
    const answer = await there.fetch("/v1/users/alice/messages", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: json,
    });
    assertEquals([answer.status, (await answer.json()).sockets], [200, 1]);
    assertEquals(await alice.next(), json);
    assertEquals((await there.send("alice", "plain text")).body.sockets, 1);
    assertEquals(await alice.next(), "plain text");
    assertEquals((await there.send("alice", bytes)).body.sockets, 1);
    assertEquals(await alice.next(), bytes);

    alice.send("ping");
    assertEquals(await alice.next(), "pong");
    assertEquals(alice.waiting, []);
  },
);

redisTest("A framed client gets the same payloads as m frames, foreign ones without an id", async () => {
  await using redis = await RedisServer.start();
  const settings = { REDIS_URL: redis.url, USERWIRE_HISTORY: "0" };
  await using here = await Service.start({ ...settings, USERWIRE_NODE: "here" });
  await using there = await Service.start(settings);
  await using alice = await openClient(here.socketUrl("alice"), ["userwire.v1"]);

  const { conn, ...hi } = await alice.nextJson();
  assertEquals(typeof conn, "string");
  assertEquals(hi, {
    t: "hi",
    v: 1,
    user: "alice",
    node: "here",
    resumed: false,
    replay: 0,
    ping: 25,
    max: 65_536,
  });
  const before = Date.now();

  async function next() {
    const { ts, ...frame } = await alice.nextJson();
    assert(Number(ts) >= before && Number(ts) <= Date.now(), `ts is ${ts}`);
    return frame;
  }

  await publishOutside(redis, "alice", "not JSON {");
  assertEquals(await next(), { t: "m", data: "not JSON {" });
  await publishOutside(redis, "alice", '{"a": [1, null]}');
  assertEquals(await next(), { t: "m", data: { a: [1, null] } });
  await publishOutside(redis, "alice", Uint8Array.of(255, 0));
  assertEquals(await next(), { t: "m", enc: "base64", data: "/wA=" });

  for (const payload of [{ order: 7 }, null, 'text with "quotes"']) {
    const { body } = await there.send("alice", payload);
    assertEquals(await next(), { t: "m", id: body.id, data: payload });
  }
  const { body } = await there.send("alice", Uint8Array.of(255, 0));
  assertEquals(await next(), { t: "m", id: body.id, enc: "base64", data: "/wA=" });
});

redisTest(
  "Every socket of a user on every node gets the message, and the send says how many",
  async () => {
    await using redis = await RedisServer.start();
    await using here = await Service.start({ REDIS_URL: redis.url });
    await using there = await Service.start({ REDIS_URL: redis.url });
    const truth = new Truth(redis);

    const clients = new AsyncDisposableStack();
    await using _ = clients;
    const alices: WsClient[] = [];
    for (const service of [here, here, there, there, there]) {
      alices.push(clients.use(await openClient(service.socketUrl("alice"))));
      const open = alices.length;
      for (const sender of [here, there]) {
        const { status, body } = await sender.send("alice", open);
        assertEquals([status, body.sockets], [200, open]);
        for (const alice of alices) assertEquals(await alice.next(), String(open));
      }
    }
    await using bob = await openClient(here.socketUrl("bob"));
    assertEquals([await here.sockets("alice"), await there.sockets("alice"), await truth.count("alice")], [
      5,
      5,
      5,
    ]);
    assertEquals((await truth.subscribers()).length, 6);

    await alices[0]!.close();
    await truth.untilCount("alice", 4);
    assertEquals((await there.send("alice", "fewer")).body.sockets, 4);
    for (const alice of alices.slice(1)) assertEquals(await alice.next(), "fewer");
    assertEquals(bob.waiting, []);
  },
);

redisTest("A send to a user who is offline answers 202 with no socket and nothing stored", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_HISTORY: "0" });

  const { status, body: { id, ...receipt } } = await service.send("alice", "anybody there?");

  assertEquals([status, receipt, typeof id], [202, { sockets: 0, stored: false }, "string"]);
  // Nodes list themselves, and try what they can do: those keys are nobody's message.
  const keys = await redis.cli("KEYS", "*") as string[];
  assertEquals(keys.filter((key) => !key.startsWith("userwire:{userwire:")), []);
  await using alice = await openClient(service.socketUrl("alice"));
  assertEquals((await service.send("alice", "now")).body.sockets, 1);
  assertEquals(await alice.next(), "now");
});

redisTest("Usernames are case-sensitive, and are the channel as they stand", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using upper = await openReferenceClient(service, "Alice");
  await using lower = await openClient(service.socketUrl("alice"));
  await using other = await openClient(service.socketUrl("zoë/☕%41"));

  const truth = new Truth(redis);
  await truth.untilCount("Alice", 1); // "pong" does not wait for the subscription
  assertEquals(await truth.channels(), ["Alice", "alice", "zoë/☕%41"].sort());
  for (const [username, client] of [["Alice", upper], ["alice", lower], ["zoë/☕%41", other]] as const) {
    assertEquals((await service.send(username, username)).body.sockets, 1);
    assertEquals(await client.next(), username);
  }
  assertEquals((await service.send("ALICE", "x")).status, 202);
});

redisTest("USERWIRE_USERNAME_CASE=lower folds names wherever they come in", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_USERNAME_CASE: "lower" });
  await using first = await openReferenceClient(service, "ALICE");
  await using second = await openClient(service.socketUrl("Alice"));
  const truth = new Truth(redis);

  await truth.untilCount("alice", 2);
  assertEquals(await truth.channels(), ["alice"]);
  assertEquals((await service.send("aLiCe", "one")).body.sockets, 2);
  await publishOutside(redis, "alice", "two", 2);
  for (const client of [first, second]) {
    assertEquals([await client.next(), await client.next()], ["one", "two"]);
  }
  assertEquals(await service.sockets("ALIce"), 2);
});

redisTest("USERWIRE_CHANNEL_PREFIX keeps two installations on one Redis apart", async () => {
  await using redis = await RedisServer.start();
  await using red = await Service.start({ REDIS_URL: redis.url, USERWIRE_CHANNEL_PREFIX: "red:" });
  await using blue = await Service.start({ REDIS_URL: redis.url, USERWIRE_CHANNEL_PREFIX: "blue:" });
  await using redAlice = await openReferenceClient(red, "alice");
  await using blueAlice = await openClient(blue.socketUrl("alice"));

  await publishOutside(redis, "red:alice", "to red");
  await publishOutside(redis, "blue:alice", "to blue");
  assertEquals(await redAlice.next(), "to red");
  assertEquals(await blueAlice.next(), "to blue");
  assertEquals((await blue.send("alice", "again")).body.sockets, 1);
  assertEquals(await blueAlice.next(), "again");
  assertEquals([await red.sockets("alice"), redAlice.waiting], [1, []]);
});

redisTest("Messages of one sender arrive in order, however fast they come", async () => {
  await using redis = await RedisServer.start();
  // Three thousand sends at once wait for each other, longer than the three seconds that Redis has by default.
  const env = { REDIS_URL: redis.url, USERWIRE_REDIS_TIMEOUT_MS: "30000" };
  await using here = await Service.start(env);
  await using there = await Service.start(env);
  await using alice = await openClient(here.socketUrl("alice"));
  const { publisher } = there.server.app;

  const numbers = Array.from({ length: 3_000 }, (_, i) => String(i));
  const receipts = await Promise.all(numbers.map((text) => publisher.send("alice", { kind: "json", text })));

  assertEquals(new Set(receipts.map(({ sockets }) => sockets)), new Set([1]));
  assertEquals(new Set(receipts.map(({ id }) => id)).size, numbers.length);
  for (const number of numbers) assertEquals(await alice.next(), number);
});

redisTest(
  "Redis' own channels are no user's, in no handshake and no call, unless there is a prefix",
  async () => {
    await using redis = await RedisServer.start({ args: ["--notify-keyspace-events", "KEA"] });
    const name = "__keyevent@0__:set", path = encodeURIComponent(name);
    await using bare = await Service.start({ REDIS_URL: redis.url });
    await using prefixed = await Service.start({ REDIS_URL: redis.url, USERWIRE_CHANNEL_PREFIX: "red:" });
    const statuses = async (service: Service) => {
      const json = { "content-type": "application/json" };
      const post = (body: unknown) => ({ method: "POST", headers: json, body: JSON.stringify(body) });
      const found = [];
      for (
        const [to, init] of [
          [`/v1/users/${path}/messages`, post(1)],
          [`/v1/users/${path}`, {}],
          [`/v1/users/${path}/messages`, {}],
          [`/v1/users/online`, post({ users: [name] })],
          [`/v1/users/${path}/connections`, { method: "DELETE" }],
          [`/v1/users/${path}/revocations`, post({})],
          [`/v1/tickets`, post({ user: name })],
        ] as [string, RequestInit][]
      ) {
        const response = await service.fetch(to, init);
        await response.body?.cancel();
        found.push(response.status);
      }
      return found;
    };
    assertEquals(await statuses(bare), Array(7).fill(400));
    assertEquals(await statuses(prefixed), [202, 200, 200, 200, 200, 201, 201]);
    await using byQuery = await RawSocket.open(bare.socketUrl(name));
    assertEquals(byQuery.answer.status, 400);
    assertMatch(byQuery.answer.body, /those of Redis itself/);
    await using byFrame = await openClient(bare.socketUrl());
    byFrame.send(JSON.stringify({ user_name: name }));
    assertEquals((await byFrame.closed).code, 4400);
    await using red = await openClient(prefixed.socketUrl(name));
    await redis.cli("SET", "secret-of-another", "1");
    await prefixed.send(name, "hello");
    assertEquals(await red.next(), "hello", "and nothing before it");
  },
);
