/** Two nodes behind real Sentinels: planned failovers and lost masters are followed, and no socket is closed. */
import { assertEquals, assertMatch } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";
import { redisTest } from "../../testkit/redis_server.ts";
import { MASTER, SentinelSet } from "../../testkit/redis_sentinel.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const WAIT_MS = 30_000;

interface Change {
  readonly name: string;
  readonly env: Env;
  happens(set: SentinelSet): Promise<void>;
  /** How the old master comes back. */
  ends?(set: SentinelSet): Promise<void>;
}

async function failOver(set: SentinelSet): Promise<void> {
  assertEquals(await set.sentinels[0]!.cli("SENTINEL", "FAILOVER", MASTER), "OK");
}

const CHANGES: Change[] = [
  { name: "A failover that an operator orders", env: {}, happens: failOver },
  { name: "A failover that an operator orders, with shared subscriptions,", env: SHARED, happens: failOver },
  {
    name: "A master that is killed, with shared subscriptions,",
    env: SHARED,
    happens: (set) => set.servers[0]!.stop({ signal: "SIGKILL" }),
  },
  {
    name: "A master that hangs, and wakes up as a master later,",
    env: {},
    happens: (set) => set.servers[0]!.pause(),
    async ends({ servers: [old] }) {
      old!.resume();
      await until(
        // A Sentinel that makes a replica of it ends the connections of its clients.
        async () => /^role:slave/m.test(await old!.info("replication").catch(() => "")),
        "the old master to be a replica",
        WAIT_MS,
      );
    },
  },
];

async function isReady(service: Service): Promise<void> {
  let why: string | undefined;
  await until(
    async () => {
      const readiness = await service.readiness();
      why = readiness.why;
      return readiness.status === 200;
    },
    "the service to be ready",
    WAIT_MS,
    () => `${why}`,
  );
}

for (const { name, env, happens, ends } of CHANGES) {
  redisTest(`${name} is followed by way of the Sentinels`, async () => {
    await using set = await SentinelSet.start();
    await using here = await Service.start({ REDIS_URL: set.url, ...env });
    await using there = await Service.start({ REDIS_URL: set.url, ...env });
    await isReady(here);
    await isReady(there);
    await using alice = await Follower.open(here.socketUrl("alice"));
    const send = async (text: string) => {
      const sent = await there.send("alice", text);
      assertEquals(
        [sent.status, sent.body.sockets ?? sent.body.nodes],
        [200, 1],
        JSON.stringify(sent.body),
      );
      await until(
        () => alice.data.includes(text),
        `${text} to come`,
        WAIT_MS,
        () => JSON.stringify(alice.data),
      );
    };
    await send("before");
    await happens(set);
    await until(async () => await set.master() === set.servers[1], "the replica to be the master", WAIT_MS);
    for (const service of [here, there]) {
      await until(
        () => service.logged("redis master found").length >= 2,
        "the new master to be found",
        WAIT_MS,
      );
      await isReady(service);
    }
    await send("after");
    await ends?.(set);
    await send("later");
    // Asked of one node after the other, of which none holds both.
    await using bob = await openClient(here.socketUrl("bob"), "userwire.v1");
    const { conn } = await bob.nextJson();
    await using _other = await openClient(there.socketUrl("bob"), "userwire.v1");
    const nodes = async () => (await (await here.fetch("/v1/nodes")).json()).items.length;
    await until(async () => await nodes() === 2, "both nodes to be listed", WAIT_MS);
    const list = async () => (await (await there.fetch("/v1/users/bob/connections")).json());
    const { items, unanswered } = await list();
    assertEquals([items.length, unanswered], [2, 0]);
    const closing = await there.fetch(`/v1/users/bob/connections/${conn}`, { method: "DELETE" });
    assertEquals([closing.status, await closing.json()], [200, { closed: 1 }]);
    assertEquals((await bob.closed).code, 4403);
    assertEquals((await list()).items.length, 1);
    assertEquals(alice.faults, []);
    // The replica had all there was, or the gap is told.
    assertEquals(alice.gaps.every(({ why }) => why === "epoch"), true, JSON.stringify(alice.gaps));
    assertEquals(here.logged("connection closed").map(({ fields }) => fields.user), ["bob"]);
  });
}

redisTest(
  "Sentinels with a password, or users, are asked with REDIS_SENTINEL_PASSWORD, and what is wrong is said",
  async () => {
    await using set = await SentinelSet.start({ password: "guard" });
    const reasonFor = async (env: Record<string, string>) => {
      await using service = await Service.start(env);
      return (await service.readiness()).why ?? "";
    };
    for (const password of [{}, { REDIS_SENTINEL_PASSWORD: "wrong" }]) {
      assertMatch(await reasonFor({ REDIS_URL: set.url, ...password }), /^Redis' Sentinels refuse the login/);
    }
    const REDIS_SENTINEL_PASSWORD = "guard";
    const url = set.url.replace(`/${MASTER}`, "/other");
    assertMatch(
      await reasonFor({ REDIS_URL: url, REDIS_SENTINEL_PASSWORD }),
      /^Redis' Sentinels know no master of the name/,
    );
    // Where they have users the default one is often off, and ours has just the right that docs/redis.md names.
    const users = { REDIS_URL: set.url, REDIS_SENTINEL_USER: "userwire", REDIS_SENTINEL_PASSWORD: "own" };
    const grant = async (...rights: string[]) => {
      for (const one of set.sentinels) {
        await one.cli("ACL", "SETUSER", "userwire", "on", ">own", "-@all", ...rights);
      }
    };
    await grant();
    assertMatch(await reasonFor(users), /^Redis' Sentinels do not grant their user .*: \+sentinel\|master$/);
    await grant("+sentinel|master");
    for (const one of set.sentinels) assertEquals(await one.cli("ACL", "LOG", "RESET"), "OK");
    await using service = await Service.start(users);
    await isReady(service);
    for (const one of set.sentinels) assertEquals(await one.cli("ACL", "LOG"), []);
    await using alice = await openClient(service.socketUrl("alice"));
    assertEquals((await service.send("alice", "hello")).body.sockets, 1);
    assertEquals(await alice.next(), "hello");
  },
);
