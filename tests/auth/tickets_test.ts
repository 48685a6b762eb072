/**
 * Tickets and revocations, in memory and over Redis with two nodes: a ticket lets one socket in, once; what is
 * revoked is let in nowhere, and what it let in before is closed everywhere.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Revocations } from "../../src/auth/revocations.ts";
import { MemoryTtlStore } from "../../src/auth/ttl_store_memory.ts";
import { RedisTtlStore } from "../../src/auth/ttl_store_redis.ts";
import { Tickets } from "../../src/auth/tickets.ts";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { Redis } from "../../src/redis/commands.ts";
import { call, CLOSED, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient, openPatiently, type WsClient } from "../../testkit/ws_client.ts";

type Two = [Service, Service];

/** Declares a test on one node with everything in memory, and on two over Redis. */
function onEachStore(
  name: string,
  body: (...services: Two) => Promise<void>,
  env: Record<string, string> = {},
): void {
  Deno.test(`${name}, in memory`, async () => {
    await using service = await Service.start({ ...CLOSED, ...env });
    await body(service, service);
  });
  redisTest(`${name}, over Redis`, async () => {
    await using redis = await RedisServer.start();
    const settings = { ...CLOSED, ...env, REDIS_URL: redis.url };
    await using one = await Service.start(settings);
    await using two = await Service.start(settings);
    await body(one, two);
  });
}

async function ticketFor(service: Service, user: string, ttl?: number): Promise<string> {
  const { status, body, headers } = await call(service, "POST /v1/tickets", {
    body: { user, ...(ttl !== undefined && { ttl }) },
  });
  assertEquals([status, headers.get("cache-control")], [201, "no-store"]);
  const url = new URL(body.url);
  assertEquals([url.protocol, url.pathname, url.searchParams.get("ticket")], ["ws:", "/ws", body.ticket]);
  return body.ticket;
}

const withTicket = (service: Service, ticket: string) =>
  `${service.socketUrl()}?ticket=${encodeURIComponent(ticket)}`;

onEachStore("A ticket lets one socket in, and no second one", async (one, two) => {
  const ticket = await ticketFor(one, "alice");
  await using alice = await openClient(withTicket(two, ticket), ["userwire.v1"]);
  const hi = await alice.nextJson();
  assertEquals([hi.user, hi.exp], ["alice", undefined]);
  for (const service of [one, two]) {
    await using again = await RawSocket.open(withTicket(service, ticket));
    assertEquals(again.answer.status, 401);
    assertMatch(again.answer.body, /it was used/);
    assert(!again.answer.body.includes(ticket));
  }
  await using byFrame = await openClient(one.socketUrl());
  byFrame.send(JSON.stringify({ ticket: await ticketFor(two, "alice") }));
  await until(async () => (await call(one, "GET /v1/users/alice")).body.sockets === 2, "the second socket");
});

onEachStore("Of many who race for a ticket, on two nodes, one gets in", async (one, two) => {
  const ticket = await ticketFor(one, "alice");
  const racers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => RawSocket.open(withTicket(i % 2 === 0 ? one : two, ticket))),
  );
  assertEquals(racers.filter(({ answer }) => answer.status === 101).length, 1);
  assertEquals(racers.filter(({ answer }) => answer.status === 401).length, 19);
  for (const racer of racers) await racer.closeAbruptly();
});

onEachStore("Of many who race for a ticket with their first frame, one gets in", async (one, two) => {
  const ticket = await ticketFor(one, "alice");
  const racers = await Promise.all(
    Array.from({ length: 10 }, (_, i) => openClient((i % 2 === 0 ? one : two).socketUrl())),
  );
  for (const racer of racers) racer.send(JSON.stringify({ ticket }));
  const ends = new Map<WsClient, string>();
  for (const racer of racers) {
    void racer.closed.then(({ code, reason }) => ends.set(racer, `${code} ${reason}`));
  }
  await until(() => ends.size === 9, "all but one to be refused");
  for (const end of ends.values()) assertMatch(end, /^4401 The ticket is not valid: it was used/);
  await until(async () => (await call(one, "GET /v1/users/alice")).body.sockets === 1, "one to be left");
  assertEquals((await one.server.app.publisher.send("alice", { kind: "text", text: "hi" })).sockets, 1);
  for (const racer of racers) {
    if (!ends.has(racer)) assertEquals(await racer.next(), "hi");
    await racer.close();
  }
});

onEachStore(
  "A ticket is not used up by a socket that is refused because its user has too many",
  async (one, two) => {
    const first = await openClient(withTicket(one, await ticketFor(one, "alice")));
    const ticket = await ticketFor(one, "alice");
    {
      await using refused = await RawSocket.open(withTicket(two, ticket));
      assertEquals([refused.answer.status, refused.answer.headers.get("retry-after")], [429, "1"]);
      await using byFrame = await openClient(two.socketUrl());
      byFrame.send(JSON.stringify({ ticket }));
      assertEquals((await byFrame.closed).code, 4429);
    }
    await first.close();
    await until(
      async () => (await call(two, "GET /v1/users/alice")).body.sockets === 0,
      "a place to be free",
    );
    await using _late = await openClient(withTicket(two, ticket));
    await using again = await RawSocket.open(withTicket(one, ticket));
    assertEquals(again.answer.status, 401);
  },
  { USERWIRE_MAX_CONNECTIONS_PER_USER: "1" },
);

redisTest("A ticket is not used up by a socket for which Redis has no room", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const ticket = await ticketFor(service, "alice");
  using operator = await RedisCommands.connect({ port: redis.port });
  // Two of the service, for commands and for itself, and this one.
  await operator.command("CONFIG", "SET", "maxclients", "3");
  {
    await using refused = await RawSocket.open(withTicket(service, ticket));
    assertEquals([refused.answer.status, refused.answer.headers.get("retry-after")], [503, "1"]);
  }
  await operator.command("CONFIG", "SET", "maxclients", "1000");
  const answer = async () => {
    await using socket = await RawSocket.open(withTicket(service, ticket));
    return socket.answer.status;
  };
  let status = 0;
  await until(async () => (status = await answer()) !== 503, "Redis' room to be known");
  assertEquals(status, 101);
});

Deno.test("A ticket ends when its time is up", async () => {
  const tickets = new Tickets(new MemoryTtlStore(new MemoryBroker()), { prefix: "" });
  const short = await tickets.issue("alice", 0.01), long = await tickets.issue("alice", 60);
  const endsMs = Date.now() + 11;
  await until(() => Date.now() >= endsMs, "its time to be up");
  assertEquals([await tickets.find(short), await tickets.redeem(short)], [undefined, false]);
  assertEquals((await tickets.find(long))?.username, "alice");
  for (const junk of ["", "x", "*", "../x", "a".repeat(10_000)]) {
    assertEquals(await tickets.find(junk), undefined);
  }
});

redisTest("A ticket is kept in Redis by its hash, until its time is up", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({
    ...CLOSED,
    REDIS_URL: redis.url,
    USERWIRE_CHANNEL_PREFIX: "prod:",
  });
  const ticket = await ticketFor(service, "alice", 3_600);
  const keysOf = async () => await redis.cli("KEYS", "*ticket*") as string[];
  const keys = (await keysOf()).sort();
  assertEquals(keys.length, 2);
  assertMatch(keys[0]!, /^userwire:prod:ticket:\{[\w-]{43}\}$/);
  assertEquals(keys[1], `${keys[0]}:mark`);
  for (const key of keys) {
    assert(!key.includes(ticket));
    assert(!String(await redis.cli("GET", key)).includes(ticket));
    const ttlMs = Number(await redis.cli("PTTL", key));
    assert(ttlMs > 0 && ttlMs <= 3_600_000, `${ttlMs} ms`);
  }
  for (const key of keys) await redis.cli("PEXPIRE", key, 1);
  await until(async () => (await keysOf()).length === 0, "Redis to forget the ticket");
  await using late = await RawSocket.open(withTicket(service, ticket));
  assertEquals(late.answer.status, 401);
});

Deno.test("A ticket is taken wherever a token is, but not for a refresh", async () => {
  await using service = await Service.start(CLOSED);
  const url = service.socketUrl();
  await using byHeader = await openClient(url, {
    headers: { authorization: `Bearer ${await ticketFor(service, "alice")}` },
    protocols: ["userwire.v1"],
  });
  await using byProtocol = await openClient(url, protocolsFor(await ticketFor(service, "alice")));
  for (const client of [byHeader, byProtocol]) assertEquals((await client.nextJson()).user, "alice");
  for (const name of ["token", "ticket"]) {
    await using byFrame = await openClient(url);
    byFrame.send(JSON.stringify({ [name]: await ticketFor(service, "bob") }));
    await until(() => service.server.app.connections.ofUser("bob").length === 1, `bob to be in by ${name}`);
    await byFrame.close();
    await until(() => service.server.app.connections.ofUser("bob").length === 0, "bob to be gone");
  }
  const ticket = await ticketFor(service, "alice");
  byProtocol.send(JSON.stringify({ t: "auth", token: ticket }));
  assertEquals((await byProtocol.nextJson()).ok, false);
  await using unused = await RawSocket.open(withTicket(service, ticket));
  assertEquals(unused.answer.status, 101, "nothing has used it up");
});

Deno.test("A ticket for no username, or for too long, is refused", async () => {
  await using service = await Service.start(CLOSED);
  const bodies = [{}, { user: "" }, { user: "a b" }, { user: "a", ttl: 0 }, { user: "a", ttl: 3_601 }, {
    user: "a",
    x: 1,
  }];
  for (const body of bodies) {
    const { status } = await call(service, "POST /v1/tickets", { body });
    assertEquals(status, 400, JSON.stringify(body));
  }
});

/** What a ticket's URL begins with; HOST is where the service itself listens. */
interface Address {
  readonly name: string;
  readonly env?: Record<string, string>;
  readonly headers?: Record<string, string>;
  readonly address: string;
}
const ADDRESSES: readonly Address[] = [
  {
    name: "without a proxy, is where the call came",
    address: "ws://HOST/ws",
  },
  {
    name: "with proxies that are trusted, is where the call came to them",
    env: { USERWIRE_TRUSTED_PROXIES: "127.0.0.0/8" },
    headers: { "x-forwarded-proto": "https", "x-forwarded-host": "push.example.com" },
    address: "wss://push.example.com/ws",
  },
  {
    name: "with a chain of them, is where the call came to the first",
    env: { USERWIRE_TRUSTED_PROXIES: "127.0.0.1, 10.0.0.0/8" },
    headers: {
      "x-forwarded-proto": "HTTPS , http",
      "x-forwarded-host": "push.example.com:8443, inner.example",
    },
    address: "wss://push.example.com:8443/ws",
  },
  {
    name: "with a proxy that ends TLS and keeps the host, is secure",
    env: { USERWIRE_TRUSTED_PROXIES: "127.0.0.1" },
    headers: { "x-forwarded-proto": "https" },
    address: "wss://HOST/ws",
  },
  {
    name: "with a proxy that says nonsense, is where the call came to us",
    env: { USERWIRE_TRUSTED_PROXIES: "127.0.0.1" },
    headers: { "x-forwarded-proto": "gopher", "x-forwarded-host": "evil.example/x?" },
    address: "ws://HOST/ws",
  },
  {
    name: "with a stranger's X-Forwarded-Proto and -Host, does not heed them",
    env: { USERWIRE_TRUSTED_PROXIES: "10.0.0.0/8" },
    headers: { "x-forwarded-proto": "https", "x-forwarded-host": "evil.example" },
    address: "ws://HOST/ws",
  },
  {
    name: "with USERWIRE_PUBLIC_URL, is there, whatever the call says",
    env: { USERWIRE_TRUSTED_PROXIES: "127.0.0.1", USERWIRE_PUBLIC_URL: "https://example.com/push/" },
    headers: { "x-forwarded-proto": "http", "x-forwarded-host": "inner.example" },
    address: "wss://example.com/push/ws",
  },
];

for (const { name, env = {}, headers = {}, address } of ADDRESSES) {
  Deno.test(`The URL of a ticket, ${name}`, async () => {
    await using service = await Service.start({ ...CLOSED, ...env });
    const { body } = await call(service, "POST /v1/tickets", { body: { user: "alice" }, headers });
    const expected = address.replace("HOST", new URL(service.server.url).host);
    assertEquals(body.url, `${expected}?ticket=${body.ticket}`);
  });
}

// ---------------------------------------------------------------------------------------------------------
// Revocations

async function revoke(service: Service, user: string, body: unknown): Promise<void> {
  const { status, body: answer } = await call(service, `POST /v1/users/${user}/revocations`, { body });
  assertEquals(status, 201, JSON.stringify(answer));
}

const statusOf = async (service: Service, token: string) => {
  await using socket = await RawSocket.open(service.socketUrl(), {
    headers: { Authorization: `Bearer ${token}` },
  });
  return socket.answer.status;
};

async function hello(client: WsClient): Promise<WsClient> {
  assertEquals((await client.nextJson()).t, "hi");
  return client;
}

onEachStore("A token revoked by its id is let in nowhere, and its sockets are closed", async (one, two) => {
  const bad = await tokenFor("alice", { jti: "bad" }), good = await tokenFor("alice", { jti: "good" });
  await using a = await hello(await openClient(one.socketUrl(), protocolsFor(bad)));
  await using b = await hello(await openClient(two.socketUrl(), protocolsFor(bad)));
  await using c = await hello(await openClient(two.socketUrl(), protocolsFor(good)));
  await revoke(one, "alice", { jti: "bad" });
  for (const client of [a, b]) {
    assertEquals(await client.closed, {
      code: 4401,
      reason: "revoked",
    });
  }
  assertEquals([await statusOf(one, bad), await statusOf(two, bad)], [401, 401]);
  assertEquals(await statusOf(two, good), 101);
  // A refresh with it is refused too, and costs nothing.
  c.send(JSON.stringify({ t: "auth", token: bad }));
  const re = await c.nextJson();
  assertEquals([re.ok, c.socket.readyState], [false, WebSocket.OPEN]);
  // Another user's token of the same id is another token.
  assertEquals(await statusOf(one, await tokenFor("bob", { jti: "bad" })), 101);
});

onEachStore("Revoking all that was issued before a moment spares what is newer", async (one, two) => {
  const nowS = Math.floor(Date.now() / 1_000);
  const old = await tokenFor("alice", { iat: nowS - 100 });
  const fresh = await tokenFor("alice", { iat: nowS - 10 });
  const undated = await tokenFor("alice", { iat: undefined });
  await using a = await hello(await openClient(one.socketUrl(), protocolsFor(old)));
  await using b = await hello(await openClient(two.socketUrl(), protocolsFor(fresh)));
  await using c = await hello(await openClient(two.socketUrl(), protocolsFor(undated)));
  await revoke(two, "alice", { issued_before: nowS - 50 });
  assertEquals((await a.closed).code, 4401);
  assertEquals((await c.closed).code, 4401, "it may be as old as any");
  assertEquals([await statusOf(one, old), await statusOf(two, undated), await statusOf(one, fresh)], [
    401,
    401,
    101,
  ]);
  // An earlier moment takes nothing back.
  await revoke(one, "alice", { issued_before: nowS - 1_000 });
  assertEquals(await statusOf(two, old), 401);
  assertEquals(b.socket.readyState, WebSocket.OPEN);
  const ticket = await ticketFor(one, "alice");
  await revoke(one, "alice", {});
  assertEquals((await b.closed).code, 4401);
  assertEquals(await statusOf(two, fresh), 401);
  await using late = await RawSocket.open(withTicket(two, ticket));
  assertEquals(late.answer.status, 401, "tickets count too");
});

onEachStore("Of many revocations at once the latest moment stays", async (one, two) => {
  const nowS = Math.floor(Date.now() / 1_000);
  const moments = Array.from({ length: 40 }, (_, i) => nowS - 1_000 + (i * 17) % 40);
  await Promise.all(
    moments.map((before, i) => (i % 2 === 0 ? one : two).server.app.auth.revoke("alice", { before })),
  );
  const latest = Math.max(...moments);
  assertEquals(await statusOf(one, await tokenFor("alice", { iat: latest - 1 })), 401);
  assertEquals(await statusOf(two, await tokenFor("alice", { iat: latest })), 101);
});

redisTest("A revocation that somebody has written over lets no token in again", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const token = await tokenFor("alice", {});
  assertEquals(await statusOf(service, token), 101);
  for (const text of ["oops", "nan", "inf"]) {
    await redis.cli("SET", "userwire:{alice}:revoked", text);
    assertEquals(await statusOf(service, token), 401, text);
  }
});

redisTest(
  "A ticket that somebody has written over lets nobody in, and is refused as one that is used up",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
    const ticket = await ticketFor(service, "alice");
    const [key] = await redis.cli("KEYS", "userwire:ticket:*}") as string[];
    const text = String(await redis.cli("GET", key!));
    const nobody = text.replace(/"username":"alice",/, "");
    const written = ["oops", "null", "7", "{}"].map((other) => `mark ${other}`);
    for (const other of [...written, "oops", "", "null", nobody, text.slice("mark ".length)]) {
      await redis.cli("SET", key!, other);
      await using socket = await RawSocket.open(withTicket(service, ticket));
      assertEquals(socket.answer.status, 401, other);
    }
    await redis.cli("SET", key!, text);
    await using socket = await RawSocket.open(withTicket(service, ticket));
    assertEquals(socket.answer.status, 101);
  },
);

redisTest("A node that has just started knows what was revoked", async () => {
  await using redis = await RedisServer.start();
  const settings = { ...CLOSED, REDIS_URL: redis.url };
  const token = await tokenFor("alice", { jti: "bad" });
  {
    await using service = await Service.start(settings);
    await revoke(service, "alice", { jti: "bad" });
  }
  await using again = await Service.start(settings);
  assertEquals(await statusOf(again, token), 401);
  const keys = await redis.cli("KEYS", "userwire:{alice}:revoked*") as string[];
  assertEquals(keys.length, 1);
  const ttl = Number(await redis.cli("TTL", keys[0]!));
  assert(ttl > 2_592_000 && ttl <= 2_592_015, `kept for ${ttl} s, as long as a token may be taken`);
});

/** The one key of alice's revocations, and for how many seconds it is kept. */
async function kept(redis: RedisServer): Promise<{ text: string; ttlS: number }> {
  const [name] = await redis.cli("KEYS", "userwire:{alice}:revoked*") as [string];
  return { text: String(await redis.cli("GET", name)), ttlS: Number(await redis.cli("PTTL", name)) / 1_000 };
}

redisTest(
  "A revocation is kept for as long as any token or ticket may be taken that it is meant for",
  async (t) => {
    await using redis = await RedisServer.start();
    const settings = { ...CLOSED, REDIS_URL: redis.url, USERWIRE_JWT_CLOCK_TOLERANCE_S: "10" };
    const nowS = Math.floor(Date.now() / 1_000);
    const cases: Record<string, [lifeS: number, body: unknown, keptS: number]> = {
      "a ticket, which may last longer than a token": [60, {}, 3_600 + 3 * 10],
      "a token by its id": [60, { jti: "bad" }, 3_600 + 3 * 10],
      "a token that lives longer": [86_400, { jti: "bad" }, 86_400 + 3 * 10],
      "what will be issued until a moment ahead": [86_400, { issued_before: nowS + 5_000 }, 91_400 + 3 * 10],
      "what was issued before a moment that is over": [
        86_400,
        { issued_before: nowS - 5_000 },
        86_400 + 3 * 10,
      ],
    };
    for (const [what, [lifeS, body, keptS]] of Object.entries(cases)) {
      await t.step(what, async () => {
        await redis.cli("FLUSHALL");
        await using service = await Service.start({ ...settings, USERWIRE_MAX_TOKEN_LIFE_S: `${lifeS}` });
        await revoke(service, "alice", body);
        const { ttlS } = await kept(redis);
        assert(ttlS > keptS - 60 && ttlS <= keptS + 11, `kept for ${ttlS} s, not ${keptS}`);
      });
    }
    await t.step("not for less because of one who keeps them shorter", async () => {
      await redis.cli("FLUSHALL");
      await using long = await Service.start({ ...settings, USERWIRE_MAX_TOKEN_LIFE_S: "86400" });
      await using short = await Service.start({ ...settings, USERWIRE_MAX_TOKEN_LIFE_S: "60" });
      for (const body of [{ jti: "bad" }, {}]) {
        await redis.cli("FLUSHALL");
        await revoke(long, "alice", body);
        await revoke(short, "alice", body);
        const { ttlS } = await kept(redis);
        assert(ttlS > 86_000, `kept for ${ttlS} s`);
      }
    });
  },
);

onEachStore(
  "What clocks ahead of ours issued is revoked too, and its sockets are closed",
  async (one, two) => {
    const nowS = Math.floor(Date.now() / 1_000);
    const ahead = await tokenFor("alice", { iat: nowS + 4 });
    await using byToken = await hello(await openClient(two.socketUrl(), protocolsFor(ahead)));
    const { body } = await call(one, "POST /v1/users/alice/revocations", { body: {} });
    assert(Number.isInteger(body.issued_before) && body.issued_before > nowS + 4, JSON.stringify(body));
    assertEquals(await byToken.closed, { code: 4401, reason: "revoked" });
    assertEquals([await statusOf(one, ahead), await statusOf(two, ahead)], [401, 401]);
  },
);

redisTest("A ticket of a node whose clock is ahead is revoked, and its socket is closed", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const unused = await ticketFor(service, "alice"), used = await ticketFor(service, "alice");
  for (const key of await redis.cli("KEYS", "userwire:ticket:*}") as string[]) {
    // As such a node wrote it that goes by its own clock.
    const ahead = `"iat":${Math.floor(Date.now() / 1_000) + 3}`;
    await redis.cli(
      "SET",
      key,
      String(await redis.cli("GET", key)).replace(/"iat":[\d.]+/, ahead),
      "KEEPTTL",
    );
  }
  await using alice = await hello(await openClient(withTicket(service, used), ["userwire.v1"]));
  await revoke(service, "alice", {});
  assertEquals(await alice.closed, { code: 4401, reason: "revoked" });
  await using late = await RawSocket.open(withTicket(service, unused));
  assertEquals(late.answer.status, 401);
});

redisTest("What was issued before now is revoked also where Redis' clock is behind all others", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const { now } = Date;
  Date.now = () => now() + 3_600_000;
  try {
    const token = await tokenFor("alice");
    await using alice = await hello(await openClient(service.socketUrl(), protocolsFor(token)));
    await revoke(service, "alice", {});
    assertEquals(await alice.closed, { code: 4401, reason: "revoked" });
    assertEquals(await statusOf(service, token), 401);
    await using later = await hello(
      await openClient(withTicket(service, await ticketFor(service, "alice")), ["userwire.v1"]),
    );
    assertEquals(later.socket.readyState, WebSocket.OPEN);
  } finally {
    Date.now = now;
  }
  const [key] = await redis.cli("KEYS", "userwire:{alice}:revoked") as [string];
  assert(Number(await redis.cli("PTTL", key)) > 86_400_000, "it outlives what it was meant for");
});

redisTest("A ticket is dated by Redis' clock, however wrong that of its node is", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const { now } = Date;
  Date.now = () => now() + 3_600_000;
  try {
    await ticketFor(service, "alice");
  } finally {
    Date.now = now;
  }
  const [key] = await redis.cli("KEYS", "userwire:ticket:*}") as [string];
  const iat = /"iat":([\d.]+)/.exec(String(await redis.cli("GET", key)))![1]!;
  assert(Math.abs(Number(iat) - Date.now() / 1_000) < 600, iat);
});

onEachStore("A ticket that is bought after a revocation lets in, until the next one", async (one, two) => {
  await revoke(one, "alice", {});
  await using first = await hello(
    await openClient(withTicket(two, await ticketFor(one, "alice")), ["userwire.v1"]),
  );
  const unused = await ticketFor(two, "alice");
  await revoke(one, "alice", {});
  assertEquals(await first.closed, { code: 4401, reason: "revoked" });
  await using late = await RawSocket.open(withTicket(one, unused));
  assertEquals(late.answer.status, 401);
  const nowS = Math.floor(Date.now() / 1_000);
  await revoke(one, "alice", { issued_before: nowS + 1_000 });
  await using next = await RawSocket.open(withTicket(one, await ticketFor(one, "alice")));
  assertEquals(next.answer.status, 101);
});

redisTest(
  "A revocation that can't be told to the sockets is not written, and the answer says so",
  async (t) => {
    await using redis = await RedisServer.start();
    await redis.cli("ACL", "SETUSER", "half", "on", ">pw", "~*", "&*", "+@all");
    const url = redis.url.replace("redis://", "redis://half:pw@");
    await using service = await Service.start({ ...CLOSED, REDIS_URL: url });
    const old = await tokenFor("alice", { jti: "old" });
    for (const body of [{ jti: "old" }, {}]) {
      await t.step(JSON.stringify(body), async () => {
        await redis.cli("FLUSHALL");
        await using alice = await hello(await openClient(service.socketUrl(), protocolsFor(old)));
        await redis.cli("ACL", "SETUSER", "half", "-publish");
        const refused = await call(service, "POST /v1/users/alice/revocations", { body });
        await redis.cli("ACL", "SETUSER", "half", "+publish");
        assertEquals(refused.status, 503);
        assertMatch(refused.body.detail, /; nothing was revoked$/);
        assertEquals(await statusOf(service, old), 101, "it was not revoked");
        assertEquals(alice.socket.readyState, WebSocket.OPEN);
        // What was revoked before stays so.
        await revoke(service, "alice", body);
        assertEquals((await alice.closed).code, 4401);
        const before = await kept(redis);
        await redis.cli("ACL", "SETUSER", "half", "-publish");
        assertEquals((await call(service, "POST /v1/users/alice/revocations", { body })).status, 503);
        await redis.cli("ACL", "SETUSER", "half", "+publish");
        const after = await kept(redis);
        assertEquals(after.text, before.text);
        assert(after.ttlS > 0 && after.ttlS <= before.ttlS, "for as long as before");
        assertEquals(await statusOf(service, old), 401);
      });
    }
  },
);

/** Lua: copies a key to another database, as DUMP and RESTORE do it between servers. */
const COPY_KEY = `
redis.call('SELECT', ARGV[1])
local copy = redis.call('DUMP', KEYS[1])
redis.call('SELECT', ARGV[2])
redis.call('RESTORE', KEYS[1], 60000, copy, 'REPLACE')`;

/** How a copy of what Redis held comes back: first it is made, later it is put in place. */
const COMES_BACK: readonly { how: string; copy: (redis: RedisServer) => Promise<() => Promise<unknown>> }[] =
  [
    {
      how: "is loaded into a Redis that goes on",
      copy: async (redis) => {
        await redis.cli("SAVE");
        return () => redis.cli("DEBUG", "RELOAD", "NOSAVE");
      },
    },
    {
      how: "is restored key by key",
      copy: async (redis) => {
        const keys = await redis.cli("KEYS", "*ticket*") as string[];
        for (const key of keys) await redis.cli("EVAL", COPY_KEY, "1", key, "0", "1");
        return async () => {
          for (const key of keys) await redis.cli("EVAL", COPY_KEY, "1", key, "1", "0");
        };
      },
    },
    {
      how: "takes its place by SWAPDB",
      copy: async (redis) => {
        const keys = await redis.cli("KEYS", "*ticket*") as string[];
        for (const key of keys) await redis.cli("EVAL", COPY_KEY, "1", key, "0", "1");
        return () => redis.cli("SWAPDB", "0", "1");
      },
    },
    {
      how: "is what Redis starts with again",
      copy: async (redis) => {
        const from = await redis.copyData();
        return () => redis.restart({ from });
      },
    },
  ];

for (const { how, copy } of COMES_BACK) {
  redisTest(`A used ticket lets nobody in when an older copy ${how}`, async () => {
    await using redis = await RedisServer.start({ args: ["--enable-debug-command", "yes"] });
    await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
    const [used, unused] = [await ticketFor(service, "alice", 60), await ticketFor(service, "alice", 60)];
    const comesBack = await copy(redis);
    await using alice = await hello(await openClient(withTicket(service, used), ["userwire.v1"]));
    assertEquals(alice.socket.readyState, WebSocket.OPEN);
    await comesBack();
    await until(async () => (await service.readiness()).status === 200, "the node to serve again");
    for (const ticket of [used, unused]) {
      await using again = await RawSocket.open(withTicket(service, ticket));
      assertEquals(again.answer.status, 401);
    }
    const fresh = await ticketFor(service, "alice", 60);
    await using bob = await hello(await openClient(withTicket(service, fresh), ["userwire.v1"]));
    assertEquals(bob.socket.readyState, WebSocket.OPEN);
  });
}

redisTest(
  "A ticket from before the store was set back is refused, where scripts can't mark the memory",
  async () => {
    await using redis = await RedisServer.start();
    await redis.cli("ACL", "SETUSER", "default", "-append");
    const client = Redis.open(redis.url);
    try {
      await client.availability.whenReady();
      let life = "a";
      client.lifeAt = () => life;
      const tickets = new Tickets(new RedisTtlStore(client), { prefix: "" });
      const used = await tickets.issue("alice", 60), unused = await tickets.issue("alice", 60);
      const keys = await redis.cli("KEYS", "userwire:ticket:*") as string[];
      const before = await Promise.all(keys.map((key) => redis.cli("GET", key)));
      assertEquals([(await tickets.find(used))?.username, await tickets.redeem(used)], ["alice", true]);
      // As in a Redis that starts from an older snapshot.
      for (const [i, key] of keys.entries()) await redis.cli("SET", key, String(before[i]), "EX", "60");
      life = "b";
      assertEquals([await tickets.find(used), await tickets.redeem(used)], [undefined, false], "it was used");
      assertEquals([await tickets.find(unused), await tickets.redeem(unused)], [undefined, false]);
      const fresh = await tickets.issue("alice", 60);
      assertEquals(Object.keys(await tickets.find(fresh) ?? {}), ["username", "iat", "ticket"]);
      assertEquals(await tickets.redeem(fresh), true);
      // One that is found before the store is set back is not used up after it.
      const late = await tickets.issue("alice", 60);
      assert(await tickets.find(late));
      life = "c";
      assertEquals(await tickets.redeem(late), false);
    } finally {
      await client.close();
    }
  },
);

redisTest(
  "A revocation that a socket could not hear, because its subscription was lost, closes it all the same",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
    const token = await tokenFor("alice", { jti: "bad" });
    await revoke(service, "alice", { jti: "bad" });
    const [name] = await redis.cli("KEYS", "userwire:{alice}:revoked*") as [string];
    await redis.cli("DEL", name);
    await using alice = await hello(await openClient(service.socketUrl(), protocolsFor(token)));
    // As if another node had written it, whose order came while the subscription was away.
    await redis.cli("SET", name, "1");
    assertEquals(alice.socket.readyState, WebSocket.OPEN);
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    assertEquals(await alice.closed, { code: 4401, reason: "revoked" });
  },
);

redisTest(
  "A revocation is heard also when the node that is asked for it has only just found Redis again",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
    const token = await tokenFor("alice", { jti: "bad" });
    await using alice = await hello(await openClient(service.socketUrl(), protocolsFor(token)));
    // Only the connection for commands: alice's subscription is never lost, so nobody asks for what it missed.
    await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await until(
      async () => (await service.readiness()).why === "Redis is back and subscriptions are being restored",
      "Redis to be found again",
    );
    await revoke(service, "alice", { jti: "bad" });
    assertEquals(await alice.closed, { code: 4401, reason: "revoked" });
  },
);

redisTest(
  "A revocation that Redis does not answer in time is stored and heard, or neither",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({
      ...CLOSED,
      REDIS_URL: redis.url,
      USERWIRE_REDIS_TIMEOUT_MS: "300",
    });
    const token = await tokenFor("alice", { jti: "bad" });
    await using alice = await hello(await openPatiently(service.socketUrl(), protocolsFor(token)));
    await redis.pause();
    const { status, body } = await call(service, "POST /v1/users/alice/revocations", {
      body: { jti: "bad" },
    });
    assertEquals(status, 503);
    assertMatch(body.detail, /; it may or may not have been revoked: revoke it again$/);
    redis.resume();
    // It had been written before Redis stood still.
    assertEquals(await alice.closed, { code: 4401, reason: "revoked" });
  },
);

redisTest(
  "While Redis is away nobody gets in with a token or a ticket, and is told to come back",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({
      ...CLOSED,
      REDIS_URL: redis.url,
      USERWIRE_REDIS_TIMEOUT_MS: "300",
    });
    let ticket = "";
    // On a busy machine a Redis that is well may take longer than this service waits.
    const buy = async () => {
      const { status, body } = await call(service, "POST /v1/tickets", { body: { user: "alice" } });
      if (status === 201) ticket = body.ticket;
      return status === 201;
    };
    await until(buy, "a ticket");
    await redis.pause();
    await using byToken = await RawSocket.open(service.socketUrl(), {
      headers: { Authorization: `Bearer ${await tokenFor("alice")}` },
    });
    await using byTicket = await RawSocket.open(withTicket(service, ticket));
    for (const { answer } of [byToken, byTicket]) {
      assertEquals([answer.status, answer.headers.get("retry-after")], [503, "1"]);
    }
    assertEquals((await call(service, "POST /v1/users/alice/revocations", { body: {} })).status, 503);
    redis.resume();
  },
);

Deno.test("A revocation is kept as long as anything it is meant for could be taken, by clocks that are apart", async () => {
  const kept: number[] = [];
  class Watched extends MemoryTtlStore {
    override set(...args: Parameters<MemoryTtlStore["set"]>): Promise<void> {
      kept.push(args[2]);
      return super.set(...args);
    }
  }
  // Tickets live for an hour at most, which is longer than tokens of half a minute.
  for (const [maxLifeS, keptS] of [[86_400, 86_400 + 3 * 60], [30, 3_600 + 3 * 60]] as const) {
    const store = new Watched(new MemoryBroker());
    const revocations = new Revocations(store, { prefix: "", maxLifeS, clockToleranceS: 60 });
    await revocations.add("alice", { jti: "a" });
    await revocations.add("alice", { before: 1 });
    assertEquals(kept.splice(0), [keptS * 1_000, keptS * 1_000]);
  }
});

Deno.test("A revocation names one kind of thing", async () => {
  await using service = await Service.start(CLOSED);
  for (
    const body of [{ jti: "" }, { jti: "x", issued_before: 1 }, { issued_before: "x" }, { user: "alice" }, 7]
  ) {
    assertEquals(
      (await call(service, "POST /v1/users/alice/revocations", { body })).status,
      400,
      JSON.stringify(body),
    );
  }
});
