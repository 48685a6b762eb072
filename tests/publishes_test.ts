/** What is published while others are on their way: together, exactly counted, and each with an answer of its own. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { BrokerUnavailableError } from "../src/errors.ts";
import { Redis, Script } from "../src/redis.ts";
import { Publishes } from "../src/redis/publishes.ts";
import { numbers } from "./support/instances.ts";
import { RedisCommands } from "./support/redis_commands.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

/** Scripts that are answered when the test says so. */
class Scripts {
  readonly asked: { args: readonly string[]; answer(counts: unknown[]): void; fail(error: Error): void }[] =
    [];
  readonly publishes = new Publishes((args) => {
    const { promise, resolve, reject } = Promise.withResolvers<unknown[]>();
    this.asked.push({ args, answer: resolve, fail: reject });
    return promise;
  });

  publish(payload: string): Promise<number> {
    return this.publishes.publish("alice", payload, false);
  }

  /** The payloads of each script. */
  get payloads(): string[][] {
    return this.asked.map(({ args }) => args.filter((_, i) => i % 3 === 1));
  }
}

Deno.test("While two scripts are on their way, what is published waits and goes out together, in order", async () => {
  const scripts = new Scripts();
  const counts = Promise.all(["a", "b", "c", "d", "e"].map((payload) => scripts.publish(payload)));
  assertEquals(scripts.payloads, [["a"], ["b"]]);
  scripts.asked[0]!.answer([1]);
  await Promise.resolve();
  assertEquals(scripts.payloads, [["a"], ["b"], ["c", "d", "e"]]);
  scripts.asked[1]!.answer([2]);
  scripts.asked[2]!.answer([3, 4, 5]);
  assertEquals(await counts, [1, 2, 3, 4, 5]);
  const alone = scripts.publish("f");
  assertEquals(scripts.payloads.at(-1), ["f"]);
  scripts.asked.at(-1)!.answer([0]);
  assertEquals(await alone, 0);
});

Deno.test("A script that is full waits for nobody: by number, and by size", async () => {
  const many = new Scripts();
  const counts = Promise.all(numbers(1, 250).map((n) => many.publish(`${n}`)));
  assertEquals(many.payloads.map(({ length }) => length), [1, 1, 100, 100]);
  // The rest waits for as many answers as there are scripts too many on their way.
  for (const [i, expected] of [4, 4, 5, 5].entries()) {
    const { args, answer } = many.asked[i]!;
    answer(Array(args.length / 3).fill(0));
    await Promise.resolve();
    assertEquals(many.asked.length, expected, `after answer ${i + 1}`);
  }
  assertEquals(many.payloads[4]!.length, 48);
  many.asked[4]!.answer(Array(48).fill(0));
  assertEquals((await counts).length, 250);

  const large = new Scripts();
  const sent = Promise.all(numbers(1, 6).map(() => large.publish("x".repeat(40_000))));
  assertEquals(large.payloads.map(({ length }) => length), [1, 1, 2, 2]);
  for (const { args, answer } of large.asked) answer(Array(args.length / 3).fill(0));
  await sent;

  const exact = new Scripts();
  const halves = Promise.all(numbers(1, 4).map(() => exact.publish("x".repeat(32 * 1024))));
  assertEquals(exact.payloads.map(({ length }) => length), [1, 1, 2]);
  for (const { args, answer } of exact.asked) answer(Array(args.length / 3).fill(0));
  await halves;
});

Deno.test("Nothing is asked when nothing waits, and each time there is room for two", async () => {
  const scripts = new Scripts();
  for (let round = 0; round < 3; round++) {
    const before = scripts.asked.length;
    const counts = Promise.all(["a", "b", "c"].map((payload) => scripts.publish(payload)));
    assertEquals(scripts.asked.length, before + 2);
    for (const i of [0, 1]) scripts.asked[before + i]!.answer([i]);
    await Promise.resolve();
    assertEquals(scripts.asked.length, before + 3);
    scripts.asked[before + 2]!.answer([2]);
    assertEquals(await counts, [0, 1, 2]);
    assertEquals(scripts.asked.length, before + 3);
  }
});

redisTest("What is asked of Redis later overtakes nothing that was published before", async () => {
  await using server = await RedisServer.start();
  const redis = Redis.open(server.url);
  const note = new Script("return redis.call('GET', KEYS[1])");
  try {
    await redis.whenReady();
    const ends: string[] = [];
    const end = (name: string) => () => void ends.push(name);
    const publishes = numbers(1, 5).map((n) => redis.publish("alice", `${n}`).then(end(`${n}`)));
    const script = redis.evaluate(note, ["x"], []).then(end("script"));
    await Promise.all([...publishes, redis.publish("alice", "6").then(end("6")), script]);
    assertEquals(ends, ["1", "2", "3", "4", "5", "script", "6"]);
  } finally {
    await redis.close();
  }
});

Deno.test("A script that fails fails for those in it, and what waits goes on", async () => {
  const scripts = new Scripts();
  const ends = Promise.allSettled(["a", "b", "c", "d"].map((payload) => scripts.publish(payload)));
  const gone = new BrokerUnavailableError("gone");
  scripts.asked[0]!.fail(gone);
  scripts.asked[1]!.answer([1]);
  await Promise.resolve();
  await Promise.resolve();
  const refused = new BrokerUnavailableError("refused");
  scripts.asked[2]!.answer([refused, 7]);
  assertEquals((await ends).map((end) => end.status === "fulfilled" ? end.value : end.reason), [
    gone,
    1,
    refused,
    7,
  ]);
});

Deno.test("What waits goes out also when all that was on its way has failed", async () => {
  const scripts = new Scripts();
  const ends = Promise.allSettled(["a", "b", "c"].map((payload) => scripts.publish(payload)));
  for (const i of [0, 1]) scripts.asked[i]!.fail(new BrokerUnavailableError("gone"));
  await Promise.resolve();
  await Promise.resolve();
  assertEquals(scripts.payloads, [["a"], ["b"], ["c"]]);
  scripts.asked[2]!.answer([4]);
  assertEquals((await ends).map(({ status }) => status), ["rejected", "rejected", "fulfilled"]);
});

redisTest("Publishes that go out together are each counted exactly", async () => {
  await using server = await RedisServer.start();
  const redis = Redis.open(server.url);
  try {
    await redis.whenReady();
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
    await redis.whenReady();
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
    await redis.whenReady();
    assertEquals(await redis.tryScripts("probe:1"), undefined);
    await server.cli("ACL", "SETUSER", "default", "-publish");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /rights that are needed, as PUBLISH:/);
    await server.cli("ACL", "SETUSER", "default", "+publish", "resetchannels");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /rights that are needed/);
  } finally {
    await redis.close();
  }
});
