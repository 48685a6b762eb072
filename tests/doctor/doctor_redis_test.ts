/** `userwire doctor` on real Redis servers, each with one thing that is not as it should be. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import type { Finding } from "../../src/doctor/finding.ts";
import { lookAt } from "../../src/doctor/redis.ts";
import { until } from "../../testkit/deadline.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { loadConfig } from "../../testkit/config.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { SentinelServer, SentinelSet } from "../../testkit/redis_sentinel.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

/** What the command finds of Redis that is not as it should be. */
async function doctor(url: string, args: string[] = []) {
  const io = new Terminal();
  const env = { PORT: "0", REDIS_URL: url, USERWIRE_MAX_CONNECTIONS: "1000" };
  const code = await io.run(["doctor", "--json", ...args], env);
  assertEquals(io.stderr, "");
  const { findings } = JSON.parse(io.stdout) as { findings: Finding[] };
  const of = findings.filter(({ check }) => /^(redis|clock)/.test(check));
  return { code, of, wrong: of.filter(({ state }) => state !== "ok"), text: io.stdout };
}

redisTest("A Redis as docs/redis.md has it is well, and each setting that is not is found", async (t) => {
  await using redis = await RedisServer.start({ appendOnly: true });
  const set = (...pair: [string, string]) => redis.cli("CONFIG", "SET", ...pair);
  await set("client-output-buffer-limit", "pubsub 33554432 8388608 60");
  await set("tcp-keepalive", "60");
  await t.step("all is well", async () => {
    const { of, wrong } = await doctor(redis.url);
    assertEquals(wrong, []);
    assertEquals(
      of.map(({ check }) => check.replace("redis ", "")),
      ["rights", "data", "version", "maxclients", "tcp-keepalive", "output buffer", "round trip", "clock"],
    );
    assertMatch(of[2]!.says, /^version \d+\.\d+\.\d+, standalone, master$/);
  });
  const cases: [setting: string, value: string, back: string, check: string, says: RegExp, remedy: RegExp][] =
    [
      [
        "maxclients",
        "900",
        "10000",
        "redis maxclients",
        /takes 900 clients, but one node of 1000 .* 1018/,
        /maxclients 1018/,
      ],
      ["tcp-keepalive", "0", "60", "redis tcp-keepalive", /it is off/, /tcp-keepalive 60/],
      [
        "client-output-buffer-limit",
        "pubsub 1048576 0 60",
        "pubsub 33554432 8388608 60",
        "redis output buffer",
        /pubsub 1048576 0 60: Redis cuts/,
        /32mb 8mb 60/,
      ],
      ["appendonly", "no", "yes", "redis data", /keeps nothing on disk, .*: set appendonly yes/, /undefined/],
    ];
  for (const [setting, value, back, check, says, remedy] of cases) {
    await t.step(`${setting} ${value}`, async () => {
      await set(setting, value);
      const { code, wrong } = await doctor(redis.url);
      await set(setting, back);
      assertEquals([code, wrong.map((one) => [one.check, one.state])], [1, [[check, "warning"]]]);
      assertMatch(wrong[0]!.says, says);
      assertMatch(String(wrong[0]!.remedy), remedy);
    });
  }
  await t.step("eviction", async () => {
    await set("maxmemory", "100mb");
    await set("maxmemory-policy", "allkeys-lru");
    const { wrong } = await doctor(redis.url);
    assertMatch(wrong[0]!.says, /may throw .* away .*allkeys-lru\): set maxmemory-policy noeviction/);
    await set("maxmemory", "0");
  });
  await t.step("many nodes", async () => {
    const { wrong } = await doctor(redis.url, ["--nodes", "20"]);
    assertMatch(wrong[0]!.says, /20 nodes of 1000 sockets take up to 20056/);
    assertEquals((await doctor(redis.url, ["--nodes", "20", "--subscriptions", "shared"])).wrong, []);
  });
  await t.step("a user without a right that is needed, by name", async () => {
    await redis.cli("ACL", "SETUSER", "few", "on", ">pw", "allkeys", "allchannels", "+@all", "-xadd");
    const { code, wrong, text } = await doctor(redis.url.replace("://", "://few:pw@"));
    assertEquals([code, wrong[0]!.state], [2, "fault"]);
    assertMatch(JSON.stringify(wrong), /XADD/i);
    assertNotMatch(text, /few:pw/);
  });
  await t.step("a wrong password", async () => {
    const { code, wrong } = await doctor(redis.url.replace("://", "://few:hunter2@"));
    assertEquals([code, wrong.length, wrong[0]!.state], [2, 1, "fault"]);
    assertMatch(`${wrong[0]!.says} → ${wrong[0]!.remedy}`, /→ correct the user and password in it/);
    assertNotMatch(JSON.stringify(wrong), /hunter2/);
  });
  await t.step("a replica", async () => {
    await using replica = await RedisServer.start({ replicaOf: redis });
    const { code, wrong } = await doctor(replica.url);
    assertEquals(code, 2);
    assertMatch(wrong[0]!.says, /Redis is (?:a replica|loading)/);
  });
  await t.step("nobody", async () => {
    // It was told to write a log anew, and does not end before that is done: it forgets that it was asked to.
    await until(
      async () =>
        /rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(
          String(await redis.cli("INFO", "persistence")),
        ),
      "Redis to have written its log",
    );
    await redis.stop();
    const { code, wrong } = await doctor(redis.url);
    assertEquals([code, wrong.length, wrong[0]!.state], [2, 1, "fault"]);
    assertMatch(wrong[0]!.says, /nothing listens|not available/);
  });
});

redisTest(
  "On a cluster each finding says of which master it is, and why one of them can't be used",
  async () => {
    await using cluster = await ClusterSet.start();
    const [one, lost, other] = cluster.nodes.map(({ server }) => server);
    // As in a container that was started anew elsewhere.
    await lost!.cli("CONFIG", "SET", "cluster-announce-ip", "127.9.9.9");
    for (const server of [one!, other!]) {
      await until(
        async () => String(await server.cli("CLUSTER", "NODES")).includes("127.9.9.9"),
        "the others to hear of it",
        30_000,
      );
    }
    const { of, wrong } = await doctor(cluster.url);
    const versions = of.filter(({ check }) => check === "redis version").map(({ says }) =>
      says.split(": ")[0]
    );
    assertEquals(versions.toSorted(), [one!, other!].map(({ port }) => `127.0.0.1:${port}`).toSorted());
    const said = wrong.filter(({ check }) => check === "redis").map(({ says }) => says);
    assertMatch(said[0]!, /^1 of 3 masters of the Redis cluster can't be used: /);
    const place = `127.9.9.9:${lost!.port}`;
    assert(said.some((text) => text.includes(`nobody listens there: ${place}: `)), said.join("\n"));
    assertEquals(wrong.filter(({ check }) => check === "redis rights" || check === "redis data"), []);
    // Of those who are left each has half of the users.
    const clientsOf = async (sockets: number) =>
      (await doctor(cluster.url, ["--max-connections", `${sockets}`])).of
        .filter(({ check }) => check === "redis maxclients").map(({ state }) => state);
    assertEquals(await clientsOf(15_000), ["ok", "ok"]);
    assertEquals(await clientsOf(25_000), ["warning", "warning"]);
  },
);

redisTest("A Sentinel that can't be asked is named, and is no fault while others answer", async () => {
  await using set = await SentinelSet.start();
  await using alone = await SentinelServer.start(set.servers[0]!.port, { password: "s3same" });
  const gone = alone.port;
  const { code, wrong } = await doctor(`${set.url.replace("/main", "")},127.0.0.1:${gone}/main`);
  const said = wrong.filter(({ check }) => check === "redis");
  assertEquals([code, ...said.map(({ state }) => state)], [1, "warning", "warning"]);
  assertMatch(said[0]!.says, /^1 of 4 Sentinels of Redis can't be asked/);
  assertMatch(said[1]!.says, new RegExp(`set REDIS_SENTINEL_PASSWORD.*: 127.0.0.1:${gone}: `));
});

Deno.test("Without Redis a node is told what it lacks", async () => {
  const io = new Terminal();
  assertEquals(await io.run(["doctor"], { PORT: "0" }), 1);
  assertMatch(io.stdout, /^! redis: none is set: .*\n {4}set REDIS_URL/m);
});

Deno.test("What a Redis says of its age, its distance and its clock is judged", () => {
  const config = loadConfig({});
  const well = {
    place: undefined,
    version: "7.2.4",
    role: "master",
    mode: "standalone",
    connected: 1,
    maxclients: 20_000,
    settings: new Map(),
    roundTripMs: 0.5,
    aheadMs: 20,
  };
  const wrong = (part: Partial<typeof well>) =>
    lookAt({ ...well, ...part }, config, 1).filter(({ state }) => state !== "ok").map(({ check, says }) =>
      `${check}: ${says}`
    );
  assertEquals(wrong({}), []);
  assertMatch(wrong({ version: "6.0.16" }).join(), /^redis version: .*older than 6\.2$/);
  assertEquals(wrong({ version: "8.0.0" }), []);
  assertMatch(wrong({ roundTripMs: 80 }).join(), /^redis round trip: an answer takes 80\.0 ms/);
  assertMatch(wrong({ aheadMs: 90_000 }).join(), /^clock: this machine is 90 s behind Redis/);
  assertMatch(wrong({ aheadMs: -90_000 }).join(), /^clock: this machine is 90 s ahead of Redis/);
  assert(wrong({ maxclients: undefined! }).length === 0);
});
