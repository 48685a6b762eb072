/** The timeline, looked at by processes in an order that the test gives: who waits for whom when Redis has changed. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Timeline } from "../../src/history/timeline.ts";
import { readInfo } from "../../src/redis/server_info.ts";
import type { Ask } from "../../src/redis/commands.ts";
import { PLAIN } from "../../src/redis/pubsub_words.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, type RedisServerOptions, redisTest } from "../../testkit/redis_server.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const TIMELINE = "userwire:{userwire:timeline}";

type Look = (timeline: Timeline, life: string) => Promise<string | undefined>;

const lifeOf = (run: string) => readInfo(`run_id:${run}`).life;

function test(
  claim: string,
  body: (t: { redis: RedisServer; look: Look }) => Promise<void>,
  server: RedisServerOptions = {},
): void {
  redisTest(`Timeline ${claim}`, async () => {
    await using redis = await RedisServer.start(server);
    const ask: Ask = async (script, keys, args) => {
      using commands = await RedisCommands.connect({ port: redis.port });
      return await commands.command("EVAL", script.in(PLAIN).source, keys.length, ...keys, ...args);
    };
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

for (const isKnown of [true, false]) {
  const user = isKnown ? "a user" : "a user of whom nothing is here";
  test(`is a new one for who went on elsewhere for ${user}, after others began one for what they missed`, async (t) => {
    const { redis, look } = t;
    const [early, late] = [new Timeline(), new Timeline()];
    for (const one of [early, late]) assertEquals(await look(one, "first"), undefined);
    if (isKnown) await redis.cli("HSET", "userwire:{bob}:position", "seq", 1, "tag", "1.tag");
    early.appended("alice", 3, "tag"); // which is not there
    assertEquals(await look(early, "second"), undefined);
    const { name } = early;
    late.appended("bob", 2, "tag"); // on the first server, where it went on
    assertEquals(await look(late, "second"), undefined);
    assertNotEquals(late.name, name);
    assertEquals([await look(early, "second"), early.name], [undefined, late.name]);
    assertEquals([await look(late, "second"), late.name], [undefined, early.name]);
  });
}

test("is the same for all that lost something at one time, before one of them came", async ({ look }) => {
  const [early, late] = [new Timeline(), new Timeline()];
  for (const one of [early, late]) assertEquals(await look(one, "first"), undefined);
  early.appended("alice", 3, "tag");
  late.appended("bob", 2, "tag");
  assertEquals(await look(early, "second"), undefined);
  const { name } = early;
  // As if a minute had passed until Redis was there again.
  const { now } = performance;
  performance.now = () => now.call(performance) + 60_000;
  const looking = look(late, "second");
  performance.now = now;
  assertEquals([await looking, late.name], [undefined, name]);
});

test("goes on for who comes later and misses only what others have missed already", async ({ redis, look }) => {
  const [early, late] = [new Timeline(), new Timeline()];
  const put = (user: string) => redis.cli("HSET", `userwire:{${user}}:position`, "seq", 1, "tag", "1.tag");
  for (const user of ["alice", "bob"]) await put(user);
  early.appended("alice", 1, "tag");
  late.appended("bob", 1, "tag");
  for (const one of [early, late, early]) assertEquals(await look(one, "first"), undefined);
  await redis.cli("DEL", "userwire:{alice}:position");
  assertEquals(await look(early, "second"), undefined);
  const { name } = early;
  assertEquals([await look(late, "second"), late.name], [undefined, name]);
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

test("waits longer, who remembers nothing, where one that does came later and waits itself", async (t) => {
  const { redis, look } = t;
  const [other, early] = [new Timeline(), new Timeline()];
  await redis.cli("HSET", TIMELINE, "name", "7.kept", "life", lifeOf("first"));
  await redis.cli("PEXPIRE", TIMELINE, 60_000);
  assertEquals(await look(other, "first"), undefined);
  using clock = new TurnedClock();
  assert(await look(early, "second") !== undefined);
  clock.pass(700);
  assert(await look(other, "second") !== undefined);
  clock.pass(1_199); // 1,899 for the early one
  for (const one of [early, other]) assert(await look(one, "second") !== undefined);
  clock.pass(1);
  assert(await look(early, "second") !== undefined);
  for (const one of [other, early]) assertEquals(await look(one, "second"), undefined);
  assertEquals([other.name, early.name], ["7.kept", "7.kept"]);
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

const SILENT = "";

/** A server that does not say who it is, with data of which a timeline has vouched that lives no more. */
async function leaveBehind(redis: RedisServer, look: Look): Promise<string> {
  const one = new Timeline();
  assertEquals(await look(one, SILENT), undefined);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  one.appended("alice", 1, "tag");
  assertEquals(await look(one, SILENT), undefined);
  return one.name;
}

for (const appendOnly of [true, false]) {
  test(
    `is a new one when a copy was put back while nobody ran, on a server that says nothing of itself, ${
      appendOnly ? "with" : "without"
    } an append-only file`,
    async ({ redis, look }) => {
      const name = await leaveBehind(redis, look);
      const copy = await redis.copyData();
      await redis.restart({ from: copy });
      const fresh = new Timeline();
      assert(await look(fresh, SILENT) !== undefined, "It vouches for data that it does not know");
      await until(async () => await look(fresh, SILENT) === undefined, "nobody to be waited for any more");
      assertNotEquals(fresh.name, name);
      const next = new Timeline();
      assertEquals([await look(next, SILENT), next.name], [undefined, fresh.name]);
    },
    { appendOnly },
  );
}

test("goes on on a server that says nothing of itself, for whoever comes while that runs", async (t) => {
  const name = await leaveBehind(t.redis, t.look);
  const fresh = new Timeline();
  assertEquals([await t.look(fresh, SILENT), fresh.name], [undefined, name]);
});

test("waits on a server that says nothing of itself, too, for others who may miss what they told nobody", async (t) => {
  const { redis, look } = t;
  const [misses, other] = [new Timeline(), new Timeline()];
  for (const one of [misses, other]) assertEquals(await look(one, SILENT), undefined);
  const { name } = misses;
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  misses.appended("alice", 1, "tag");
  for (const one of [misses, other]) assertEquals(await look(one, SILENT), undefined);
  const copy = await redis.copyData();
  misses.appended("alice", 2, "tag");
  await redis.restart({ from: copy });
  assert(await look(other, SILENT) !== undefined, "It vouches for what others know");
  assertEquals(await look(misses, SILENT), undefined);
  assertEquals(await look(other, SILENT), undefined);
  assertNotEquals(misses.name, name);
  assertEquals(other.name, misses.name);
});

test(
  "marks the memory of its server, and neither a copy nor a log nor a snapshot has the mark",
  async (t) => {
    const { redis, look } = t;
    await using replica = await RedisServer.start({ replicaOf: redis });
    await replica.copied();
    const one = new Timeline();
    assertEquals(await look(one, "first"), undefined);
    assertEquals([one.markKey, await redis.cli("DBSIZE")], [undefined, 0]);
    await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
    await redis.cli("PEXPIRE", "userwire:{alice}:position", 60_000);
    one.appended("alice", 1, "tag");
    assertEquals(await look(one, "first"), undefined);
    const encoding = (server: RedisServer) => server.cli("OBJECT", "ENCODING", one.markKey!);
    assertEquals(await encoding(redis), "raw");
    assertEquals(await redis.cli("WAIT", 1, 10_000), 1);
    assertEquals(await encoding(replica), null);
    await replica.restart();
    await replica.copied();
    assertEquals(await encoding(replica), "embstr");
    const mark = one.markKey;
    assertEquals([await look(one, "first"), one.markKey], [undefined, mark]);
    await redis.restart({ keepData: true });
    assertEquals(await encoding(redis), null); // it was in no log
    await until(async () => await look(one, "second") === undefined, "it to have looked");
    assertNotEquals(one.markKey, mark);
    assertEquals(await encoding(redis), "raw");
    for (const key of await redis.cli("KEYS", `${TIMELINE}*`) as string[]) {
      assert(Number(await redis.cli("PTTL", key)) > 0, `${key} stays for ever`);
    }
  },
  { appendOnly: true },
);

test("has no mark where it may not ask for one", async ({ redis, look }) => {
  await redis.cli("ACL", "SETUSER", "default", "-object");
  const one = new Timeline();
  assertEquals(await look(one, "first"), undefined);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  one.appended("alice", 1, "tag");
  assertEquals([await look(one, "first"), one.markKey], [undefined, undefined]);
});

for (const [setting, bad, good] of [["maxmemory", "1", "0"], ["min-replicas-to-write", "1", "0"]] as const) {
  test(`is looked at, and written down later, while Redis takes no writes for its ${setting}`, async (t) => {
    const { redis, look } = t;
    const one = new Timeline();
    assertEquals(await look(one, "first"), undefined);
    await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
    await redis.cli("CONFIG", "SET", setting, bad);
    one.appended("alice", 1, "tag");
    assertEquals([await look(one, "first"), one.markKey], [undefined, undefined]);
    assertEquals(await redis.cli("KEYS", `${TIMELINE}*`), []);
    await redis.cli("CONFIG", "SET", setting, good);
    assertEquals([await look(one, "first"), one.markKey === undefined], [undefined, false]);
    assertEquals(await redis.cli("HGET", TIMELINE, "name"), one.name);
  });
}

test("keeps what it goes by, and forgets who has told nothing for a day", async ({ redis, look }) => {
  const last = "userwire:{userwire:timeline}:last";
  const one = new Timeline();
  assertEquals(await look(one, "first"), undefined);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  one.appended("alice", 1, "tag");
  assertEquals(await look(one, "first"), undefined);
  const nowMs = Number((await redis.cli("TIME") as [string, string])[0]) * 1_000;
  const HOUR_MS = 3_600_000;
  await redis.cli("HSET", last, "gone", `${nowMs - 25 * HOUR_MS} 1 tag alice`);
  await redis.cli("HSET", last, "there", `${nowMs - 23 * HOUR_MS} 1 tag alice`);
  for (const key of [TIMELINE, one.markKey!]) await redis.cli("PEXPIRE", key, 60_000);
  assertEquals(await look(one, "first"), undefined);
  for (const key of [TIMELINE, one.markKey!]) {
    assert(Number(await redis.cli("PTTL", key)) > 24 * HOUR_MS, `${key} ends`);
  }
  assertEquals([await redis.cli("HEXISTS", last, "gone"), await redis.cli("HEXISTS", last, "there")], [0, 1]);
  // What was lost is not told: others would look for it again.
  const told = await redis.cli("HVALS", last);
  one.appended("alice", 9, "lost");
  assertEquals(await look(one, "first"), undefined);
  assertEquals(await redis.cli("HVALS", last), told);
});

test("is not lost with a key that holds something else", async ({ redis, look }) => {
  const one = new Timeline();
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "");
  one.appended("alice", 1, "tag");
  assertEquals(await look(one, "first"), undefined);
  const { name } = one;
  for (const key of ["userwire:{alice}:inbox", "userwire:{alice}:position"]) {
    await redis.cli("SET", key, "oops");
    assertEquals([await look(one, "first"), one.name], [undefined, name]);
  }
  await redis.cli("DEL", "userwire:{alice}:position");
  for (const seq of ["none", "", "1x"]) {
    await redis.cli("HSET", "userwire:{alice}:position", "seq", seq, "tag", "1.tag");
    assertEquals([await look(one, "first"), one.name], [undefined, name], `the number is "${seq}"`);
  }
});

test("passes over a record that no process has written, and removes it", async ({ redis, look }) => {
  const one = new Timeline();
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  one.appended("alice", 1, "tag");
  await redis.cli("HSET", `${TIMELINE}:last`, "stranger", "oops");
  for (let n = 0; n < 2; n++) assertEquals(await look(one, "first"), undefined);
  assertEquals(await redis.cli("HEXISTS", `${TIMELINE}:last`, "stranger"), 0);
});
