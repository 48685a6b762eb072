/**
 * One user's keys are put back from a copy, on a Redis that goes on: a process that remembers a later append begins a new epoch
 * of that user, whoever appended meanwhile. What others append to data that is whole begins none.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import type { History } from "../../src/history/history.ts";
import { LastAppends, MAX_REMEMBERED } from "../../src/history/last_appends.ts";
import { numbers, outgoing, placeOf, seqsOf } from "../contracts/history.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";

const KEYS = ["position", "inbox"].map((kind) => `userwire:{alice}:${kind}`);

/** Key in which each process writes down its last append for the others. */
const TOLD = "userwire:{userwire:timeline}:last";

/**
 * Two processes that go on where each has told the other of an append. Until then one that misses an append of its own can't
 * know that the rest of the data is whole: it begins another timeline, and with it a new epoch of everybody, when its next
 * look falls between a loss and what is put back.
 */
async function openTwo(redis: RedisServer): Promise<{ ours: Engine; theirs: Engine } & AsyncDisposable> {
  await using owned = new AsyncDisposableStack();
  const open = async () => {
    const engine = openEngine({ redisUrl: redis.url, history: 100, historyTtlS: 60 });
    owned.defer(() => engine.close());
    await connected(engine);
    await engine.history.append("zoe", outgoing("m"));
    return engine;
  };
  const [ours, theirs] = [await open(), await open()];
  let told: unknown;
  await until(
    async () => (told = await redis.cli("HLEN", TOLD)) === 2,
    "both processes to have told of an append",
    undefined,
    () => `${told} have`,
  );
  const all = owned.move();
  return { ours, theirs, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

async function copy(redis: RedisServer): Promise<void> {
  for (const key of KEYS) await redis.cli("COPY", key, `copy:${key}`, "REPLACE");
}

async function putBack(redis: RedisServer): Promise<void> {
  for (const key of KEYS) await redis.cli("COPY", `copy:${key}`, key, "REPLACE");
}

async function send(history: History, count = 1): Promise<{ epoch: string; seq: number }> {
  let place = { epoch: "", seq: 0 };
  for (let n = 0; n < count; n++) place = placeOf(await history.append("alice", outgoing("m")));
  return place;
}

const once = (history: History) => send(history);

/** To a group of two, as a page. */
async function sendPage(history: History, redis: RedisServer): Promise<{ epoch: string; seq: number }> {
  const name = { channel: "userwire:group:team", key: crypto.randomUUID(), isKept: false };
  const opened = await history.openRun(name, { id: "m", fingerprint: "" });
  assert(opened.outcome === "open");
  const page = { channels: ["bob", "alice"], from: "", to: "bob", isLast: true };
  await history.appendPage(opened.run, page, outgoing("m"));
  const [epoch, seq] = await redis.cli("HMGET", KEYS[0]!, "epoch", "seq") as string[];
  return { epoch: epoch!, seq: Number(seq) };
}

const settled = (results: PromiseSettledResult<Parameters<typeof placeOf>[0]>[]) => {
  assert(results[0]!.status === "fulfilled");
  return placeOf(results[0]!.value);
};

/** Ways to touch a user's data. Each answers with the place that the user is at then. */
const TOUCHES: Record<
  string,
  (history: History, redis: RedisServer) => Promise<{ epoch: string; seq: number }>
> = {
  "an append": (history) => send(history),
  "an append to several users": async (history) =>
    settled(await history.appendToAll(["alice", "bob"], outgoing("m"))),
  "one of several appends": async (history) =>
    settled(await history.appendEach!([{ channel: "alice", message: outgoing("m"), options: {} }])),
  "an append of a page": sendPage,
  "a read": async (history) => {
    const { epoch, last } = await history.since("alice", 0, 100);
    return { epoch, seq: last };
  },
  "a read of the position alone": async (history) => {
    const { epoch, last } = await history.since("alice", undefined, 1);
    return { epoch, seq: last };
  },
};

redisTest("A user's keys that were put back begin a new epoch of that user", async (t) => {
  await using redis = await RedisServer.start();
  await using engines = await openTwo(redis);
  const { ours, theirs } = engines;
  for (const [what, touch] of Object.entries(TOUCHES)) {
    const adds = what.includes("append") ? 1 : 0;
    for (const [meanwhile, lastly] of [0, 1, 2, 3].flatMap((n) => [[n, once], [n, sendPage]] as const)) {
      const how = lastly === once ? "a message" : "a page";
      await t.step(`at ${what}, after ${meanwhile} of others, where ${how} was lost`, async () => {
        await redis.cli("DEL", ...KEYS);
        await send(ours.history, 3);
        await copy(redis);
        await send(ours.history);
        const last = await lastly(ours.history, redis);
        await putBack(redis);
        if (meanwhile > 0) {
          assertEquals(await send(theirs.history, meanwhile), { epoch: last.epoch, seq: 3 + meanwhile });
        }
        const found = await touch(ours.history, redis);
        assertNotEquals(found.epoch, last.epoch);
        assertEquals(found.seq, 3 + meanwhile + adds);
        // Nothing of the old one is vouched for: all that there is comes again.
        const page = await theirs.history.since("alice", 0, 100);
        assertEquals([page.epoch, page.previousEpochs], [found.epoch, []]);
        assertEquals(seqsOf(page), numbers(1, found.seq));
        assertEquals(await send(theirs.history), { epoch: found.epoch, seq: found.seq + 1 });
      });
    }
  }
});

redisTest("A user's data that is whole stays of one epoch, whoever appends to it", async (t) => {
  await using redis = await RedisServer.start();
  await using engines = await openTwo(redis);
  const { ours, theirs } = engines;
  const { epoch } = await send(ours.history, 3);
  for (const [what, touch] of Object.entries(TOUCHES)) {
    await t.step(`at ${what}`, async () => {
      await touch(ours.history, redis);
      await send(theirs.history, 2);
      assertEquals((await touch(ours.history, redis)).epoch, epoch);
    });
  }
  await t.step("whose entries have left the history", async () => {
    const { seq } = await send(ours.history);
    await theirs.history.append("alice", outgoing("m"));
    await redis.cli("XDEL", KEYS[1]!, `${seq}-0`);
    assertEquals((await send(ours.history)).epoch, epoch);
  });
  await t.step("and what was lost whole is of a new epoch from its first number on", async () => {
    await redis.cli("DEL", ...KEYS);
    const place = await send(theirs.history, 2);
    assertNotEquals(place.epoch, epoch);
    assertEquals(await send(ours.history), { epoch: place.epoch, seq: 3 });
  });
});

redisTest(
  "A client that was away since before the copy is told that its numbers were given out again",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using follower = await Follower.open(service.socketUrl("alice"));
    const sendAll = async (first: number, last: number) => {
      for (const n of numbers(first, last)) assert((await service.send("alice", n)).status < 300);
    };
    assertEquals((await service.send("alice", 1)).status, 200);
    await follower.reaches(1);
    await follower.disconnect();
    await sendAll(2, 3);
    await copy(redis);
    await sendAll(4, 5); // lost to her
    await putBack(redis);
    await sendAll(6, 7);
    await follower.returnsTo(service.socketUrl("alice"));
    await follower.until(() => follower.data.includes(7), "the last message");
    assertEquals(follower.gaps.map(({ why }) => why), ["epoch"]);
    assertEquals(follower.data, [1, 1, 2, 3, 6, 7]);
  },
);

redisTest("What a client had that left is looked for, whoever appended it", async (t) => {
  await using redis = await RedisServer.start();
  // So that a message leaves soon after its number is out of the history.
  await redis.cli("CONFIG", "SET", "stream-node-max-entries", 1);
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_HISTORY: "3" });
  const sendAll = async (first: number, last: number) => {
    for (const n of numbers(first, last)) assert((await service.send("alice", n)).status < 300);
  };
  /** Sends a message that no process is answered which lives on. */
  const sendUnanswered = async () => {
    const engine = openEngine({ redisUrl: redis.url, history: 3, historyTtlS: 60 });
    await connected(engine);
    await engine.history.append("alice", outgoing({ kind: "json", text: '"unanswered"' }));
    await engine.close();
  };
  for (const isLost of [true, false]) {
    await t.step(isLost ? "and is gone" : "and is there", async () => {
      await redis.cli("DEL", ...KEYS);
      await using follower = await Follower.open(service.socketUrl("alice"));
      follower.usesTags = true;
      await sendAll(1, 3);
      await follower.reaches(3);
      await copy(redis);
      await sendUnanswered();
      await follower.until(
        () => follower.data.includes("unanswered"),
        "the message that nobody was answered",
      );
      await follower.disconnect();
      await service.isEmpty();
      if (isLost) await putBack(redis);
      // The first of them has the number of the one that was lost.
      let last = 105;
      await sendAll(101, last);
      // Which message takes what is too old out of the stream is left to chance.
      await until(async () => {
        last++;
        await sendAll(last, last);
        return (await redis.cli("XRANGE", KEYS[1]!, "4-0", "4-0") as unknown[]).length === 0;
      }, "number 4 to leave");
      await follower.returnsTo(service.socketUrl("alice"));
      await follower.until(() => follower.data.includes(last), "the last message");
      const [first] = follower.gaps;
      assertEquals([first?.why, first?.from], [isLost ? "epoch" : "trimmed", 5]);
      assertEquals(follower.data, [1, 2, 3, "unanswered", last - 2, last - 1, last]);
    });
  }
});

redisTest("Where others went on, what somebody got is looked for at a read alone", async () => {
  await using redis = await RedisServer.start();
  await using engines = await openTwo(redis);
  const { ours, theirs } = engines;
  for (const meanwhile of [1, 2]) {
    await redis.cli("DEL", ...KEYS);
    const subscription = await ours.broker.subscribe("alice", new Recorder());
    await send(ours.history, 3);
    await copy(redis);
    const { epoch } = await send(ours.history);
    await putBack(redis);
    await send(theirs.history, meanwhile);
    // Under the number of ours there is another message, or beyond it.
    assertEquals((await send(ours.history)).epoch === epoch, meanwhile === 2);
    await subscription.close();
  }
  const { epoch } = await send(ours.history);
  await copy(redis);
  const subscription = await ours.broker.subscribe("alice", new Recorder());
  await send(ours.history);
  await putBack(redis);
  await send(theirs.history, 2);
  assertNotEquals((await ours.history.since("alice", 0, 100)).epoch, epoch);
  await subscription.close();
});

Deno.test("Of the users that were sent to, those who were sent to last are remembered", () => {
  const appends = new LastAppends();
  appends.note("first", 1, "tag", 1);
  appends.note("second", 1, "tag", 0);
  appends.note("first", 2, "later", 1);
  const others = (from: number, to: number) => {
    for (let n = from; n < to; n++) appends.note(`user-${n}`, n, "tag", 1);
  };
  others(0, MAX_REMEMBERED);
  assertEquals([appends.of("first"), appends.of("second")], ["2.later", "1.tag!"]);
  assertEquals([appends.thoroughly("first"), appends.thoroughly("second")], ["2.later!", "1.tag!"]);
  appends.note("first", 3, "last", 1);
  others(MAX_REMEMBERED, 2 * MAX_REMEMBERED);
  assertEquals([appends.of("first"), appends.of("second"), appends.of("user-1")], ["3.last", "", ""]);
  assertEquals(appends.thoroughly("second"), "");
  for (let n = MAX_REMEMBERED; n < 2 * MAX_REMEMBERED; n++) assertEquals(appends.of(`user-${n}`), `${n}.tag`);
});

Deno.test("What a client had that left is remembered where it is later than what was appended", () => {
  const appends = new LastAppends();
  appends.noteLeft("alice", 3, "abcd3333");
  assertEquals(appends.of("alice"), "3.abcd3333!");
  appends.note("alice", 5, "abcd5555", 1);
  appends.noteLeft("alice", 4, "abcd4444");
  appends.noteLeft("alice", 5, "abcd5555");
  // Which of two epochs is the later one their names don't say.
  appends.noteLeft("alice", 9, "efgh9999");
  assertEquals(appends.of("alice"), "5.abcd5555");
  appends.noteLeft("alice", 6, "abcd6666");
  assertEquals(appends.of("alice"), "6.abcd6666!");
});

Deno.test("Of a page those are remembered who were numbered, and who of them got nothing", () => {
  const appends = new LastAppends();
  appends.note("d", 7, "tag", 1);
  appends.noteEach(["a", "b", "c", "d", "e"], "1.tag 22.tag ! 3.tag - 4.tag !");
  assertEquals(["a", "b", "c", "d", "e"].map((name) => appends.of(name)), [
    "1.tag",
    "22.tag!",
    "3.tag",
    "7.tag",
    "4.tag!",
  ]);
  appends.noteEach(["a", "b"], "- 23.tag");
  assertEquals([appends.of("a"), appends.of("b")], ["1.tag", "23.tag"]);
});
