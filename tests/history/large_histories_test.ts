/** Histories of large messages, on a Redis that holds only so much for one client. */
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { assertEquals } from "@std/assert";

const WAIT_MS = 20_000;
const MESSAGES = 60;

redisTest(
  "Histories that are larger than what Redis holds for a client are replayed, and disturb nobody",
  async () => {
    await using redis = await RedisServer.start({
      args: ["--client-output-buffer-limit", "normal 3mb 0 0"],
    });
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using bob = await Follower.open(service.socketUrl("bob"));
    const start = await Follower.open(service.socketUrl("alice"));
    const { position } = start;
    await start.disconnect();
    for (let i = 1; i <= MESSAGES; i++) await service.send("alice", `${i} ${"x".repeat(60_000)}`);

    const crowd = await Promise.all(
      Array.from({ length: 10 }, () => Follower.open(service.socketUrl("alice"), position)),
    );
    await using stack = new AsyncDisposableStack();
    for (const client of crowd) stack.use(client);
    for (const client of crowd) {
      await client.reaches(MESSAGES, WAIT_MS);
      assertEquals([client.messages.length, client.gaps], [MESSAGES, []]);
      client.assertNoFault();
    }
    assertEquals((await service.send("bob", "hello")).status, 200);
    await until(() => bob.data.includes("hello"), "what bob is sent");
    assertEquals(service.logged("redis unavailable"), []);
  },
);
