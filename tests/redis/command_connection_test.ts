/** The connection for commands: how often it is dialled, what another server is, and what its end does to commands. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { Redis } from "../../src/redis/commands.ts";
import { Bell, until, withDeadline } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

Deno.test("A Redis that hangs up at once is dialled less and less often", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const dialled = new Bell();
  const atMs: number[] = [];
  const accepting = (async () => {
    for await (const conn of listener) {
      atMs.push(performance.now());
      conn.close();
      dialled.ring();
    }
  })();
  const redis = Redis.open(`redis://127.0.0.1:${listener.addr.port}`);
  try {
    await dialled.until(() => atMs.length >= 6, "six dials", 20_000, () => `${atMs.length} came`);
    // The second comes at once; the pauses after it are at least 25, 50, 100 and 200 ms.
    assert(atMs[5]! - atMs[0]! >= 375, `six dials within ${atMs[5]! - atMs[0]!} ms`);
  } finally {
    redis.close();
    listener.close();
    await accepting;
  }
});

redisTest(
  "The same Redis is no other server when it is met again, and one that was started anew is",
  async () => {
    await using server = await RedisServer.start();
    const redis = Redis.open(server.url);
    const bell = new Bell();
    let others = 0, returns = 0;
    redis.onOtherServer(() => others++);
    redis.availability.onReturn(() => {
      returns++;
      bell.ring();
    });
    try {
      await redis.availability.whenReady();
      assertEquals(await server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), 1);
      await bell.until(() => returns === 1, "Redis to be met again");
      assertEquals(others, 0);
      await server.restart();
      await bell.until(() => returns === 2, "the new Redis to be met");
      assertEquals(others, 1);
    } finally {
      redis.close();
    }
  },
);

/** Lets this thread do nothing at all, as when the process is stopped or its machine sleeps. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

redisTest(
  "A process that did not run for a while reads what Redis has answered, and blames nobody",
  async () => {
    await using server = await RedisServer.start();
    const log = memoryLog();
    const redis = Redis.open(server.url, { timeoutMs: 1_000, log });
    try {
      await redis.availability.whenReady();
      for (let i = 0; i < 2; i++) {
        await server.pause();
        const sent = redis.publish("alice", "hello");
        await new Promise((resolve) => setTimeout(resolve)); // it is written
        server.resume();
        standStill(2_500);
        assertEquals(await sent, 0);
        assertEquals([redis.availability.reason, redis.silence()], [undefined, undefined]);
      }
      assertEquals(log.records.map(({ event }) => event), ["redis available"]);
    } finally {
      redis.close();
    }
  },
);

redisTest(
  "A beat that nobody waits for any more is listened to all the same, from silence to its answer",
  async () => {
    await using server = await RedisServer.start();
    using beats = new HeldIntervals(1_000);
    // What is late is given up before a beat without an answer is a sign.
    const redis = Redis.open(server.url, { timeoutMs: 500 });
    try {
      await redis.availability.whenReady();
      await server.pause();
      beats.run();
      await until(() => redis.silence() === "Redis does not answer", "the silence to be noticed");
      server.resume();
      await until(() => redis.silence() === undefined, "the answer to be noticed, without another beat");
    } finally {
      redis.close();
    }
  },
);

redisTest("A beat that is due while another has no answer comes when that has one", async () => {
  await using server = await RedisServer.start();
  using beats = new HeldIntervals(1_000);
  const redis = Redis.open(server.url);
  const looked = new Bell();
  let looks = 0;
  const look = (_ask: unknown, _server: unknown, isGreeting: boolean) => {
    if (!isGreeting) looks++;
    looked.ring();
    return Promise.resolve(undefined);
  };
  redis.watchWith({ look });
  try {
    await redis.availability.whenReady();
    await server.pause();
    beats.run();
    beats.run();
    server.resume();
    await looked.until(() => looks === 2, "both beats", 20_000, () => `${looks} looks`);
  } finally {
    redis.close();
  }
});

redisTest("Closing rejects at once what is on its way, and what waits for its turn", async () => {
  await using server = await RedisServer.start();
  const redis = Redis.open(server.url);
  await redis.availability.whenReady();
  await server.pause();
  // More than may be on its way at one time, so that the second one waits.
  const sends = [1, 2].map(() => redis.publish("alice", "x".repeat(1_100_000)));
  const ends = sends.map((send) => assertRejects(() => send, BrokerUnavailableError, "is closed"));
  redis.close();
  const outcomes = (await withDeadline(Promise.all(ends), 1_000, "both to be rejected")).map((error) =>
    error.outcome
  );
  assertEquals(outcomes, ["unknown", "refused"]);
  server.resume();
});
