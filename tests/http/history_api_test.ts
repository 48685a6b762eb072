/**
 * The parts of the HTTP API that came with the history: reading it, sends for those who are there, times of their
 * own, closing a user's connections; and that each says which field of a request is wrong.
 */
import { assert, assertEquals, assertMatch, assertNotEquals, assertThrows } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { nodesTest, numbers, send, sendAll, SHARED } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onRedis } = nodesTest("The HTTP API");

interface Page {
  readonly epoch: string;
  readonly first: number;
  readonly last: number;
  readonly items: readonly { readonly seq: number; readonly tag: string; readonly data: unknown }[];
}

async function call(
  service: Service,
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await service.fetch(path, {
    method,
    ...(body !== undefined && { headers: { "content-type": "application/json" }, body }),
  });
  return { status: response.status, body: await response.json() };
}

async function read(service: Service, query = "", username = "alice"): Promise<Page> {
  const response = await service.fetch(`/v1/users/${username}/messages${query}`);
  assertEquals([response.status, response.headers.get("content-type")], [200, "application/json"]);
  return await response.json();
}

function seqs(page: Page): number[] {
  return page.items.map(({ seq }) => seq);
}

// ---------------------------------------------------------------------------------------------------------
// Reading

everywhere("reads a history, all of it or page by page", async ({ here, there }) => {
  const empty = await read(here);
  assertEquals(empty, { epoch: "", first: 0, last: 0, items: [] });
  await sendAll(there, 1, 10);
  const all = await read(here);
  assertEquals([all.first, all.last, seqs(all)], [1, 10, numbers(1, 10)]);
  assertEquals(all.items.map(({ data }) => data), numbers(1, 10));
  const tag = all.items[3]!.tag;
  for (const after of ["4", `${all.epoch}.4`, `${all.epoch}.4.${tag}`]) {
    const page = await read(there, `?after=${after}&limit=3`);
    assertEquals([page.first, page.last, seqs(page)], [5, 10, [5, 6, 7]]);
  }
  const end = await read(here, "?after=10");
  assertEquals([end.first, end.last, end.items], [0, 10, []]);
  assertEquals(seqs(await read(here, "?after=999999999999999")), []);
});

onRedis(
  "leaves no key behind for a history that is read of somebody who never existed",
  async ({ here, redis }) => {
    for (const query of ["", "?after=0", "?after=7&limit=1"]) {
      assertEquals(await read(here, query, "nobody"), { epoch: "", first: 0, last: 0, items: [] });
    }
    assertEquals((await call(here, "GET", "/v1/users/nobody/messages?after=Zk3vQ9aB.7")).status, 410);
    assertEquals(await redis.cli("KEYS", "*nobody*"), []);
  },
);

onRedis("reads a long history as it is taken, and all of it", async ({ here, there, redis }) => {
  // More than ten times what lies in the buffers of a connection.
  const count = 1_000, payload = { kind: "json", text: JSON.stringify("x".repeat(60_000)) } as const;
  for (let sent = 0; sent < count; sent += 50) {
    await Promise.all(Array.from({ length: 50 }, () => here.server.app.publisher.send("alice", payload)));
  }
  const reads = async () =>
    Number(/^cmdstat_xrange:calls=(\d+)/m.exec(await redis.info("commandstats"))?.[1] ?? 0);
  await redis.cli("CONFIG", "RESETSTAT");
  const whole = await read(there, `?limit=${count}`);
  assertEquals([whole.first, seqs(whole)], [1, numbers(1, count)]);
  assert(whole.items.every(({ data }) => data === JSON.parse(payload.text)));
  const all = await reads();

  await redis.cli("CONFIG", "RESETSTAT");
  const response = await there.fetch(`/v1/users/alice/messages?limit=${count}`);
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  assert(await reads() < all / 2, `${await reads()} reads for the beginning, ${all} for all of it`);
}, { USERWIRE_HISTORY: "1000" });

onRedis(
  "ends an answer before its JSON does when the rest of a history can't be read",
  async ({ here, redis }) => {
    const payload = { kind: "json", text: JSON.stringify("x".repeat(60_000)) } as const;
    for (let sent = 0; sent < 600; sent += 50) {
      await Promise.all(Array.from({ length: 50 }, () => here.server.app.publisher.send("alice", payload)));
    }
    const response = await here.fetch("/v1/users/alice/messages?limit=600");
    await redis.stop({ signal: "SIGKILL" });
    const text = await response.text();
    assertMatch(text, /^{"epoch":"[\w-]+","first":1,"last":600,"items":\[{"t":"m","seq":1,/);
    assertThrows(() => JSON.parse(text), SyntaxError);
  },
  { USERWIRE_HISTORY: "600" },
);

everywhere("reads messages as clients get them, payloads untouched", async ({ here, there }) => {
  await using alice = await openClient(there.socketUrl("alice"), ["userwire.v1"]);
  await alice.next();
  const body = '{ "big": 12345678901234567890, "e": 1.0e2 }';
  assertEquals((await call(here, "POST", "/v1/users/alice/messages", body)).status, 200);
  await here.send("alice", 'text with "quotes" and 🦊');
  await here.send("alice", Uint8Array.of(0, 255));
  const response = await here.fetch("/v1/users/alice/messages");
  const text = await response.text();
  const frames: string[] = [];
  // A frame may say that it was read from the history; that is about the way it came, not about the message.
  while (frames.length < 3) frames.push((await alice.next() as string).replace('"r":1,', ""));
  assert(frames[0]!.endsWith(`"data":${body}}`));
  assert(text.endsWith(`"items":[${frames.join(",")}]}`), `${text} does not hold ${frames}`);
});

everywhere("reads what is there, past messages whose time is over", async ({ here }) => {
  for (const n of numbers(1, 6)) {
    const ttl = n === 6 ? "" : "?ttl=1";
    await call(here, "POST", `/v1/users/alice/messages${ttl}`, `${n}`);
  }
  await until(async () => (await read(here)).items.length === 1, "five messages to leave");
  for (const limit of [1, 3, 100]) {
    const page = await read(here, `?limit=${limit}`);
    assertEquals([limit, page.first, page.last, seqs(page)], [limit, 6, 6, [6]]);
  }
});

everywhere("says 410 for a position whose number belongs to another message", async ({ here, there }) => {
  await sendAll(here, 1, 3);
  const { epoch, items } = await read(here);
  for (const [seq, other] of [[2, 3], [3, 2]] as const) {
    const after = `${epoch}.${seq}.${items[other - 1]!.tag}`;
    const { status, body } = await call(there, "GET", `/v1/users/alice/messages?after=${after}`);
    assertEquals([status, body.code], [410, "epoch_changed"]);
  }
});

onRedis("makes no key for a user who never was", async ({ here, redis }) => {
  assertEquals((await read(here)).items, []);
  assertEquals(await redis.cli("KEYS", "*alice*"), []);
});

everywhere("says 410 for a position of another epoch", async ({ here, there }) => {
  await send(here, 1);
  const { status, body } = await call(there, "GET", "/v1/users/alice/messages?after=other.1");
  assertEquals([status, body.code], [410, "epoch_changed"]);
  const { epoch } = await read(here);
  assertMatch(String(body.detail), new RegExp(epoch));
});

onRedis("says 410 once the history was lost", async ({ here, there, redis }) => {
  await send(here, 1);
  const before = await read(here);
  await redis.cli("FLUSHALL");
  assertEquals((await call(there, "GET", `/v1/users/alice/messages?after=${before.epoch}.1`)).status, 410);
  const after = await read(there);
  assertNotEquals(after.epoch, before.epoch);
  assertEquals([after.last, after.items], [0, []]);
});

// ---------------------------------------------------------------------------------------------------------
// Sending

everywhere("sends to those who are there alone, with expect=online", async ({ here, there }) => {
  const path = "/v1/users/alice/messages?expect=online";
  const { status, body } = await call(here, "POST", path, "1");
  assertEquals([status, body.code], [404, "user_offline"]);
  assertEquals((await read(there)).last, 0);
  await using alice = await Follower.open(there.socketUrl("alice"));
  const sent = await call(here, "POST", path, "2");
  assertEquals([sent.status, sent.body.seq, sent.body.sockets], [200, 1, 1]);
  await alice.reaches(1);
  assertEquals(alice.data, [2]);
});

onRedis(
  "leaves nothing in Redis for a user who is not there, with expect=online",
  async ({ here, redis }) => {
    await call(here, "POST", "/v1/users/alice/messages?expect=online", "1");
    assertEquals(await redis.cli("KEYS", "*alice*"), []);
  },
);

everywhere("keeps a message for the time its sender gives it", async ({ here, there }) => {
  const sent = [
    await call(here, "POST", "/v1/users/alice/messages?ttl=1", '"short"'),
    await call(here, "POST", "/v1/users/alice/messages?ttl=3600", '"long"'),
    await call(here, "POST", "/v1/users/alice/messages", '"usual"'),
  ];
  // Not how many are there: on a slow machine the first has left.
  assertEquals(sent.map(({ body }) => [body.seq, body.stored]), [[1, true], [2, true], [3, true]]);
  await until(async () => (await read(there)).items.length === 1, "two messages to leave");
  assertEquals((await read(there)).items.map(({ data }) => data), ["long"]);
}, { USERWIRE_HISTORY_TTL_S: "1" });

// ---------------------------------------------------------------------------------------------------------
// Closing

everywhere("closes all connections of a user, on every node, with code and reason", async (nodes) => {
  const { here, there } = nodes;
  await using framed = await openClient(here.socketUrl("alice"), ["userwire.v1"]);
  await using raw = await openClient(there.socketUrl("alice"));
  await using bob = await openClient(there.socketUrl("bob"));
  assertEquals((await framed.nextJson()).t, "hi");
  const path = `/v1/users/alice/connections?code=4001&why=${encodeURIComponent("gone fishing 🎣")}`;
  assertEquals(await call(there, "DELETE", path), { status: 200, body: { closed: 2 } });
  const { t, code, why } = await framed.nextJson();
  assertEquals([t, code, why], ["bye", 4001, "gone fishing 🎣"]);
  for (const client of [framed, raw]) {
    assertEquals(await client.closed, { code: 4001, reason: "gone fishing 🎣" });
  }
  assertEquals(raw.waiting, []);
  await until(async () => await here.sockets("alice") === 0, "the subscriptions to be gone");
  // Nothing of it is in the history, and others are untouched.
  assertEquals((await read(here)).last, 0);
  assertEquals((await here.send("bob", "still here")).body.sockets, 1);
  assertEquals(await bob.next(), "still here");
});

everywhere(
  "closes with 4403 and a word when nothing else is said, and counts nobody",
  async ({ here, there }) => {
    assertEquals(await call(here, "DELETE", "/v1/users/alice/connections"), {
      status: 200,
      body: { closed: 0 },
    });
    await using alice = await openClient(there.socketUrl("alice"));
    assertEquals(await call(here, "DELETE", "/v1/users/alice/connections"), {
      status: 200,
      body: { closed: 1 },
    });
    assertEquals(await alice.closed, { code: 4403, reason: "kicked" });
  },
);

onRedis(
  "closes a connection whose client does not answer, and its subscription at once",
  async (nodes) => {
    const { here, there, redis } = nodes;
    await using alice = await RawSocket.open(here.socketUrl("alice"));
    assertEquals((await call(there, "DELETE", "/v1/users/alice/connections?code=1012")).body, { closed: 1 });
    await new Truth(redis).isEmpty();
    assertEquals((await alice.readClose()).code, 1012);
    assertEquals([here.server.app.connections.size, here.server.app.connections.closing], [0, 1]);
  },
);

onRedis("counts nodes that were told to close, under their own name", async ({ here, there }) => {
  await using sockets = new AsyncDisposableStack();
  const clients = [];
  for (const service of [here, here, there]) {
    clients.push(sockets.use(await openClient(service.socketUrl("alice"))));
  }
  const close = () => call(here, "DELETE", "/v1/users/alice/connections");
  assertEquals(await close(), { status: 200, body: { nodes: 2 } });
  for (const client of clients) assertEquals((await client.closed).code, 4403);
  await until(async () => (await close()).body.nodes === 0, "nobody to be left");
}, SHARED);

// ---------------------------------------------------------------------------------------------------------
// What is wrong

const WRONG: [method: string, path: string, field: RegExp][] = [
  ["POST", "messages?expect=offline", /^expect:/],
  ["POST", "messages?expect=", /^expect:/],
  ["POST", "messages?wait=yes", /^wait:/],
  ["POST", "messages?wait=ack&timeout=0", /^timeout:/],
  ["POST", "messages?wait=ack&timeout=30001", /^timeout:/],
  ["POST", "messages?wait=ack&timeout=1.5", /^timeout:/],
  ["POST", "messages?timeout=100", /^timeout: needs wait=ack/],
  ["POST", "messages?ttl=0", /^ttl:/],
  ["POST", "messages?ttl=2592001", /^ttl:/],
  ["POST", "messages?ttl=1h", /^ttl:/],
  ["POST", "messages?tll=5", /"tll"/],
  ["POST", "messages?Expect=online", /"Expect"/],
  ["GET", "messages?after=-1", /^after:/],
  ["GET", "messages?after=abc", /^after:/],
  ["GET", "messages?after=a.b.1", /^after:/],
  ["GET", "messages?after=1234567890123456", /^after:/],
  ["GET", "messages?limit=0", /^limit:/],
  ["GET", "messages?limit=1001", /^limit:/],
  ["GET", "messages?limit=ten", /^limit:/],
  ["GET", "messages?from=1", /"from"/],
  ["DELETE", "connections?code=999", /^code:/],
  ["DELETE", "connections?code=1006", /^code:/],
  ["DELETE", "connections?code=2000", /^code:/],
  ["DELETE", "connections?code=5000", /^code:/],
  ["DELETE", "connections?code=bye", /^code:/],
  ["DELETE", "connections?why=", /^why:/],
  ["DELETE", `connections?why=${"é".repeat(61)}`, /^why:/],
  ["DELETE", "connections?reason=x", /"reason"/],
];

Deno.test("The HTTP API says 400 and which field of a query is wrong", async (t) => {
  await using service = await Service.start();
  for (const [method, path, field] of WRONG) {
    await t.step(`${method} ${path}`, async () => {
      const answer = await call(
        service,
        method,
        `/v1/users/alice/${path}`,
        method === "POST" ? "1" : undefined,
      );
      assertEquals([answer.status, answer.body.code], [400, "invalid_request"]);
      assertMatch(String(answer.body.detail), field);
    });
  }
  assertEquals((await read(service)).last, 0);
});

Deno.test("The HTTP API says 400 for a username that can't be, in each of its calls", async () => {
  await using service = await Service.start();
  for (
    const [method, path] of [["POST", "messages"], ["GET", "messages"], ["DELETE", "connections"]] as const
  ) {
    const body = method === "POST" ? "1" : undefined;
    const answer = await call(service, method, `/v1/users/${encodeURIComponent("a b")}/${path}`, body);
    assertEquals([method, answer.status, answer.body.code], [method, 400, "invalid_username"]);
  }
});
