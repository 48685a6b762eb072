/** Groups in memory and in Redis: the contract. What is true of Redis alone: which keys there are, and what is left of a crash. */
import { assertEquals } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { MemoryGroups } from "../../src/groups/memory.ts";
import { groupsContract } from "../contracts/groups.ts";
import { asSteps } from "../contracts/steps.ts";
import { connected } from "../../testkit/connected.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

async function openOn(redisUrl: string, channelPrefix = "") {
  const engine = openEngine({ redisUrl, channelPrefix });
  await connected(engine);
  return engine;
}

groupsContract("MemoryGroups", () => {
  return Promise.resolve({ groups: new MemoryGroups(), dispose: () => Promise.resolve() });
});

for (
  const [where, start] of Object.entries({ "one Redis": RedisServer.start, "a cluster": ClusterSet.start })
) {
  redisTest(`Groups in ${where} keep their contract`, async (t) => {
    await using place = await start();
    await using ours = await engineOn(place.url);
    await using theirs = await engineOn(place.url);
    await asSteps(
      t,
      (test) =>
        groupsContract("It", () =>
          Promise.resolve({
            groups: ours.groups,
            peer: theirs.groups,
            dispose: () => Promise.resolve(),
          }), { test }),
    );
  });
}

async function engineOn(url: string) {
  const { groups, close } = await openOn(url);
  return { groups, [Symbol.asyncDispose]: close };
}

redisTest("A group's keys have its slot and no end, and meet those of no user", async () => {
  await using redis = await RedisServer.start();
  const engine = await openOn(redis.url, "app:");
  await engine.groups.change("team", { add: ["alice"], maxUsers: 10 });
  const keys = (await redis.cli("KEYS", "*") as string[]).filter((key) => /member|meta|groups/.test(key))
    .sort();
  assertEquals(keys, [
    "userwire:{app:alice}:groups",
    "userwire:{userwire:app:group:team}:members",
    "userwire:{userwire:app:group:team}:meta",
  ]);
  for (const key of keys) assertEquals(await redis.cli("PTTL", key), -1);
  await engine.groups.change("team", { remove: ["alice"], maxUsers: 10 });
  assertEquals(await redis.cli("EXISTS", keys[1]!, keys[2]!), 0);
  await engine.close();
});

redisTest(
  "A list of groups that a process left with a name too many tells the truth, and is put right in time",
  async () => {
    await using redis = await RedisServer.start();
    const engine = await openOn(redis.url);
    await engine.groups.change("real", { add: ["alice"], maxUsers: 10 });
    const key = "userwire:{alice}:groups";
    // One noted just now, as by a process that ended then, and one noted long ago.
    await redis.cli("ZADD", key, String(Date.now()), "just-now", "1000", "long-ago");
    assertEquals(await engine.groups.of("alice"), ["real"]);
    assertEquals((await redis.cli("ZRANGE", key, "0", "-1") as string[]).sort(), ["just-now", "real"]);
    // Who leaves long after they joined leaves nothing.
    await redis.cli("ZADD", key, "1000", "real");
    await engine.groups.change("real", { remove: ["alice"], maxUsers: 10 });
    assertEquals(await redis.cli("ZRANGE", key, "0", "-1"), ["just-now"]);
    await engine.close();
  },
);

redisTest(
  "A group that Redis has lost is not there, and one that is made anew has another epoch",
  async () => {
    await using redis = await RedisServer.start();
    const engine = await openOn(redis.url);
    await engine.groups.change("team", { add: ["alice"], maxUsers: 10 });
    const before = (await engine.groups.page("team", "", 1))!;
    await redis.cli("FLUSHALL");
    assertEquals(await engine.groups.page("team", "", 1), undefined);
    assertEquals(await engine.groups.of("alice"), []);
    const stale = await engine.groups.change("team", {
      replace: ["bob"],
      ifVersion: before.version,
      maxUsers: 10,
    });
    assertEquals(stale, { outcome: "stale", version: 0 });
    await engine.groups.change("team", { replace: ["bob"], maxUsers: 10 });
    assertEquals((await engine.groups.page("team", "", 1))!.epoch === before.epoch, false);
    await engine.close();
  },
);

redisTest("A change for which Redis has no memory is not made at all", async () => {
  await using redis = await RedisServer.start();
  const engine = await openOn(redis.url);
  await engine.groups.change("team", { add: ["alice"], maxUsers: 10 });
  await redis.cli("CONFIG", "SET", "maxmemory", "1");
  const refused = await engine.groups.change("team", { add: ["bob"], remove: ["alice"], maxUsers: 10 }).catch(
    (e) => e,
  );
  assertEquals(refused.message, "Redis has as much data as its maxmemory allows: raise it");
  await redis.cli("CONFIG", "SET", "maxmemory", "0");
  assertEquals((await engine.groups.page("team", "", 5))!.names, ["alice"]);
  await engine.close();
});
