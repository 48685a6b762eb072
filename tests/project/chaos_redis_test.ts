/** What the chaos does to Redis is what it says: data put back from a copy, roles that change, a way that is turned. */
import { assertEquals } from "@std/assert";
import { RedisProxy } from "../programs/chaos/redis_proxy.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

for (const appendOnly of [false, true]) {
  const kept = appendOnly ? "an append-only file" : "snapshots";

  redisTest(`A Redis with ${kept} gets back what it had when it was copied, as often as asked`, async () => {
    await using redis = await RedisServer.start({ appendOnly });
    await redis.cli("SET", "a", "1");
    const copy = await redis.copyData();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await redis.cli("SET", "a", "2");
      await redis.cli("SET", "b", "2");
      await redis.restart({ from: copy, signal });
      assertEquals(await redis.cli("MGET", "a", "b"), ["1", null]);
    }
  });

  redisTest(`A Redis with ${kept} keeps its data through a restart when asked to, else not`, async () => {
    await using redis = await RedisServer.start({ appendOnly });
    await redis.cli("SET", "a", "1");
    await redis.restart({ keepData: true });
    assertEquals(await redis.cli("GET", "a"), "1");
    await redis.restart();
    assertEquals(await redis.cli("GET", "a"), null);
  });
}

redisTest(
  "A replica has its master's data, takes over when told to, and roles last through a restart",
  async () => {
    await using redis = await RedisServer.start();
    await redis.cli("SET", "a", "1");
    await using other = await RedisServer.start({ replicaOf: redis });
    await other.copied();
    assertEquals(await other.cli("GET", "a"), "1");
    await other.follow(undefined);
    await other.cli("SET", "a", "2");
    await redis.follow(other);
    await redis.copied();
    await redis.restart();
    await redis.copied();
    assertEquals(await redis.cli("GET", "a"), "2");
    await redis.follow(undefined);
    await redis.restart();
    assertEquals((await redis.cli("ROLE") as string[])[0], "master");
  },
);

redisTest(
  "Through a way that is turned new connections lead elsewhere, old ones stay until they are cut",
  async () => {
    await using one = await RedisServer.start();
    await using two = await RedisServer.start();
    await using proxy = new RedisProxy(one.port);
    const address = { port: Number(new URL(proxy.url).port) };
    using before = await RedisCommands.connect(address);
    assertEquals(await before.command("CONFIG", "GET", "port"), ["port", String(one.port)]);
    proxy.turn(two.port);
    using after = await RedisCommands.connect(address);
    assertEquals(await after.command("CONFIG", "GET", "port"), ["port", String(two.port)]);
    assertEquals(await before.command("CONFIG", "GET", "port"), ["port", String(one.port)]);
    proxy.cut();
    const [old, young] = await Promise.allSettled([before.command("PING"), after.command("PING")]);
    assertEquals([old.status, young.status], ["rejected", "rejected"]);
  },
);

redisTest("The end of what one side says is passed on, and what the other still has to say too", async () => {
  await using redis = await RedisServer.start();
  await using proxy = new RedisProxy(redis.port);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(proxy.url).port) });
  await conn.write(new TextEncoder().encode("PING\r\n"));
  const reader = conn.readable.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "+PONG\r\n");
  await conn.closeWrite();
  assertEquals((await reader.read()).done, true); // Redis has hung up
  reader.releaseLock();
});
