/**
 * The HTTP API as a backend uses it: sends of every content type, who is online, batches. Each case runs against
 * the broker in memory and against Redis. Refusals are in `bad_requests_test.ts`, the document that describes the
 * API in `http_document_test.ts`.
 */
import { assert, assertEquals, assertMatch, assertStrictEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

/** A service and its sockets. */
class Api {
  readonly service: Service;
  readonly clients: WsClient[] = [];

  constructor(service: Service) {
    this.service = service;
  }

  static async run(env: Record<string, string>, body: (api: Api) => Promise<void>): Promise<void> {
    await using service = await Service.start({ USERWIRE_HISTORY: "0", ...env });
    const api = new Api(service);
    try {
      await body(api);
    } finally {
      await Promise.all(api.clients.map((client) => client.close()));
    }
  }

  /** Opens a socket of a user. */
  async connect(username: string, mode: "raw" | "v1" = "raw"): Promise<WsClient> {
    const client = await openClient(this.service.socketUrl(username), mode === "v1" ? "userwire.v1" : []);
    this.clients.push(client);
    if (mode === "v1") assertEquals((await client.nextJson()).t, "hi");
    return client;
  }

  post(path: string, body: BodyInit, contentType = "application/json"): Promise<Response> {
    return this.service.fetch(path, { method: "POST", headers: { "content-type": contentType }, body });
  }
}

const cases: [claim: string, body: (api: Api) => Promise<void>][] = [];

/** One case, run with each broker. */
function apiTest(claim: string, body: (api: Api) => Promise<void>): void {
  cases.push([claim, body]);
}

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;

// ---------------------------------------------------------------------------------------------------------
// Sending

interface Sent {
  type: string;
  body: string | Uint8Array<ArrayBuffer>;
  /** What a `userwire.v1` socket sees, beside `t`, `id` and `ts`. */
  frame: Record<string, unknown>;
}

const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
const spacedJson = ' {"order" : 7,\r\n\t"price": 1.0, "big": 12345678901234567890} ';
const SENDS: Record<string, Sent> = {
  "JSON": { type: "application/json", body: '{"order":7}', frame: { data: { order: 7 } } },
  "JSON with its own white space": {
    type: "application/json",
    body: spacedJson,
    frame: { data: JSON.parse(spacedJson) },
  },
  "a JSON string": { type: "application/json", body: '"hello"', frame: { data: "hello" } },
  "JSON null": { type: "application/json", body: "null", frame: { data: null } },
  "JSON of charset UTF-8": {
    type: 'Application/JSON;  version=1; Charset="UTF-8"',
    body: '"Zoë"',
    frame: { data: "Zoë" },
  },
  "text": { type: "text/plain", body: "hello", frame: { data: "hello" } },
  "text that looks like JSON": { type: "text/plain", body: '{"a":1}', frame: { data: '{"a":1}' } },
  "text of charset US-ASCII": { type: "text/plain;charset=us-ascii", body: "a", frame: { data: "a" } },
  "text with quotes, line ends and zero": {
    type: "text/plain; charset=utf-8",
    body: 'a"\\\r\n\0\u2028🦕',
    frame: { data: 'a"\\\r\n\0\u2028🦕' },
  },
  "text with a byte order mark": { type: "text/plain", body: "\ufeffa", frame: { data: "\ufeffa" } },
  "bytes": {
    type: "application/octet-stream",
    body: bytes,
    frame: { enc: "base64", data: bytes.toBase64() },
  },
  "64 KiB": { type: "text/plain", body: "x".repeat(65_536), frame: { data: "x".repeat(65_536) } },
};

for (const [what, { type, body, frame }] of Object.entries(SENDS)) {
  apiTest(`sends ${what} byte for byte to a raw socket, and as data to a framed one`, async (api) => {
    const raw = await api.connect("alice");
    const framed = await api.connect("alice", "v1");
    const beforeMs = Date.now();
    const response = await api.post("/v1/users/alice/messages", body, type);
    assertEquals(response.status, 200);
    const { id, ...rest } = await response.json();
    assertMatch(id, UUID);
    assertEquals(rest, { sockets: 2 });
    assertEquals(await raw.next(), body);
    const { ts, ...fields } = await framed.nextJson();
    assertEquals(fields, { t: "m", id, ...frame });
    assert(typeof ts === "number" && ts >= beforeMs && ts <= Date.now());
  });
}

apiTest("answers 202 with no sockets when the user is offline", async (api) => {
  const response = await api.post("/v1/users/nobody/messages", "{}");
  assertEquals(response.status, 202);
  const { id, ...rest } = await response.json();
  assertMatch(id, UUID);
  assertEquals(rest, { sockets: 0, stored: false });
});

apiTest("counts sockets as they come and go", async (api) => {
  const sockets: WsClient[] = [];
  while (sockets.length < 3) {
    sockets.push(await api.connect("alice"));
    assertEquals((await api.service.send("alice", 1)).body.sockets, sockets.length);
  }
  while (sockets.length > 0) {
    await sockets.shift()!.close();
    const left = sockets.length;
    await until(async () => await api.service.sockets("alice") === left, `${left} sockets to be left`);
    assertEquals((await api.service.send("alice", 1)).body.sockets, left);
  }
});

const STRANGE_NAMES = [
  ...["Zoë-用户.🦕", "100%", "%41", "%2F", "a/b", "a?b#c", "a+b", "a&b=c", "a;b", ":", "*", "~", "__proto__"],
  ...["constructor", '"', "\\", "a\u0301", "messages", "online", "a".repeat(128), "🦕".repeat(32)],
];

apiTest("reaches users of every name by path, query and body, and no one else", async (api) => {
  const clients = new Map<string, WsClient>();
  for (const name of STRANGE_NAMES) clients.set(name, await api.connect(name));
  for (const name of STRANGE_NAMES) {
    const path = `/v1/users/${encodeURIComponent(name)}`;
    assertEquals((await api.service.send(name, name)).body.sockets, 1, name);
    assertEquals(await (await api.service.fetch(path)).json(), { online: true, sockets: 1 }, name);
  }
  const items = STRANGE_NAMES.map((to) => ({ to, data: to }));
  const batch = await (await api.post("/v1/messages", JSON.stringify({ items }))).json();
  assertEquals(batch.results.map(({ sockets }: { sockets: number }) => sockets), STRANGE_NAMES.map(() => 1));
  const online = await (await api.post("/v1/users/online", JSON.stringify({ users: STRANGE_NAMES }))).json();
  assertEquals(online, Object.fromEntries(STRANGE_NAMES.map((name) => [name, 1])));
  for (const [name, client] of clients) {
    assertEquals([await client.next(), await client.next()], [name, JSON.stringify(name)]);
    assertEquals(client.waiting, []);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Who is online

apiTest("tells whether a user is online, with GET and with HEAD", async (api) => {
  const path = "/v1/users/alice";
  assertEquals(await (await api.service.fetch(path)).json(), { online: false, sockets: 0 });
  const absent = await api.service.fetch(path, { method: "HEAD" });
  assertEquals([absent.status, await absent.text()], [404, ""]);
  await api.connect("alice");
  await api.connect("alice", "v1");
  assertEquals(await (await api.service.fetch(path)).json(), { online: true, sockets: 2 });
  const present = await api.service.fetch(path, { method: "HEAD" });
  assertEquals([present.status, await present.text()], [200, ""]);
});

apiTest("tells for many users at once who is online", async (api) => {
  await api.connect("alice");
  await api.connect("alice");
  await api.connect("__proto__");
  const online = async (users: string[]) =>
    Object.entries(await (await api.post("/v1/users/online", JSON.stringify({ users }))).json());
  assertEquals(await online([]), []);
  assertEquals(await online(["bob", "alice", "bob", "alice"]), [["bob", 0], ["alice", 2]]);
  assertEquals(await online(["__proto__", "Alice"]), [["__proto__", 1], ["Alice", 0]]);
  const many = Array.from({ length: 9_999 }, (_, i) => `user-${i}`);
  const counts = await online(["alice", ...many]);
  assertEquals(counts.length, 10_000);
  assertEquals(counts.filter(([, count]) => count !== 0), [["alice", 2]]);
});

// ---------------------------------------------------------------------------------------------------------
// Batches

/** The results of a batch, which must be accepted. */
async function batch(api: Api, items: unknown[] | string): Promise<Record<string, unknown>[]> {
  const body = typeof items === "string" ? `{"items":${items}}` : JSON.stringify({ items });
  const response = await api.post("/v1/messages", body);
  const answer = await response.json();
  assertEquals(response.status, 200, JSON.stringify(answer));
  return answer.results;
}

apiTest("answers a batch item by item, in order, with the ids given", async (api) => {
  const alice = await api.connect("alice", "v1");
  const results = await batch(api, [
    { to: "nobody", data: 1 },
    { to: "alice", data: { n: 2 }, id: "order-7:a.b_c" },
    { to: ["alice", "nobody"], data: null, id: "x" },
  ]);
  const [first, ...others] = results;
  assertMatch(String(first!.id), UUID);
  assertEquals(first, { id: first!.id, sockets: 0 });
  assertEquals(others, [
    { id: "order-7:a.b_c", sockets: 1 },
    { id: "x", sockets: 1, users: { alice: 1, nobody: 0 } },
  ]);
  const { ts: _, ...frame } = await alice.nextJson();
  assertEquals(frame, { t: "m", id: "order-7:a.b_c", data: { n: 2 } });
  assertEquals((await alice.nextJson()).id, "x");
});

apiTest("delivers a batch of 1,000 to each user in the order given", async (api) => {
  const users = ["alice", "bob", "carol"];
  const clients = await Promise.all(users.map((user) => api.connect(user)));
  const items = Array.from(
    { length: 1_000 },
    (_, i) => ({ to: i % 4 === 3 ? users : users[i % 4], data: i }),
  );
  const results = await batch(api, items);
  assertEquals(results.map(({ sockets }) => sockets), items.map((_, i) => i % 4 === 3 ? 3 : 1));
  for (const [nth, client] of clients.entries()) {
    const wanted = items.filter((_, i) => i % 4 === 3 || i % 4 === nth).map(({ data }) => String(data));
    const got: unknown[] = [];
    while (got.length < wanted.length) got.push(await client.next());
    assertEquals(got, wanted);
    assertEquals(client.waiting, []);
  }
});

apiTest("sends once to a user that one list names twice", async (api) => {
  const alice = await api.connect("alice");
  const [result] = await batch(api, [{ to: ["alice", "alice", "bob"], data: "once" }]);
  assertEquals([result!.sockets, result!.users], [1, { alice: 1, bob: 0 }]);
  await batch(api, [{ to: "alice", data: "next" }]);
  assertEquals([await alice.next(), await alice.next()], ['"once"', '"next"']);
});

apiTest("keeps the digits of numbers in a batch", async (api) => {
  const numbers = [
    ...["12345678901234567890", "-9007199254740993", "0.1234567890123456789", "1234567.890123456789"],
    ...["1e400", "-2.5E-400", "123.45678901234561", "0", "1.5", "0.30000000000000004"],
  ];
  const alice = await api.connect("alice");
  // Each alone too: a number at risk must be found without another beside it.
  for (const data of [...numbers, `{"in":[${numbers}],"text":"1234567890.1234567890"}`]) {
    await batch(api, `[{"to":"alice","data":${data}}]`);
    assertStrictEquals(await alice.next(), data);
  }
});

apiTest("reaches 10,000 users in one batch and says for each how many sockets", async (api) => {
  await api.connect("user-4321");
  const items = Array.from({ length: 10 }, (_, ten) => ({
    to: Array.from({ length: 1_000 }, (_, i) => `user-${ten * 1_000 + i}`),
    data: ten,
  }));
  const results = await batch(api, items);
  assertEquals(results.map(({ sockets }) => sockets), items.map((_, ten) => ten === 4 ? 1 : 0));
  const users = results.flatMap(({ users }) => Object.entries(users as Record<string, number>));
  assertEquals(users.length, 10_000);
  assertEquals(users.filter(([, sockets]) => sockets > 0), [["user-4321", 1]]);
});

// ---------------------------------------------------------------------------------------------------------

for (const [claim, body] of cases) {
  Deno.test(`The HTTP API in memory ${claim}`, () => Api.run({}, body));
}

redisTest("The HTTP API over Redis does the same", async (t) => {
  await using redis = await RedisServer.start();
  // With a prefix names may begin as Redis' own channels do.
  const env = { REDIS_URL: redis.url, USERWIRE_CHANNEL_PREFIX: "app:" };
  for (const [claim, body] of cases) {
    assert(await t.step(claim, () => Api.run(env, body)), claim);
  }
});

Deno.test("The HTTP API folds letter case when it is told to", async () => {
  await Api.run({ USERWIRE_USERNAME_CASE: "lower" }, async (api) => {
    const alice = await api.connect("ALICE");
    assertEquals((await api.service.send("Alice", 1)).body.sockets, 1);
    assertEquals(await alice.next(), "1");
    const online = await api.post("/v1/users/online", '{"users":["aLice","alice"]}');
    assertEquals(await online.json(), { aLice: 1, alice: 1 });
  });
});

redisTest("The HTTP API puts the channel prefix between itself and other users of one Redis", async () => {
  await using redis = await RedisServer.start();
  await Api.run({ REDIS_URL: redis.url, USERWIRE_CHANNEL_PREFIX: "app:" }, async (api) => {
    const alice = await api.connect("alice");
    assertEquals(await redis.cli("PUBLISH", "alice", "other app"), 0);
    assertEquals(await redis.cli("PUBLISH", "app:alice", "bare"), 1);
    assertEquals((await api.service.send("alice", 1)).body.sockets, 1);
    assertEquals([await alice.next(), await alice.next()], ["bare", "1"]);
  });
});
