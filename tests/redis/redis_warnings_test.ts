/** Warnings of a Redis that may lose what it keeps: from its own words, and from real ones that change their settings. */
import { assertEquals, assertMatch } from "@std/assert";
import { memoryLog } from "../../testkit/memory_log.ts";
import { warningsOf } from "../../src/redis/warnings.ts";
import { Redis } from "../../src/redis/commands.ts";
import { WarningsWatch, type Watched } from "../../src/redis/warnings_watch.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";

const infoOf = (fields: Record<string, string | number>) =>
  ["# Memory", ...Object.entries(fields).map(([name, value]) => `${name}:${value}`), ""].join("\r\n");

const SAFE = { maxmemory: 0, maxmemory_policy: "noeviction", aof_enabled: 1 };
const UNSAVED = {
  ...SAFE,
  aof_enabled: 0,
  uptime_in_seconds: 90_000,
  rdb_changes_since_last_save: 1,
  rdb_last_bgsave_time_sec: -1,
  rdb_bgsave_in_progress: 0,
};

const CASES: Record<string, [info: string, save: string | undefined, warnings: RegExp[]]> = {
  "an append-only file and no limit": [infoOf(SAFE), "", []],
  "a policy without a limit of memory": [infoOf({ ...SAFE, maxmemory_policy: "allkeys-lru" }), "", []],
  "a limit without eviction": [infoOf({ ...SAFE, maxmemory: 1 }), "", []],
  "eviction of anything": [
    infoOf({ ...SAFE, maxmemory: 1, maxmemory_policy: "allkeys-lru" }),
    "",
    [/maxmemory-policy allkeys-lru\): set maxmemory-policy noeviction/],
  ],
  "eviction of what has a TTL": [
    infoOf({ ...SAFE, maxmemory: 1, maxmemory_policy: "volatile-ttl" }),
    "",
    [/maxmemory-policy volatile-ttl/],
  ],
  "snapshots only": [infoOf({ ...SAFE, aof_enabled: 0 }), "3600 1 300 100", []],
  "neither file nor snapshots": [infoOf({ ...SAFE, aof_enabled: 0 }), "", [/keeps nothing on disk/]],
  "both faults": [
    infoOf({ maxmemory: 9, maxmemory_policy: "volatile-lru", aof_enabled: 0 }),
    "",
    [/volatile-lru/, /nothing on disk/],
  ],
  "settings that are not told": [infoOf({ ...SAFE, aof_enabled: 0 }), undefined, []],
  "nothing told and nothing saved for a day": [infoOf(UNSAVED), undefined, [/keeps nothing on disk/]],
  "nothing told, started today": [infoOf({ ...UNSAVED, uptime_in_seconds: 80_000 }), undefined, []],
  "nothing told, saved once": [infoOf({ ...UNSAVED, rdb_last_bgsave_time_sec: 0 }), undefined, []],
  "nothing told, saving": [infoOf({ ...UNSAVED, rdb_bgsave_in_progress: 1 }), undefined, []],
  "nothing told, nothing to save": [infoOf({ ...UNSAVED, rdb_changes_since_last_save: 0 }), undefined, []],
  "an INFO without these fields": ["# Server\r\nredis_version:7.0.15\r\n", undefined, []],
  "nothing at all": ["", undefined, []],
};

for (const [what, [info, save, warnings]] of Object.entries(CASES)) {
  Deno.test(`warningsOf, with ${what}`, () => {
    const found = warningsOf(info, save);
    assertEquals(found.length, warnings.length, found.join());
    for (const [i, warning] of warnings.entries()) assertMatch(found[i]!, warning);
  });
}

Deno.test("warningsOf tells of a clock that is off by more than five seconds, whenever within the question it was read", () => {
  const asked = { fromMs: 1_000_000, toMs: 1_003_000 };
  const found = (serverMs: number) =>
    warningsOf(infoOf({ ...SAFE, server_time_usec: serverMs * 1_000 }), "", asked);
  for (const serverMs of [995_000, 1_000_000, 1_003_000, 1_008_000]) assertEquals(found(serverMs), []);
  assertMatch(found(994_999).join(), /^Redis' clock is more than 5 s behind this machine's: .*NTP/);
  assertMatch(found(1_008_001).join(), /^Redis' clock is more than 5 s ahead of this machine's: /);
  assertEquals(warningsOf(infoOf(SAFE), "", asked), [], "not told before 6.2");
});

redisTest(
  "A Redis whose clock differs from ours is said by /readyz, until one of them is set right",
  async () => {
    await using redis = await RedisServer.start({ args: ["--appendonly", "yes"] });
    const { now } = Date;
    await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
    assertEquals((await service.readiness()).warnings, []);
    const asksAgain = () => redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    const warned = async (what: RegExp | undefined) => {
      await asksAgain();
      await until(async () => {
        const { warnings } = await service.readiness();
        return what ? warnings.some((text) => what.test(text)) : warnings.length === 0;
      }, `the warnings to be ${what}`);
    };
    try {
      Date.now = () => now() + 3_600_000;
      await warned(/Redis' clock is more than 5 s behind/);
      Date.now = () => now() - 3_600_000;
      await warned(/Redis' clock is more than 5 s ahead/);
    } finally {
      Date.now = now;
    }
    await warned(undefined);
  },
);

Deno.test("A watch says each warning once, asks anew after a reconnect, and says again what had been cured", async () => {
  const log = memoryLog();
  let asked = 0, answer: string[] | undefined = ["a"];
  const redis = {
    reconnects: 0,
    reason: "away" as string | undefined,
    warnings: () => (asked++, answer ? Promise.resolve(answer) : Promise.reject(new Error("gone"))),
  } satisfies Watched;
  using watch = new WarningsWatch(redis, log);
  const said = () => log.records.map(({ fields }) => fields.reason);
  await watch.look();
  assertEquals([asked, watch.warnings], [0, []]);
  redis.reason = undefined;
  await watch.look();
  await watch.look();
  assertEquals([asked, watch.warnings, said()], [1, ["a"], ["a"]]);
  redis.reconnects++;
  answer = undefined;
  await watch.look();
  assertEquals([asked, watch.warnings], [2, ["a"]], "what is known stays");
  answer = ["a", "b"];
  await watch.look();
  assertEquals([asked, watch.warnings, said()], [3, ["a", "b"], ["a", "b"]]);
  for (answer of [["b"], ["a", "b"]]) {
    redis.reconnects++;
    await watch.look();
  }
  assertEquals([watch.warnings, said()], [["a", "b"], ["a", "b", "a"]]);
});

redisTest("A Redis that may lose what it keeps is said at the start, in the log and by /readyz", async () => {
  await using redis = await RedisServer.start({
    args: ["--maxmemory", "50mb", "--maxmemory-policy", "volatile-lru"],
  });
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const { status, warnings } = await service.readiness();
  assertEquals([status, warnings.length], [200, 2]);
  assertMatch(warnings[0]!, /maxmemory-policy volatile-lru/);
  assertMatch(warnings[1]!, /keeps nothing on disk/);
  const said = () => service.logged("redis may lose data");
  assertEquals(
    said().map(({ level, fields }) => [level, fields.reason]),
    warnings.map((text) => ["warn", text]),
  );
  await redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction", "save", "3600 1");
  await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  await until(async () => (await service.readiness()).warnings.length === 0, "the cure to be known");
  assertEquals(said().length, 2);
});

redisTest(
  "A Redis that forbids CONFIG, as managed ones do, is warned of by what it says unasked",
  async () => {
    await using redis = await RedisServer.start({ args: ["--rename-command", "CONFIG", "hidden"] });
    const commands = Redis.open(redis.url);
    await commands.availability.whenReady();
    assertEquals(await commands.warnings(), []);
    commands.close();
  },
);

redisTest(
  "A Redis that keeps everything is not warned of, and an ACL user asks for no settings",
  async () => {
    await using redis = await RedisServer.start({ args: ["--appendonly", "yes"] });
    await redis.cli("ACL", "SETUSER", "userwire", "on", ">pw", "~*", "&*", "+@all", "-config");
    for (const url of [redis.url, redis.url.replace("redis://", "redis://userwire:pw@")]) {
      await using service = await Service.start({ ...CLOSED, REDIS_URL: url });
      assertEquals((await service.readiness()).warnings, []);
      assertEquals(service.logged("redis may lose data"), []);
    }
    assertEquals(await redis.cli("ACL", "LOG"), []);
  },
);
