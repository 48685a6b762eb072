/** The timeline, looked at by processes in an order that the test gives: who waits for whom when Redis has changed. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Timeline } from "../src/inbox/timeline.ts";
import { readInfo } from "../src/redis/server_info.ts";
import type { Ask } from "../src/redis.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { RedisCommands } from "./support/redis_commands.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

type Look = (timeline: Timeline, life: string) => Promise<string | undefined>;

const lifeOf = (run: string) => readInfo(`run_id:${run}`).life;

function test(claim: string, body: (t: { redis: RedisServer; look: Look }) => Promise<void>): void {
  redisTest(`Timeline ${claim}`, async () => {
    await using redis = await RedisServer.start();
    using commands = await RedisCommands.connect({ port: redis.port });
    const ask: Ask = ({ source }, keys, args) =>
      commands.command("EVAL", source, keys.length, ...keys, ...args);
    const look: Look = (timeline, life) => timeline.look(ask, readInfo(`run_id:${life}`));
    await withDeadline(body({ redis, look }), 60_000, "the test to end");
  });
}

test("waits on a new life for others, who may miss what they told nobody", async ({ look }) => {
  const [misses, other] = [new Timeline(), new Timeline()];
  for (const one of [misses, other]) assertEquals(await look(one, "first"), undefined);
  const { name } = other;
  assertEquals(misses.name, name);
  misses.appended("alice", 3, "tag"); // which is not there
  assert(await look(other, "second") !== undefined, "It vouches for what others know");
  assertEquals(await look(misses, "second"), undefined);
  assertEquals(await look(other, "second"), undefined);
  assertNotEquals(other.name, name);
  assertEquals(misses.name, other.name);
});

test("does not wait for ever, nor lets those begin another meanwhile who remember nothing", async (t) => {
  const { redis, look } = t;
  const [one, other, late] = [new Timeline(), new Timeline(), new Timeline()];
  await redis.cli("HSET", "userwire:{userwire:timeline}", "name", "7.kept", "life", lifeOf("first"));
  await redis.cli("PEXPIRE", "userwire:{userwire:timeline}", 60_000);
  for (const each of [one, other]) assertEquals(await look(each, "first"), undefined);
  // Neither misses anything: so the data is whole, also for whoever has just started and remembers nothing.
  assert(await look(other, "second") !== undefined);
  let hasLooked = false;
  await until(async () => {
    if (await look(other, "second") === undefined) return true;
    hasLooked ||= await look(late, "second") === undefined;
    return false;
  }, "the others to be waited for");
  assertEquals([hasLooked, await look(late, "second"), await look(one, "second")], [
    false,
    undefined,
    undefined,
  ]);
  assertEquals([one.name, other.name, late.name], ["7.kept", "7.kept", "7.kept"]);
});

test("goes on when only some users' keys were put back, and not when all data was", async ({ redis, look }) => {
  const [one, other] = [new Timeline(), new Timeline()];
  const position = "userwire:{alice}:position";
  const last = "userwire:{userwire:timeline}:last";
  let seq = 0;
  const append = async (timeline: Timeline) => {
    await redis.cli("HSET", position, "seq", ++seq, "tag", `${seq}.tag`);
    timeline.appended("alice", seq, "tag");
    for (const each of [timeline, one, other]) assertEquals(await look(each, "same"), undefined);
  };
  await append(one);
  const { name } = one;
  await redis.cli("COPY", last, "copy");
  await append(other);
  await redis.cli("HSET", position, "seq", 1, "tag", "1.tag");
  seq = 1;
  for (const each of [one, other]) assertEquals([await look(each, "same"), each.name], [undefined, name]);
  await append(other); // it is looked for again from here on
  await redis.cli("HSET", position, "seq", 1, "tag", "1.tag");
  await redis.cli("COPY", "copy", last, "REPLACE");
  assertEquals(await look(one, "same"), undefined);
  assertNotEquals(one.name, name);
  assertEquals([await look(other, "same"), other.name], [undefined, one.name]);
});
