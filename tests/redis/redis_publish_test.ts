/** Publishing over Redis: each send counted exactly, and refused alone. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { Redis } from "../../src/redis/commands.ts";
import { numbers } from "../../testkit/nodes.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

redisTest("Publishes that go out at one time are each counted exactly", async () => {
  await using server = await RedisServer.start();
  const redis = Redis.open(server.url);
  try {
    await redis.availability.whenReady();
    using alice = await RedisCommands.connect({ port: server.port });
    await alice.command("SUBSCRIBE", "alice");
    using watcher = await RedisCommands.connect({ port: server.port });
    await watcher.command("PSUBSCRIBE", "*");
    const channels = ["alice", "bob"];
    const counts = await Promise.all(
      numbers(0, 299).map((n) => redis.publish(channels[n % 2]!, `${n}`, { onlyIfHeard: n % 3 === 0 })),
    );
    assertEquals(counts, numbers(0, 299).map((n) => n % 2 === 0 ? 1 : 0));
    // Of bob's the fifty that only somebody who listens should hear were not published, not even to the watcher.
    const stats = String(await server.cli("INFO", "commandstats"));
    assertEquals(/^cmdstat_publish:calls=(\d+)/m.exec(stats)?.[1], "250");
  } finally {
    await redis.close();
  }
});

redisTest("One channel that is forbidden is refused alone", async () => {
  await using server = await RedisServer.start();
  await server.cli("ACL", "SETUSER", "u", "on", ">pw", "~*", "&alice", "&bob", "+@all");
  const redis = Redis.open(`redis://u:pw@127.0.0.1:${server.port}`);
  try {
    await redis.availability.whenReady();
    const channels = ["alice", "bob", "carl", "alice", "carl"];
    const ends = await Promise.allSettled(channels.map((channel) => redis.publish(channel, "x")));
    const outcomes = ends.map((end) => end.status === "fulfilled" ? end.value : end.reason.outcome);
    assertEquals(outcomes, [0, 0, "refused", 0, "refused"]);
    const alone = await assertRejects(() => redis.publish("carl", "x"), BrokerUnavailableError);
    assertEquals(alone.outcome, "refused");
  } finally {
    await redis.close();
  }
});

redisTest("That publishing is refused is found out by trying", async () => {
  await using server = await RedisServer.start();
  const redis = Redis.open(server.url);
  try {
    await redis.availability.whenReady();
    assertEquals(await redis.tryScripts("probe:1"), undefined);
    await server.cli("ACL", "SETUSER", "default", "-publish");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /rights that are needed, as PUBLISH:/);
    await server.cli("ACL", "SETUSER", "default", "+publish", "resetchannels");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /rights that are needed/);
  } finally {
    await redis.close();
  }
});
