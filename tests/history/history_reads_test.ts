/** Reads of histories: how many are under way at one time, whoever comes back at once. */
import { assertEquals } from "@std/assert";
import { RedisStreamsHistory } from "../../src/history/redis_streams.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { Redis } from "../../src/redis/commands.ts";
import { numbers, outgoing, seqsOf } from "../contracts/history.ts";
import { connected } from "../../testkit/connected.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

/** One test with its own server, where alice has three messages. */
function test(
  claim: string,
  body: (on: { redis: Redis; history: RedisStreamsHistory }) => Promise<void>,
): void {
  redisTest(`RedisStreamsHistory ${claim}`, async () => {
    await using server = await RedisServer.start();
    const redis = Redis.open(server.url);
    try {
      const history = new RedisStreamsHistory(redis, { limits: { count: 100, ttlMs: 300_000 } });
      await connected(redis.availability);
      for (const n of numbers(1, 3)) await history.append("alice", outgoing(`${n}`));
      await withDeadline(body({ redis, history }), 60_000, "the test to end");
    } finally {
      redis.close();
    }
  });
}

/** Counts what is asked of Redis and not answered yet; `before` may wait, or fail, in front of each question. */
function countQuestions(redis: Redis, before: () => Promise<void>) {
  const count = { underWay: 0, most: 0, asked: 0 };
  const evaluate = redis.evaluate.bind(redis);
  redis.evaluate = async (...question) => {
    count.asked++;
    count.most = Math.max(count.most, ++count.underWay);
    try {
      await before();
      return await evaluate(...question);
    } finally {
      count.underWay--;
    }
  };
  return count;
}

test("has few reads of messages under way at one time, and answers all", async ({ history, redis }) => {
  const gate = Promise.withResolvers<void>();
  const count = countQuestions(redis, () => gate.promise);
  const read = () => numbers(1, 100).map(() => history.since("alice", 0, 10));
  const reads = read();
  assertEquals(count.underWay, 8);
  // A position alone waits for none of them.
  const place = history.since("bob", undefined, 10);
  assertEquals(count.underWay, 9);
  gate.resolve();
  assertEquals((await place).last, 0);
  for (const page of await Promise.all(reads)) assertEquals(seqsOf(page), [1, 2, 3]);
  assertEquals(count, { underWay: 0, most: 9, asked: 101 });
  // Those that come later are not more either, although others have waited.
  count.most = 0;
  const later = [...read(), ...read()];
  assertEquals(count.underWay, 8);
  for (const page of await Promise.all(later)) assertEquals(seqsOf(page), [1, 2, 3]);
  assertEquals(count, { underWay: 0, most: 8, asked: 301 });
});

test("gives the place of a read that failed to the next one", async ({ history, redis }) => {
  let isAway = true;
  const count = countQuestions(redis, async () => {
    await null;
    if (isAway) throw new BrokerUnavailableError("away");
  });
  const read = () => history.since("alice", 0, 10);
  const failed = await withDeadline(Promise.allSettled(numbers(1, 30).map(read)), 20_000, "30 reads to fail");
  assertEquals(new Set(failed.map(({ status }) => status)), new Set(["rejected"]));
  isAway = false;
  const reads = await withDeadline(Promise.all(numbers(1, 30).map(read)), 20_000, "30 reads");
  for (const page of reads) assertEquals(seqsOf(page), [1, 2, 3]);
  assertEquals(count, { underWay: 0, most: 8, asked: 60 });
});
