/**
 * One sender can't take a node from the others: what is sent by the megabyte goes out in portions, a command has
 * its time from when it is written, and one that is late says nothing of a Redis that answers others.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { Outbox } from "../../src/redis/outbox.ts";
import { Turns } from "../../src/async/turns.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const MIB = 1024 * 1024;

function post(service: Service, items: unknown[]): Promise<Response> {
  return service.fetch("/v1/messages", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ items }),
  });
}

function users(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${prefix}-${i}`);
}

redisTest("A batch as large as it may be keeps nobody else from sending", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  // As many bytes as Redis takes in a second or so, which is far more than it takes within one command's time.
  const items = Array.from(
    { length: 10 },
    (_, i) => ({ to: users(`evil-${i}`, 100), data: "x".repeat(65_000) }),
  );
  let isRunning = true;
  const batch = post(service, items).finally(() => isRunning = false);
  const whileRunning: number[] = [];
  let all = 0;
  do {
    const { status } = await service.send("alice", "hello");
    all++;
    if (isRunning) whileRunning.push(status);
    assertEquals(status, 202);
    assertEquals((await service.readiness()).status, 200);
  } while (isRunning);
  const response = await batch;
  assertEquals(response.status, 200);
  const { results } = await response.json() as { results: { error?: unknown }[] };
  assertEquals(results.filter(({ error }) => error !== undefined), []);
  assert(
    whileRunning.length >= all / 2,
    `${whileRunning.length} of ${all} were answered while the batch ran`,
  );
  assert(whileRunning.length >= 5, `${whileRunning.length} were answered while the batch ran`);
});

redisTest("A batch that would send more bytes than allowed is refused before anything is sent", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_MAX_FANOUT_BYTES: "1000" });
  const item = (count: number) => ({ to: users("u", count), data: "x".repeat(98) }); // 100 bytes as JSON
  const accepted = await post(service, [item(4), item(6)]);
  assertEquals([accepted.status, (await accepted.json()).results.length], [200, 2]);
  await redis.cli("FLUSHALL");
  const refused = await post(service, [item(4), item(7)]);
  const { code, detail } = await refused.json();
  assertEquals([refused.status, code], [413, "too_large"]);
  assertMatch(detail, /at most 1000 bytes.*has 1100.*USERWIRE_MAX_FANOUT_BYTES/);
  assertEquals(await redis.cli("KEYS", "*:inbox"), []);
});

Deno.test("Turns begins what is in one line in order, and lets lines take turns", async () => {
  const turns = new Turns();
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const work = (name: string) => () => {
    begun.push(name);
    return new Promise<void>((resolve) => ends.push(resolve));
  };
  const [one, other] = [turns.line(), turns.line()];
  const all = [];
  for (let i = 0; i < 6; i++) all.push(one.run(work(`a${i}`), MIB));
  for (let i = 0; i < 2; i++) all.push(other.run(work(`b${i}`), MIB));
  for (let i = 0; i < 8; i++) {
    assertEquals(begun.length, i + 1, "one at a time, since each fills it");
    ends[i]!();
    await all[Number(begun[i]!.slice(1)) + (begun[i]!.startsWith("b") ? 6 : 0)];
    await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
  }
  assertEquals(begun, ["a0", "a1", "b0", "a2", "b1", "a3", "a4", "a5"]);
});

Deno.test("Turns counts how many sends a piece of work is, and lets one that is more than may be go alone", async () => {
  const line = new Turns().line();
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const all = [100, 100, 100, 100_000, 1].map((sends, i) =>
    line.run(
      () => {
        begun.push(i);
        return new Promise<void>((resolve) => ends.push(resolve));
      },
      1,
      sends,
    )
  );
  assertEquals(begun, [0, 1]);
  const after = [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]];
  for (const [i, expected] of after.entries()) {
    ends[i]!();
    await all[i];
    await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
    assertEquals(begun, expected);
  }
});

Deno.test("Turns goes on after work that failed", async () => {
  const line = new Turns().line();
  const failed = line.run(() => Promise.reject(new Error("no")), MIB);
  const next = line.run(() => Promise.resolve(7), MIB);
  await assertRejects(() => failed, Error, "no");
  assertEquals(await withDeadline(next, 1_000, "the next"), 7);
});

function outboxOf(timeoutMs: number): Outbox {
  return new Outbox({
    timeoutMs,
    onPosted() {},
    onAnswer() {},
    failure: (error) => ({ error: error as Error, isAnswer: true }),
  });
}

Deno.test("Outbox writes no more than a portion at one time, and the rest in order as answers come", async () => {
  const outbox = outboxOf(1_000);
  const written: number[] = [];
  const answers: ((value: number) => void)[] = [];
  const sends = Array.from({ length: 40 }, (_, i) =>
    outbox.send(() => {
      written.push(i);
      return new Promise<number>((resolve) => answers.push(resolve));
    }, MIB / 8));
  assertEquals(written.length, 8);
  for (let i = 0; i < 40; i++) {
    answers[i]!(i);
    assertEquals(await sends[i], i);
  }
  assertEquals(written, written.map((_, i) => i));
  // One that is larger than a portion goes alone.
  const large = outbox.send(() => Promise.resolve("large"), 10 * MIB);
  assertEquals(await withDeadline(large, 1_000, "the large one"), "large");
});

Deno.test("Outbox counts the time of a command from when it is written", async () => {
  using clock = new TurnedClock();
  const outbox = outboxOf(500);
  const first = Promise.withResolvers<string>();
  const done = outbox.send(() => first.promise, MIB);
  const second = Promise.withResolvers<string>();
  const waiting = outbox.send(() => second.promise, MIB);
  clock.pass(300);
  first.resolve("first");
  assertEquals(await done, "first");
  clock.pass(400);
  assertEquals(outbox.check(performance.now()), false);
  second.resolve("second");
  assertEquals(await waiting, "second");
});

Deno.test("Outbox: a late answer fails its own command, and is no proof while others are answered", async () => {
  const outbox = outboxOf(500);
  const late = outbox.send(() => new Promise(() => {}), 0);
  const writtenMs = performance.now();
  const other = Promise.withResolvers<number>();
  const answered = outbox.send(() => other.promise, 0);
  while (performance.now() < writtenMs + 200) await new Promise((resolve) => setTimeout(resolve));
  other.resolve(1);
  assertEquals(await answered, 1);
  assertEquals(outbox.check(writtenMs + 510), false);
  const { outcome } = await assertRejects(() => late, BrokerUnavailableError, "did not answer within 500 ms");
  assertEquals(outcome, "unknown");
  // Nothing is answered any more.
  const next = outbox.send(() => new Promise(() => {}), 0);
  assertEquals(outbox.check(performance.now() + 5_000), true);
  await assertRejects(() => next, BrokerUnavailableError);
});

Deno.test("Outbox: what was not written yet is refused with the reason, and was not sent", async () => {
  const outbox = outboxOf(500);
  const written = outbox.send(() => new Promise(() => {}), MIB);
  const waiting = outbox.send(() => Promise.reject(new Error("never written")), MIB);
  outbox.refuse("Redis is away");
  const { outcome } = await assertRejects(() => waiting, BrokerUnavailableError, "Redis is away");
  assertEquals(outcome, "refused");
  outbox.fail("closed");
  const { outcome: fate } = await assertRejects(() => written, BrokerUnavailableError, "closed");
  assertEquals(fate, "unknown");
});
