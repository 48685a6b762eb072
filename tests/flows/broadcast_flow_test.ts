/** Broadcasts over HTTP, sockets and Redis: what senders are answered, and what every kind of client gets. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { type Client, connect, type Message } from "../../src/client/mod.ts";
import { openEngine } from "../../src/engine/engine.ts";
import type { BroadcastGapFrame } from "../../src/protocol/frames.ts";
import { command } from "../../testkit/cli_terminal.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { nodesTest, numbers, send } from "../../testkit/nodes.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onEveryBroker, onRedis } = nodesTest("A broadcast");

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

async function post(
  service: Service,
  payload: BodyInit,
  { query = "", type = "application/json", ...headers }: Record<string, string> = {},
): Promise<Answer> {
  const answer = await service.fetch(`/v1/broadcast${query}`, {
    method: "POST",
    headers: { "content-type": type, ...headers },
    body: payload,
  });
  return { status: answer.status, headers: answer.headers, body: await answer.json() };
}

/** A client that writes down what it hears. */
class Listener implements AsyncDisposable {
  readonly client: Client;
  readonly broadcasts: Message[] = [];
  readonly messages: Message[] = [];
  readonly gaps: BroadcastGapFrame[] = [];
  readonly errors: Error[] = [];

  constructor(service: Service, options: { resumeBroadcasts?: string; store?: Map<string, string> } = {}) {
    const { store, ...rest } = options;
    this.client = connect(service.server.url, {
      user: "alice",
      backoff: { baseMs: 1, maxMs: 20 },
      ...rest,
      ...(store && {
        store: { load: () => store.get("alice"), save: (place: string) => void store.set("alice", place) },
      }),
    });
    this.client.on("broadcast", (message) => this.broadcasts.push(message));
    this.client.on("message", (message) => this.messages.push(message));
    this.client.on("broadcastGap", (gap) => this.gaps.push(gap));
    this.client.on("error", (error) => this.errors.push(error));
  }

  static async open(...args: ConstructorParameters<typeof Listener>): Promise<Listener> {
    const listener = new Listener(...args);
    await until(() => listener.client.state === "open", "a client to be open");
    return listener;
  }

  get data(): unknown[] {
    return this.broadcasts.map(({ data }) => data);
  }

  async has(count: number): Promise<void> {
    await until(
      () => this.broadcasts.length >= count,
      `${count} broadcasts`,
      undefined,
      () => JSON.stringify([this.data, this.gaps, this.errors.map(String)]),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
  }
}

onEveryBroker("comes to everybody on every node, apart from their own messages", async ({ here, there }) => {
  await using alice = await Listener.open(here);
  await using bob = await Listener.open(there);
  // Knows `m` and `gap` and nothing else, as clients of 0.1 do.
  await using old = await Follower.open(there.socketUrl("carol"));
  await using raw = await openClient(here.socketUrl("dave"));
  const nodes = here === there ? 1 : 2;
  for (const n of numbers(1, 3)) {
    const { status, body } = await post(n % 2 === 1 ? here : there, `{"n":${n}}`);
    assertEquals([status, body.seq, body.nodes, body.sockets], [200, n, nodes, 3], JSON.stringify(body));
    await send(here, n);
    await there.server.app.publisher.send("carol", n);
  }
  await alice.has(3);
  await bob.has(3);
  assertEquals(alice.data, numbers(1, 3).map((n) => ({ n })));
  assertEquals(alice.broadcasts.map(({ seq, replayed }) => [seq, replayed]), [[1, false], [2, false], [
    3,
    false,
  ]]);
  assertEquals(bob.broadcasts, alice.broadcasts);
  await old.reaches(3);
  old.assertNoFault();
  await until(() => alice.messages.length === 3, "her own messages");
  assertEquals([alice.messages.map(({ data }) => data), old.data], [[1, 2, 3], [1, 2, 3]]);
  assertEquals(raw.waiting, [], "a raw client could not tell it from a message of its own");
  assertEquals([...alice.errors, ...bob.errors, ...alice.gaps, ...bob.gaps], []);
});

everywhere(
  "is resumed on whichever node, over a restart of the client, up to a stated gap",
  async ({ here, there }) => {
    const store = new Map<string, string>();
    let place: string | undefined;
    {
      await using alice = await Listener.open(here, { store });
      await post(there, "1");
      await alice.has(1);
      place = alice.client.broadcastPosition;
      assertMatch(place!, /^[\w-]{8,}\.1\.[\w-]{8}$/);
    }
    for (const n of numbers(2, 4)) await post(here, String(n));
    {
      await using alice = await Listener.open(there, { store });
      await alice.has(3);
      assertEquals([alice.data, alice.broadcasts.every(({ replayed }) => replayed)], [[2, 3, 4], true]);
    }
    {
      await using nobodysStore = await Listener.open(there, { resumeBroadcasts: place! });
      await nobodysStore.has(3);
      await using fresh = await Listener.open(there);
      assertEquals([fresh.data, fresh.client.broadcastPosition?.split(".")[1]], [[], "4"]);
    }
    for (const n of numbers(5, 12)) await post(here, String(n));
    await using alice = await Listener.open(here, { store });
    await alice.has(5);
    assertEquals(alice.data, numbers(8, 12));
    assertEquals(alice.gaps.map(({ from, to, why }) => [from, to, why]), [[5, 7, "trimmed"]]);
    assertEquals(alice.errors, []);
  },
  { USERWIRE_HISTORY: "5" },
);

everywhere("says what is wrong, and sends nothing", async ({ here }) => {
  await using alice = await Listener.open(here);
  const cases: [Answer, number, RegExp][] = [
    [await post(here, "{"), 400, /JSON/],
    [await post(here, "1", { query: "?ttl=0" }), 400, /^ttl: /],
    [await post(here, "1", { query: "?expect=online" }), 400, /expect/],
    [await post(here, "1", { type: "image/png" }), 415, /content type|type/i],
    [await post(here, "1", { "idempotency-key": "a b" }), 400, /idempotency key must/],
    [await post(here, `"${"x".repeat(70_000)}"`), 413, /65536/],
  ];
  for (const [{ status, body }, expected, reason] of cases) {
    assertEquals(status, expected, JSON.stringify(body));
    assertMatch(String(body.detail), reason);
  }
  const get = await here.fetch("/v1/broadcast");
  assertEquals([get.status, get.headers.get("allow")], [405, "POST"]);
  await get.body?.cancel();
  const handshake = await here.fetch("/ws?username=alice&all=nowhere", {
    headers: {
      ...{ upgrade: "websocket", connection: "upgrade", "sec-websocket-version": "13" },
      ...{ "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol": "userwire.v1" },
    },
  });
  assertEquals(handshake.status, 400);
  assertMatch((await handshake.json()).detail, /"all" must be a position/);
  assertEquals((await post(here, "1")).body.seq, 1);
  await alice.has(1);
  assertEquals(alice.data, [1]);
});

everywhere("is sent once for each idempotency key", async ({ here, there }) => {
  await using alice = await Listener.open(here);
  const key = { "idempotency-key": "k1" };
  const first = await post(here, "1", key);
  const again = await post(there, "1", key);
  const { sockets, ...rest } = first.body;
  assertEquals([sockets, again.body, again.headers.get("idempotent-replayed")], [1, rest, "true"]);
  const conflict = await post(there, "2", key);
  assertEquals([conflict.status, conflict.body.code], [422, "idempotency_conflict"]);
  await post(here, "3");
  await alice.has(2);
  assertEquals(alice.data, [1, 3]);
});

Deno.test("Keys with the scope broadcast or admin may, if they may address every user", async () => {
  const keys = [
    ["anybody", ["broadcast"], "*", 200],
    ["owner", ["admin"], "*", 200],
    ["sender", ["send", "read", "tickets"], "*", 403],
    ["some", ["broadcast", "admin"], "shop-*", 403],
  ] as const;
  const made = keys.map(([name, scopes, users, status]) => ({ ...newKey(name, { scopes, users }), status }));
  await using service = await Service.start({ USERWIRE_API_KEYS: made.map(({ line }) => line).join(",") });
  for (const { key, status } of made) {
    const { status: answered, body } = await post(service, "1", { authorization: `Bearer ${key}` });
    assertEquals(answered, status, JSON.stringify(body));
    if (key.includes("some")) assertMatch(String(body.detail), /pattern is "\*"/);
  }
  assertEquals((await post(service, "1")).status, 401);
  const cli = await command(service, ["broadcast", '{"maintenance":"22:00"}', "--key", made[0]!.key]);
  assertEquals(cli, "sent to 0 sockets of 1 node\n");
});

Deno.test("A raw client gets broadcasts where that is wanted, as payloads, and so does one without a history", async () => {
  await using service = await Service.start({ USERWIRE_BROADCAST_RAW: "true", USERWIRE_HISTORY: "0" });
  await using raw = await openClient(service.socketUrl("alice"));
  await using framed = await openClient(service.socketUrl("bob"), "userwire.v1");
  const hi = JSON.parse(String(await framed.next()));
  assertEquals([hi.all, hi.pos], [undefined, undefined]);
  const answers = [
    await post(service, '{ "n": 1 }', { query: "?ttl=60" }),
    await post(service, "good night", { type: "text/plain" }),
    await post(service, new Uint8Array([1, 255]), { type: "application/octet-stream" }),
  ];
  assertEquals(
    answers.map(({ body }) => [body.seq, body.nodes, body.sockets]),
    Array(3).fill([undefined, 1, 2]),
  );
  assertEquals([await raw.next(), await raw.next(), await raw.next()], [
    '{ "n": 1 }',
    "good night",
    new Uint8Array([1, 255]),
  ]);
  const frames = [await framed.next(), await framed.next(), await framed.next()].map((text) =>
    JSON.parse(String(text))
  );
  assertEquals(frames.map(({ t, seq, ttl_ms, enc, data }) => [t, seq, ttl_ms, enc, data]), [
    ["b", undefined, 60_000, undefined, { n: 1 }],
    ["b", undefined, undefined, undefined, "good night"],
    ["b", undefined, undefined, "base64", "Af8="],
  ]);
});

onRedis(
  "is not lost by a node that lost its subscription, nor by a Redis that hangs",
  async ({ here, there, redis }) => {
    await using alice = await Listener.open(here);
    await using bob = await Listener.open(there);
    await post(here, "1");
    for (const n of numbers(2, 6)) {
      await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
      // Whoever is not subscribed at the moment gets it when it is again.
      assertEquals((await here.server.app.publisher.broadcast(n, { timeoutMs: 50 })).seq, n);
    }
    await alice.has(6);
    await bob.has(6);
    await redis.pause();
    const refused = await post(here, "7");
    assertEquals([refused.status, refused.body.code], [503, "broker_unavailable"]);
    redis.resume();
    await until(async () => {
      const { status, body } = await post(there, "8");
      return status === 200 && body.nodes === 2;
    }, "both nodes to be back");
    await until(() => [alice, bob].every(({ data }) => data.includes(8)), "what was sent then");
    for (const { data, broadcasts, errors, gaps } of [alice, bob]) {
      assertEquals(data.slice(0, 6), numbers(1, 6));
      assertEquals(broadcasts.map(({ seq }) => seq), numbers(1, broadcasts.length));
      assertEquals([errors, gaps], [[], []]);
    }
  },
);

onRedis("has no number of sockets while a node does not say its own", async ({ here, there, redis }) => {
  await using alice = await Listener.open(here);
  // Subscribed as a node is, and silent as one that hangs.
  const engine = openEngine({ redisUrl: redis.url });
  await connected(engine);
  const silent = new Recorder();
  const subscription = await engine.broker.subscribe("userwire:all", silent);
  const { publisher } = there.server.app;
  const { nodes, sockets, heard } = await publisher.broadcast(1, { timeoutMs: 100 });
  assertEquals([nodes, sockets], [3, undefined]);
  assert(heard! <= 2, `${heard} were heard`);
  await until(
    async () => (await publisher.broadcast(2, { timeoutMs: 500 })).heard === 2,
    "both to be heard in time",
  );
  await subscription.close();
  assertEquals((await post(here, "3")).body.sockets, 1);
  // A node that is gone is waited for no more.
  await there.server.shutdown();
  const { status, body } = await post(here, "3");
  assertEquals([status, body.nodes, body.sockets], [200, 1, 1]);
  await engine.close();
  await until(() => alice.data.filter((n) => n === 3).length === 2, "the last ones");
});

redisTest(
  "Data that is lost ends in a stated gap, for clients that stay and for those that come back",
  async () => {
    await using redis = await RedisServer.start();
    await using here = await Service.start({ REDIS_URL: redis.url });
    await using alice = await Listener.open(here);
    await post(here, "1");
    await post(here, "2");
    await alice.has(2);
    const before = alice.client.broadcastPosition!;
    await redis.stop({ signal: "SIGKILL" });
    await redis.restart();
    await until(async () => (await post(here, '"new"')).status === 200, "the service to be back", 30_000);
    await alice.has(3);
    assertEquals([alice.data, alice.gaps.map(({ from, to, why }) => [from, to, why])], [
      [1, 2, "new"],
      [[3, null, "epoch"]],
    ]);
    await using there = await Service.start({ REDIS_URL: redis.url });
    for (const node of [here, there]) {
      await using late = await Listener.open(node, { resumeBroadcasts: before });
      await late.has(1);
      assertEquals([late.data, late.gaps.map(({ from, why }) => [from, why])], [["new"], [[3, "epoch"]]]);
      assertEquals(late.client.broadcastPosition, alice.client.broadcastPosition);
    }
  },
);
