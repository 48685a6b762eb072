/** The timeline, looked at by processes in an order that the test gives: who waits for whom when Redis has changed. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Timeline } from "../src/inbox/timeline.ts";
import { readInfo } from "../src/redis/server_info.ts";
import type { Ask } from "../src/redis.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { RedisCommands } from "./support/redis_commands.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

type Look = (timeline: Timeline, life: string) => Promise<string | undefined>;

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

test("waits for nobody when there is nobody, and not for ever", async ({ redis, look }) => {
  const [alone, other, late] = [new Timeline(), new Timeline(), new Timeline()];
  await look(alone, "first");
  const { name } = alone;
  assertEquals(await look(alone, "second"), undefined);
  await look(other, "second");
  // Neither misses anything: so the data is whole, also for whoever has just started and remembers nothing.
  const looks = async (timeline: Timeline) => await look(timeline, "third") === undefined;
  assertEquals([await looks(late), await looks(other)], [false, false]);
  assertEquals(await redis.cli("PTTL", "userwire:{userwire:timeline}") as number > 0, true);
  await until(async () => (await looks(late), await looks(other)), "the others to be waited for");
  assertEquals([await looks(late), await looks(alone)], [true, true]);
  assertEquals([alone.name, other.name, late.name], [name, name, name]);
});
