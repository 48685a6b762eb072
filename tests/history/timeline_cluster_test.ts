/** The timeline of one part of a cluster, on a plain Redis and with a part that is what the test says. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { Lineage, type Part } from "../../src/history/lineage.ts";
import { RedisStreamsHistory } from "../../src/history/redis_streams.ts";
import { Timeline } from "../../src/history/timeline.ts";
import { type Ask, type Handover, Redis, slotOf } from "../../src/redis/commands.ts";
import { PLAIN } from "../../src/redis/pubsub_words.ts";
import { readInfo } from "../../src/redis/server_info.ts";
import { outgoing, placeOf } from "../contracts/history.ts";
import { connected } from "../../testkit/connected.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

/** What stands in the braces of the part's keys. */
const TAG = "userwire:timeline:42";
const STATE = `userwire:{${TAG}}`;
const LAST = `${STATE}:last`;
const ALICE = slotOf("alice");

class StubPart implements Part {
  tag: string | undefined = TAG;
  node: string;
  ids: ReadonlySet<string>;
  slots = "0-1000";
  /** Ids of nodes of other parts. */
  readonly others = new Set<string>();
  readonly gone = new Set<string>();
  /** What a former master says, and who was asked. */
  said: Handover = "unproven";
  readonly asked: string[] = [];

  constructor(...ids: [string, ...string[]]) {
    this.node = ids[0];
    this.ids = new Set(ids);
  }

  keeps(name: string): boolean {
    return !this.gone.has(name);
  }

  isOthers(id: string): boolean {
    return this.others.has(id);
  }

  handover(former: string): Promise<Handover> {
    this.asked.push(former);
    return Promise.resolve(this.said);
  }
}

interface Stage {
  readonly redis: RedisServer;
  look(timeline: Timeline, life?: string): Promise<string | undefined>;
  /** Looks until there is nobody to be waited for. */
  looked(timeline: Timeline, life?: string): Promise<void>;
  /** Appends as the script does it, in short. */
  append(timeline: Timeline, channel: string, seq: number): Promise<void>;
}

function test(claim: string, body: (stage: Stage) => Promise<void>): void {
  redisTest(`Timeline of a part ${claim}`, async () => {
    await using redis = await RedisServer.start();
    const ask: Ask = async (script, keys, args) => {
      using commands = await RedisCommands.connect({ port: redis.port });
      return await commands.command("EVAL", script.in(PLAIN).source, keys.length, ...keys, ...args);
    };
    const look = (timeline: Timeline, life = "first") => timeline.look(ask, readInfo(`run_id:${life}`));
    const stage: Stage = {
      redis,
      look,
      async looked(timeline, life) {
        await until(async () => await look(timeline, life) === undefined, "nobody to be waited for any more");
      },
      async append(timeline, channel, seq) {
        await redis.cli("HSET", `userwire:{${channel}}:position`, "seq", seq, "tag", `${seq}.tag`);
        timeline.appended(channel, seq, "tag");
      },
    };
    await withDeadline(body(stage), 60_000, "the test to end");
  });
}

async function stateOf(redis: RedisServer): Promise<Record<string, string>> {
  const reply = await redis.cli("HGETALL", STATE) as string[];
  return Object.fromEntries(
    Array.from({ length: reply.length / 2 }, (_, i) => [reply[2 * i]!, reply[2 * i + 1]!]),
  );
}

test("is kept under its tag, with the ids of its nodes, and without a mark", async ({ redis, look, append }) => {
  const one = new Timeline(new StubPart("a", "ar"));
  assertEquals(await look(one), undefined);
  assertEquals([await redis.cli("DBSIZE"), one.name], [0, "1.first"]);
  await append(one, "alice", 1);
  assertEquals(await look(one), undefined);
  const { name, ids, slots, ended } = await stateOf(redis);
  assertEquals([name, ids, slots, ended], ["1.first", "a,ar", "", ""]);
  assertEquals(
    (await redis.cli("KEYS", "userwire:*") as string[]).toSorted(),
    [
      "userwire:{alice}:position",
      STATE,
      LAST,
    ].toSorted(),
  );
  assertEquals(new Timeline(new StubPart("a")).appended("alice", 1, "tag"), false); // there is no mark to be made
  assertEquals([one.markKey, (await redis.cli("HVALS", LAST) as string[]).length], [undefined, 1]);
  for (const key of [STATE, LAST]) assert(Number(await redis.cli("PTTL", key)) > 0, `${key} stays for ever`);
  const next = new Timeline(new StubPart("a", "ar"));
  assertEquals([await look(next), next.name], [undefined, "1.first"]);
});

test("is not looked at where the part keeps nothing", async ({ redis, look, append }) => {
  const part = new StubPart("a");
  part.tag = undefined;
  const one = new Timeline(part);
  await append(one, "alice", 1);
  assertEquals([await look(one), one.name, await redis.cli("KEYS", `${STATE}*`)], [undefined, "", []]);
});

test("writes down ids that are new, and knows itself by any of them", async ({ redis, look, append }) => {
  const part = new StubPart("a", "ar");
  const one = new Timeline(part);
  await append(one, "alice", 1);
  await look(one);
  part.ids = new Set(["ar", "new"]);
  assertEquals([await look(one), (await stateOf(redis)).ids], [undefined, "ar,new"]);
  const last = new StubPart("new");
  last.isOthers = () => true;
  const other = new Timeline(last);
  assertEquals([await look(other), other.name], [undefined, "1.first"]);
});

test("puts aside what another part has left there with the slot", async ({ redis, look, append }) => {
  const theirs = new Timeline(new StubPart("a", "ar"));
  await append(theirs, "alice", 1);
  await look(theirs);
  const part = new StubPart("b", "br");
  part.others.add("ar");
  const ours = new Timeline(part);
  assertEquals([await look(ours, "second"), ours.name], [undefined, "1.second"]);
  assertEquals(await redis.cli("HGETALL", LAST), []);
  await append(ours, "bob", 1);
  assertEquals(await look(ours, "second"), undefined);
  const { name, ids } = await stateOf(redis);
  assertEquals([name, ids], ["1.second", "b,br"]);
});

test("that goes on keeps its name where another part's was, and what it remembers", async (t) => {
  const { redis, look, append } = t;
  const part = new StubPart("b");
  const ours = new Timeline(part);
  await append(ours, "bob", 1);
  await look(ours, "second");
  // From here on it is kept in another slot, in which another part kept its own.
  await redis.cli(
    "HSET",
    STATE,
    "name",
    "5.theirs",
    "life",
    "theirs",
    "ids",
    "a",
    "slots",
    "7",
    "ended",
    "3.x,",
  );
  part.others.add("a");
  assertEquals([await look(ours, "second"), ours.name], [undefined, "1.second"]);
  const { name, ids, slots, ended } = await stateOf(redis);
  assertEquals([name, ids, slots, ended], ["1.second", "b", "", ""]);
});

test("is taken over when all its nodes were replaced, and no other part has them", async ({ redis, look, append }) => {
  const former = new Timeline(new StubPart("a", "ar"));
  await append(former, "alice", 1);
  await look(former);
  await redis.cli("HSET", STATE, "slots", "0-9", "ended", "3.x,");
  const now = new Timeline(new StubPart("c"));
  assertEquals([await look(now), now.name, (await stateOf(redis)).ids], [undefined, "1.first", "c"]);
  assertEquals([now.elsewhere("alice"), now.elsewhere(nameInSlot(9))], [",3.x,", ""]);
});

/** A name in a slot up to 9. */
function nameInSlot(slot: number): string {
  for (let i = 0;; i++) if (slotOf(`user${i}`) === slot) return `user${i}`;
}

test("that begins anew after a loss names its slots, and what it has ended", async ({ redis, look, looked, append }) => {
  const lineage = new Lineage();
  const part = new StubPart("a");
  part.slots = "0-5,749";
  const [one, other] = [new Timeline(part, lineage), new Timeline(new StubPart("b"), lineage)];
  let news = 0;
  one.onNew(() => news++);
  await append(one, "alice", 3);
  await look(one);
  assertEquals([one.elsewhere("alice"), other.elsewhere("alice")], [",", ","]);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
  part.slots = "0-4,749";
  await looked(one, "second");
  assertMatch(one.name, /^\d{13,}\./);
  const { name, slots, ended } = await stateOf(redis);
  assertEquals([name, slots, ended, news], [one.name, "0-4,749", "1.first,", 1]);
  // A slot that came later is as whole as it was where it came from.
  part.slots = "0-5,749";
  assertEquals(await look(one, "second"), undefined);
  assertEquals([one.elsewhere("alice"), one.elsewhere(nameInSlot(5))], ["", ",1.first,"]);
  assertEquals(other.elsewhere("alice"), ",1.first,");
  // Who comes later learns it from there.
  const late = new Timeline(part);
  await looked(late, "second");
  assertEquals([late.elsewhere("alice"), late.elsewhere(nameInSlot(5))], ["", ",1.first,"]);
});

test("names each timeline that it has ended, the latest ones where these are many", async (t) => {
  const { redis, look, append } = t;
  const one = new Timeline(new StubPart("a"));
  await append(one, "alice", 9);
  await look(one);
  const names: string[] = [];
  const many = Array.from({ length: 30 }, (_, i) => `${i}.abcdefghijkl,`).join("");
  await redis.cli("HSET", STATE, "ended", many);
  for (let seq = 5; seq > 3; seq--) {
    names.push(one.name);
    // A server that is set back is another one, or says so by the numbers: here by the latter alone.
    await redis.cli("HSET", STATE, "name", "0.older");
    await redis.cli("HSET", "userwire:{alice}:position", "seq", seq, "tag", `${seq}.tag`);
    assertEquals(await look(one), undefined);
  }
  const { ended } = await stateOf(redis);
  assert(ended!.length <= 400, `It is ${ended!.length} characters long`);
  for (const name of names) assert(`,${ended}`.includes(`,${name},`), `${name} is not among "${ended}"`);
  assertMatch(ended!, /^(\d+\.[\w-]+,)+$/);
});

for (const isKept of [true, false]) {
  test(`${isKept ? "misses" : "does not miss"} an append whose channel is ${isKept ? "still" : "no longer"} its own`, async (t) => {
    const part = new StubPart("a");
    const one = new Timeline(part);
    await t.append(one, "alice", 3);
    await t.look(one);
    await t.redis.cli("HSET", "userwire:{alice}:position", "seq", 1, "tag", "1.tag");
    if (!isKept) part.gone.add("alice");
    await t.looked(one, "second");
    assertEquals(one.name === "1.first", !isKept);
  });
}

for (const isHandedOver of [true, false]) {
  test(`${isHandedOver ? "goes on" : "is a new one"} after a failover ${isHandedOver ? "" : "not "}known to be whole`, async (t) => {
    const part = new StubPart("a", "ar");
    const one = new Timeline(part);
    await t.append(one, "alice", 1);
    await t.look(one);
    part.node = "ar";
    part.said = isHandedOver ? "done" : "unproven";
    assert(await t.look(one, "second") !== undefined, "It does not wait for others");
    await t.looked(one, "second");
    assertEquals([one.name === "1.first", new Set(part.asked)], [isHandedOver, new Set(["a"])]);
    // Once it has said so it is not asked again.
    if (isHandedOver) assertEquals(part.asked, ["a"]);
    const asked = part.asked.length;
    assertEquals([await t.look(one, "second"), part.asked.length], [undefined, asked]);
  });
}

for (const comes of [true, false]) {
  test(`waits for a former master that begins to follow, ${comes ? "until it does" : "but not for ever"}`, async (t) => {
    using clock = new StandingClock();
    const part = new StubPart("a", "ar");
    const one = new Timeline(part);
    await t.append(one, "alice", 1);
    await t.look(one);
    part.node = "ar";
    part.said = "underway";
    for (const _ of [1, 2]) {
      assert(await t.look(one, "second") !== undefined, "It does not wait");
      clock.pass(2_000);
    }
    if (comes) part.said = "done";
    else clock.pass(2_000);
    assertEquals([await t.look(one, "second"), one.name === "1.first"], [undefined, comes]);
  });
}

test("is not asked for a failover of a master that was started again", async ({ look, looked, append }) => {
  const part = new StubPart("a", "ar");
  const one = new Timeline(part);
  await append(one, "alice", 1);
  await look(one);
  await looked(one, "second");
  assertEquals([one.name, part.asked], ["1.first", []]);
});

/** A history of a part, where a user's position bears the name of another timeline. */
async function opened(
  options: { theirs: string; ours: string; slots: string; ended?: string; how: "append" | "since" },
): Promise<{ epoch: string; seq: number; formers: string; timeline: string }> {
  await using redis = await RedisServer.start();
  const position = "userwire:{alice}:position";
  await redis.cli("HSET", position, "epoch", "theirs", "seq", 5, "tag", "5.tag", "timeline", options.theirs);
  const { life } = readInfo(await redis.info("server"));
  await redis.cli(
    "HSET",
    STATE,
    "name",
    options.ours,
    "life",
    life,
    "ids",
    "a",
    "slots",
    options.slots,
    "ended",
    "",
  );
  const lineage = new Lineage();
  if (options.ended !== undefined) lineage.learn({}, options.ended);
  const client = Redis.open(redis.url);
  try {
    const history = new RedisStreamsHistory(client, {
      limits: { count: 10, ttlMs: 60_000 },
      part: new StubPart("a"),
      lineage,
    });
    await connected(client.availability);
    if (options.how === "append") {
      const { seq } = placeOf(await history.append("alice", outgoing("x")));
      assertEquals(seq, 6);
    }
    const { epoch, previousEpochs, last } = await history.since("alice", undefined, 0);
    return {
      epoch,
      seq: last,
      formers: previousEpochs.map(({ epoch, seq }) => `${epoch}.${seq}`).join(),
      timeline: String(await redis.cli("HGET", position, "timeline")),
    };
  } finally {
    client.close();
  }
}

const LATER = "9000000000000.ours";
const EARLIER = "8000000000000.theirs";

for (const how of ["append", "since"] as const) {
  const seq = how === "append" ? 6 : 5;

  redisTest(`A position that came from another master goes on, with ${how}`, async () => {
    for (
      const [ours, theirs] of [[LATER, EARLIER], [EARLIER, LATER], ["1.ours", "1.theirs"], [
        LATER,
        "",
      ]] as const
    ) {
      const went = await opened({ theirs, ours, slots: "0-748,750-999", ended: "7000000000000.x,", how });
      assertEquals(went, { epoch: "theirs", seq, formers: "", timeline: ours }, `${theirs} on ${ours}`);
    }
  });

  redisTest(`A position that was set back where it came from gets another epoch, with ${how}`, async () => {
    for (
      const [ours, theirs] of [[LATER, EARLIER], [EARLIER, LATER], ["1.ours", LATER], [
        "1.ours",
        "1.theirs",
      ]] as const
    ) {
      const went = await opened({ theirs, ours, slots: "0-748", ended: `1.x,${theirs},2.y,`, how });
      assertNotEquals(went.epoch, "theirs", `${theirs} on ${ours}`);
      assertEquals([went.seq, went.formers, went.timeline], [seq, "theirs.5", ours], `${theirs} on ${ours}`);
    }
  });

  redisTest(`A position that was here when the timeline began gets another epoch, with ${how}`, async () => {
    const went = await opened({ theirs: EARLIER, ours: LATER, slots: `0-10,${ALICE}`, how });
    assertNotEquals(went.epoch, "theirs");
    assertEquals([went.seq, went.formers, went.timeline], [seq, "theirs.5", LATER]);
  });
}

test("is not ended by what is left of it in a slot that it was kept in before", async ({ redis, looked, append }) => {
  const part = new StubPart("a");
  const timeline = new Timeline(part);
  await looked(timeline);
  await append(timeline, "alice", 1);
  await looked(timeline);
  // It goes on in another slot, and there a failover that is not known to be whole begins the next one.
  part.tag = `${TAG}7`;
  await looked(timeline);
  [part.node, part.ids] = ["b", new Set(["a", "b"])];
  await looked(timeline, "second");
  const { name } = timeline;
  assertMatch(name, /^\d{13}\./);
  part.tag = TAG;
  await looked(timeline, "second");
  assertEquals(timeline.name, name);
  assertEquals((await stateOf(redis)).name, name);
});

test("forgets that it began with a slot when that has left, for what comes back with it is whole", async ({ redis, looked, append }) => {
  const part = new StubPart("a");
  const timeline = new Timeline(part);
  await looked(timeline);
  await append(timeline, "alice", 1);
  await looked(timeline);
  part.slots = `0-100,${ALICE}`;
  [part.node, part.ids] = ["b", new Set(["a", "b"])];
  await looked(timeline, "second");
  assertEquals(timeline.elsewhere("alice"), "");
  assertEquals((await stateOf(redis)).slots, `0-100,${ALICE}`);
  part.slots = "50-100";
  await looked(timeline, "second");
  part.slots = `50-100,${ALICE}`;
  await looked(timeline, "second");
  assertMatch(timeline.elsewhere("alice"), /^,1\.first,$/);
  assertEquals((await stateOf(redis)).slots, "50-100");
  // Another process learns it from there.
  const other = new Timeline(part);
  await looked(other, "second");
  assertEquals([other.name, other.elsewhere("alice")], [timeline.name, ",1.first,"]);
  part.slots = String(ALICE);
  await looked(timeline, "second");
  assertEquals((await stateOf(redis)).slots, "");
});
