/**
 * Another Redis takes over behind an address that stays, as behind a proxy, a DNS name or a Service, while connections
 * survive: only a master is served, commands and subscriptions never stay on different servers, and meanwhile nobody
 * is told a number that is not true.
 */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConfigError } from "../../src/protocol/errors.ts";
import { readInfo, unfitnessOf } from "../../src/redis/server_info.ts";
import { until } from "../../testkit/deadline.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";
import { openClient, openPatiently, type WsClient } from "../../testkit/ws_client.ts";

const WAIT_MS = 20_000;

const WAYS: { name: string; env: Env }[] = [
  { name: "with a history", env: {} },
  { name: "without a history", env: { USERWIRE_HISTORY: "0" } },
  { name: "with shared subscriptions", env: SHARED },
];

function follow(master: RedisServer): Promise<RedisServer> {
  return RedisServer.start({
    args: ["--replicaof", "127.0.0.1", String(master.port), "--repl-diskless-sync-delay", "0"],
  });
}

/** Resolves when the replica has all that its master has. */
async function inStep(replica: RedisServer): Promise<void> {
  await until(
    async () => /^master_link_status:up/m.test(String(await replica.cli("INFO", "replication"))),
    "the replica to be in step",
    WAIT_MS,
  );
}

async function isReady(service: Service): Promise<void> {
  await until(async () => (await service.readiness()).status === 200, "the service to be ready", WAIT_MS);
}

async function isNotReady(service: Service, why: RegExp): Promise<void> {
  await until(
    async () => why.test((await service.readiness()).why ?? ""),
    `the service not to be ready: ${why}`,
    WAIT_MS,
  );
}

/** Sends until it is accepted; the first number that is answered must be the right one, and what is sent must come. */
async function reaches(service: Service, user: string, client: WsClient, text: string): Promise<void> {
  let sent: { status: number; body: Record<string, unknown> };
  await until(
    async () => (sent = await service.send(user, text)).status !== 503,
    `a send to ${user} to be answered`,
    WAIT_MS,
  );
  const { sockets, nodes } = sent!.body;
  assertEquals(sockets ?? nodes, 1, `${text} is counted`);
  let heard: string | Uint8Array;
  do heard = await client.next(); while (heard !== text);
}

for (const { name, env } of WAYS) {
  redisTest(`A failover in which connections survive is followed ${name}`, async () => {
    await using first = await RedisServer.start();
    await using second = await follow(first);
    await using proxy = await TcpProxy.start(first.port);
    await inStep(second);
    await using service = await Service.start({ REDIS_URL: proxy.through(first.url), ...env });
    await using alice = await openClient(service.socketUrl("alice"));
    await isReady(service);
    await reaches(service, "alice", alice, "before");

    await first.failOverTo(second);
    await isNotReady(service, /^Redis is a replica/);
    assertEquals((await service.send("alice", "refused")).status, 503);
    proxy.turn(second.port);
    await reaches(service, "alice", alice, "after");
    await isReady(service);
    assertEquals(await new Truth(second).count("alice"), 1);
    await new Truth(first).untilCount("alice", 0, WAIT_MS);
  });

  redisTest(`Subscriptions follow the commands to another server ${name}`, async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using proxy = await TcpProxy.start(first.port);
    await using service = await Service.start({ REDIS_URL: proxy.through(first.url), ...env });
    await using alice = await openClient(service.socketUrl("alice"));
    await using bob = await openClient(service.socketUrl("bob"));
    await reaches(service, "alice", alice, "before");

    // The first lives on, apart; nothing but the one connection ends.
    proxy.turn(second.port);
    const list = String(await first.cli("CLIENT", "LIST", "TYPE", "normal"));
    const id = /^id=(\d+) .* name=userwire-publisher /m.exec(list)![1]!;
    await first.cli("CLIENT", "KILL", "ID", id);
    await until(async () => (await service.send("nobody", "x")).status === 503, "it to be noticed", WAIT_MS);
    await reaches(service, "alice", alice, "after");
    await reaches(service, "bob", bob, "after");
    await new Truth(first).isEmpty(WAIT_MS);
  });

  redisTest(`What is subscribed elsewhere than messages are published is found ${name}`, async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using proxy = await TcpProxy.start(first.port);
    await using service = await Service.start({ REDIS_URL: proxy.through(first.url), ...env });
    await using alice = await openClient(service.socketUrl("alice"));
    await reaches(service, "alice", alice, "before");
    // No connection ends at all, and both servers live on as masters.
    proxy.turn(second.port);
    if (env.USERWIRE_SUBSCRIPTIONS === "shared") {
      await first.cli("CLIENT", "KILL", "TYPE", "pubsub");
    }
    await using bob = await openClient(service.socketUrl("bob"));
    await until(
      () => service.logged("subscriptions found on another server").length > 0,
      "it to be found",
      WAIT_MS,
    );
    await new Truth(second).untilCount("bob", 1, WAIT_MS);
    await new Truth(second).untilCount("alice", 1, WAIT_MS);
    await reaches(service, "bob", bob, "after");
    await reaches(service, "alice", alice, "after");
  });
}

redisTest("A master that becomes a replica by hand is left within two seconds, without traffic", async () => {
  await using first = await RedisServer.start();
  await using second = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: second.url });
  await isReady(service);
  await second.cli("REPLICAOF", "127.0.0.1", first.port);
  await isNotReady(service, /^Redis is a replica/);
  await second.cli("REPLICAOF", "NO", "ONE");
  await isReady(service);
});

redisTest(
  "A server that was a replica for less than a heartbeat has other data, and is greeted anew",
  async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: second.url });
    await using alice = await openClient(service.socketUrl("alice"));
    await isReady(service);
    const { redis } = { redis: second };
    await redis.cli("REPLICAOF", "127.0.0.1", first.port);
    await inStep(second);
    await second.cli("REPLICAOF", "NO", "ONE");
    await until(
      () =>
        service.logged("redis unavailable").some(({ fields }) =>
          /replica|other data/.test(String(fields.reason))
        ),
      "it to be noticed",
      WAIT_MS,
    );
    await reaches(service, "alice", alice, "after");
  },
);

for (const { name, env } of WAYS) {
  redisTest(`A balancer over a master and its replica makes no node ready ${name}`, async () => {
    await using first = await RedisServer.start();
    await using second = await follow(first);
    await using proxy = await TcpProxy.start(first.port);
    await inStep(second);
    const settings = { REDIS_URL: proxy.through(first.url), ...env };
    await using before = await Service.start(settings);
    await using alice = await openClient(before.socketUrl("alice"));
    await isReady(before);

    proxy.share(second.port);
    await isNotReady(before, /^Redis is a replica/);
    await reaches(before, "alice", alice, "who was there is served");
    await using after = await Service.start(settings);
    await isNotReady(after, /^Redis is a replica/);
  });
}

for (const { name, env } of WAYS) {
  redisTest(`A balancer over two masters makes no node ready ${name}`, async () => {
    await using first = await RedisServer.start();
    await using second = await RedisServer.start();
    await using proxy = await TcpProxy.start(first.port);
    const settings = { REDIS_URL: proxy.through(first.url), ...env };
    await using before = await Service.start(settings);
    await using alice = await openClient(before.socketUrl("alice"));
    await isReady(before);

    proxy.share(second.port);
    await isNotReady(before, /^New connections lead to another Redis/);
    await reaches(before, "alice", alice, "who was there is served");
    if (env.USERWIRE_SUBSCRIPTIONS === "shared") {
      await using after = await Service.start(settings);
      await isNotReady(after, /^New connections lead to another Redis/);
    } else await assertRejects(() => Service.start(settings), ConfigError, "does not count its subscribers");
  });
}

redisTest("Shared subscriptions are never at a replica, where nobody counts them", async () => {
  await using first = await RedisServer.start();
  await using second = await follow(first);
  await using proxy = await TcpProxy.start(first.port);
  await inStep(second);
  proxy.share(second.port); // the connection for commands comes first
  await using service = await Service.start({ REDIS_URL: proxy.through(first.url), ...SHARED });
  await using alice = await openPatiently(service.socketUrl("alice"));
  await reaches(service, "alice", alice, "counted");
  assertEquals(await new Truth(second).count("alice"), 0);
});

redisTest("A service that is started on a replica is not ready until that is a master", async () => {
  await using first = await RedisServer.start();
  await using second = await follow(first);
  await inStep(second);
  await using service = await Service.start({ REDIS_URL: second.url, USERWIRE_HISTORY: "0" });
  const { status, why } = await service.readiness();
  assertEquals(status, 503);
  assertMatch(why ?? "", /^Redis is a replica/);
  assertEquals((await service.send("alice", "x")).status, 503);
  await second.cli("REPLICAOF", "NO", "ONE");
  await isReady(service);
});

Deno.test("unfitnessOf tells a Sentinel, a replica and one that loads from a master that can be used", () => {
  const why = (text: string) => unfitnessOf(readInfo(text), false)?.reason;
  assertMatch(why("redis_mode:sentinel\r\n") ?? "", /is a Sentinel/);
  // As Valkey says it.
  assertMatch(why("server_mode:sentinel\r\n") ?? "", /is a Sentinel/);
  assertMatch(why("server_mode:cluster\r\n") ?? "", /cluster/);
  assertMatch(why("redis_mode:standalone\r\nrole:slave\r\n") ?? "", /is a replica/);
  assertMatch(why("redis_mode:standalone\r\nloading:1\r\nrole:master\r\n") ?? "", /loading/);
  assertEquals(why("redis_mode:standalone\r\nloading:0\r\nrole:master\r\n"), undefined);
  assertEquals(why(""), undefined);
});

Deno.test("The life of a server changes with its process and with a promotion, and with nothing else", () => {
  const life = (run: string, former = "0".repeat(40), offset = -1) =>
    readInfo(
      `run_id:${run}\r\nmaster_replid:x${offset}\r\nmaster_replid2:${former}\r\nsecond_repl_offset:${offset}\r\n`,
    )
      .life;
  assertMatch(life("a"), /^[\w-]{12}$/);
  assertEquals(life("a"), life("a"));
  assertEquals(
    new Set([life("a"), life("b"), life("a", "f", 7), life("a", "f", 8), life("a", "e", 7)]).size,
    5,
  );
  assertEquals(
    readInfo("run_id:a\r\nmaster_replid:b\r\n").life,
    readInfo("run_id:a\r\nmaster_replid:c\r\n").life,
  );
  assertMatch(readInfo("master_replid:b\r\n").life, /^[\w-]{12}$/);
  assertEquals(readInfo("").life, "");
});
