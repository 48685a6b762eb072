/**
 * The history in Redis: the contract, with a second node on the same server, and what is true of Redis only: which
 * keys there are and when they end, scripts that Redis forgot, and counters that were lost or set back.
 */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { setImmediate } from "node:timers";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { originOf, ownNameOf } from "../../src/history/epochs.ts";
import type { History, HistoryLimits } from "../../src/history/history.ts";
import { payloadOf } from "../../src/protocol/envelope.ts";
import { parsePosition, type Position } from "../../src/protocol/position.ts";
import { historyContract, numbers, outgoing, placeOf, seqsOf, textsOf } from "../contracts/history.ts";
import { runContract } from "../contracts/history_runs.ts";
import { BEAT_MS } from "../../src/redis/server_heartbeat.ts";
import { connected } from "../../testkit/connected.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

const DAY_MS = 24 * 3_600_000;
const IDEMPOTENCY = { key: "k", fingerprint: "f" };
const LAST_KEY = "userwire:{userwire:timeline}:last";

async function openOn(redis: RedisServer, limits: Partial<HistoryLimits> = {}): Promise<Engine> {
  const { count = 100, ttlMs = 60_000 } = limits;
  const engine = openEngine({ redisUrl: redis.url, history: count, historyTtlS: ttlMs / 1_000 });
  await connected(engine);
  return engine;
}

/** Milliseconds on Redis' own clock. */
async function timeOf(redis: RedisServer): Promise<number> {
  const [seconds, micros] = await redis.cli("TIME") as [string, string];
  return Number(seconds) * 1_000 + Number(micros) / 1_000;
}

const onRedis = async (limits: HistoryLimits) => {
  const redis = await RedisServer.start();
  const ours = await openOn(redis, limits);
  const theirs = await openOn(redis, limits);
  return {
    history: ours.history,
    broker: ours.broker,
    peer: theirs.history,
    async elapse(ms: number) {
      const end = await timeOf(redis) + ms;
      await until(async () => await timeOf(redis) > end, `${ms} ms to pass on Redis' clock`);
    },
    async dispose() {
      await ours.close();
      await theirs.close();
      await redis[Symbol.asyncDispose]();
    },
  };
};

historyContract("RedisStreamsHistory", onRedis, { test: redisTest });
runContract("RedisStreamsHistory", onRedis, { test: redisTest });

/**
 * One test with its own server and two nodes on it.
 * @param options.isHeld Whether nodes do not look at Redis by themselves: one that finds a loss begins a new epoch for all.
 */
function test(
  claim: string,
  body: (t: { redis: RedisServer; ours: Engine; theirs: Engine }) => Promise<void>,
  { args = [], isHeld = false }: { args?: readonly string[]; isHeld?: boolean } = {},
): void {
  redisTest(`RedisStreamsHistory ${claim}`, async () => {
    using _looks = new HeldIntervals(isHeld ? BEAT_MS : []);
    await using redis = await RedisServer.start({ args });
    const ours = await openOn(redis);
    const theirs = await openOn(redis);
    try {
      await withDeadline(body({ redis, ours, theirs }), 60_000, "the test to end");
    } finally {
      await ours.close();
      await theirs.close();
    }
  });
}

async function sendMany(history: History, count: number): Promise<{ epoch: string; seq: number }> {
  let place = { epoch: "", seq: 0 };
  for (let n = 0; n < count; n++) place = placeOf(await history.append("alice", outgoing("m")));
  return place;
}

async function available(...backbones: Engine[]): Promise<void> {
  for (const { history } of backbones) {
    await until(
      () => history.since("nobody", undefined, 1).then(() => true, () => false),
      "the history to be reachable",
      15_000,
    );
  }
}

// ---------------------------------------------------------------------------------------------------------
// Keys

test("puts all keys of a user into the channel's hash slot, and lets each end", async ({ redis, ours }) => {
  await ours.history.append("alice", outgoing("m"), { idempotency: IDEMPOTENCY });
  await ours.history.since("bob", 0, 10);
  await ours.history.since("carol", undefined, 10);
  const keys = (await redis.cli("KEYS", "userwire:{[^u]*") as string[]).toSorted();
  assertEquals(keys, [
    "userwire:{alice}:inbox",
    "userwire:{alice}:key:k",
    "userwire:{alice}:position",
    "userwire:{bob}:position",
    "userwire:{carol}:position",
  ]);
  const lives = await Promise.all(keys.map((key) => redis.cli("PTTL", key) as Promise<number>));
  // An eighth later, and an hour at most: so they are not set with each message. A position ends a day after its history.
  const wanted = [
    [60_000, 67_500],
    [300_000, 300_000],
    [DAY_MS + 60_000, DAY_MS + 67_500],
    [DAY_MS, DAY_MS + 3_600_000],
    [DAY_MS, DAY_MS + 3_600_000],
  ] as const;
  for (const [i, life] of lives.entries()) {
    const [least, most] = wanted[i]!;
    assert(life > least - 30_000 && life <= most, `${keys[i]} ends in ${life} ms, not ${least} to ${most}`);
  }
});

test("leaves no key behind for a user who is not there", async ({ redis, ours }) => {
  const options = { expectOnline: true, idempotency: IDEMPOTENCY };
  assertEquals(await ours.history.append("alice", outgoing("m"), options), { outcome: "offline" });
  assertEquals(await redis.cli("KEYS", "*alice*"), []);
});

test("leaves no key without an end", async ({ redis, ours }) => {
  await ours.history.append("alice", outgoing("m"), { idempotency: IDEMPOTENCY });
  await ours.history.since("bob", 0, 10);
  for (const key of ["once", "twice", "twice"]) await ours.history.claim("", { ...IDEMPOTENCY, key });
  await ours.history.release("", { ...IDEMPOTENCY, key: "twice" });
  assertEquals((await redis.cli("KEYS", "userwire:call:*") as string[]).length, 2);
  // Told to the others with the next look at Redis.
  await until(async () => await redis.cli("EXISTS", LAST_KEY) === 1, "the last append to be told");
  for (const key of await redis.cli("KEYS", "*") as string[]) {
    // One that is gone by now has ended.
    assert(Number(await redis.cli("PTTL", key)) !== -1, `${key} stays for ever`);
  }
});

test("tells the others of the last append of a list", async ({ redis, ours }) => {
  await ours.history.appendToAll(["alice", "bob", "carol"], outgoing("m"));
  await until(async () => await redis.cli("EXISTS", LAST_KEY) === 1, "the last append to be told");
  const [, record] = await redis.cli("HGETALL", LAST_KEY) as string[];
  const tag = await redis.cli("HGET", "userwire:{carol}:position", "tag") as string;
  assertEquals(record!.split(" ").slice(1), ["1", tag.slice("1.".length), "carol"]);
});

test("only looks, when that is asked for", async ({ redis, ours }) => {
  const { epoch, last, items } = await ours.history.since("nobody", 0, 10, { peek: true });
  assertEquals([epoch, last, items], ["", 0, []]);
  assertEquals(await redis.cli("KEYS", "*nobody*"), []);
  const place = await sendMany(ours.history, 2);
  const page = await ours.history.since("alice", 0, 10, { peek: true });
  assertEquals([page.epoch, seqsOf(page)], [place.epoch, [1, 2]]);
});

test("keeps the counter for longer than any message", async ({ redis, ours }) => {
  await ours.history.append("alice", outgoing("m"), { ttlMs: 7 * DAY_MS });
  await ours.history.append("alice", outgoing("m"), { ttlMs: 1_000 });
  await ours.history.since("alice", 0, 10);
  const [counter, messages] = [
    await redis.cli("PTTL", "userwire:{alice}:position"),
    await redis.cli("PTTL", "userwire:{alice}:inbox"),
  ].map(Number);
  assert(messages! > 6 * DAY_MS, `The messages end in ${messages} ms`);
  assert(counter! >= messages!, `The counter ends in ${counter} ms, the messages in ${messages} ms`);
});

// ---------------------------------------------------------------------------------------------------------
// Trouble

test("goes on after Redis forgot the scripts", async ({ redis, ours, theirs }) => {
  await sendMany(ours.history, 2);
  await redis.cli("SCRIPT", "FLUSH");
  const appended = await Promise.all(
    numbers(0, 9).map((n) => [ours, theirs][n % 2]!.history.append("alice", outgoing(`${n}`))),
  );
  assertEquals(appended.map((one) => placeOf(one).seq).toSorted((a, b) => a - b), numbers(3, 12));
  await redis.cli("SCRIPT", "FLUSH");
  assertEquals(seqsOf(await theirs.history.since("alice", 10, 10)), [11, 12]);
});

test("rejects in time when Redis is away or hangs, and goes on when it is back", async (t) => {
  const { redis, ours, theirs } = t;
  const before = await sendMany(ours.history, 1);
  await redis.pause();
  const attempts: (() => Promise<unknown>)[] = [
    () => ours.history.append("alice", outgoing("m"), { idempotency: IDEMPOTENCY }),
    () => ours.history.since("alice", 0, 10),
  ];
  for (const attempt of attempts) {
    await assertRejects(() => withDeadline(attempt(), 6_000, "an answer"), BrokerUnavailableError);
  }
  redis.resume();
  await available(ours);
  // The first append was written before Redis hung: it counts, and its key says so.
  const again = await ours.history.append("alice", outgoing("m"), { idempotency: IDEMPOTENCY });
  assertEquals([again.outcome, placeOf(again)], ["repeated", { ...before, seq: 2 }]);
  await redis.stop();
  for (const attempt of attempts) {
    await assertRejects(() => withDeadline(attempt(), 6_000, "an answer"), BrokerUnavailableError);
  }
  await redis.restart();
  await available(ours, theirs);
});

/** What makes Redis refuse writes, and what lets it take them again. */
const REFUSALS = {
  "no memory is left": [["maxmemory", "1"], ["maxmemory", "0"]],
  "it has too few replicas": [["min-replicas-to-write", "1"], ["min-replicas-to-write", "0"]],
  "its snapshots fail": [["stop-writes-on-bgsave-error", "yes"], ["stop-writes-on-bgsave-error", "no"]],
} as const;

const SAVING = ["--save", "3600 1", "--stop-writes-on-bgsave-error", "no"];

for (const [why, [refuse, allow]] of Object.entries(REFUSALS)) {
  for (const count of [100, 0]) {
    redisTest(
      `RedisStreamsHistory with a history of ${count} delivers nothing that Redis refuses, as ${why}`,
      async () => {
        const dir = await Deno.makeTempDir({ prefix: "userwire-redis-" });
        try {
          await using redis = await RedisServer.start({ dir, args: SAVING });
          await failToSave(redis, dir);
          const ours = await openOn(redis, { count });
          const recorder = new Recorder();
          const subscription = await ours.broker.subscribe("alice", recorder);
          const append = (text: string) =>
            ours.history.append("alice", outgoing(text), { idempotency: { key: text, fingerprint: "f" } });
          await append("1");
          await redis.cli("CONFIG", "SET", ...refuse);
          const { outcome } = await assertRejects(() => append("2"), BrokerUnavailableError);
          assertEquals(outcome, "refused");
          // Who was never heard of before leaves no trace either.
          const newcomer = ours.history.append("bob", outgoing("1"), { idempotency: IDEMPOTENCY });
          await assertRejects(() => newcomer, BrokerUnavailableError);
          assertEquals(await redis.cli("KEYS", "*bob*"), []);
          await redis.cli("CONFIG", "SET", ...allow);
          for (const text of ["2", "3"]) assertEquals((await append(text)).outcome, "appended");
          await recorder.received(3);
          assertEquals(recorder.payloads.map((envelope) => payloadOf(envelope as string)), ["1", "2", "3"]);
          assertEquals(seqsOf(await ours.history.since("alice", 0, 10)), count === 0 ? [] : [1, 2, 3]);
          await subscription.close();
          await ours.close();
        } finally {
          await Deno.remove(dir, { recursive: true });
        }
      },
    );
  }
}

/** Makes Redis know that its last snapshot has failed: in the place of its file there is a folder. */
async function failToSave(redis: RedisServer, dir: string): Promise<void> {
  await Deno.mkdir(`${dir}/dump.rdb/full`, { recursive: true });
  await redis.cli("BGSAVE");
  await until(
    async () => String(await redis.cli("INFO", "persistence")).includes("rdb_last_bgsave_status:err"),
    "a snapshot to fail",
  );
}

test("goes on in order and in the same epoch when only the mark of Redis' memory is gone", async (t) => {
  const { redis, ours, theirs } = t;
  const { epoch } = await sendMany(ours.history, 1);
  const marks = async () => await redis.cli("KEYS", "userwire:{userwire:timeline}:mark:*") as string[];
  await until(async () => (await marks()).length === 1, "the first append to have been marked");
  await redis.cli("DEL", ...await marks());
  const places = [];
  for (const n of numbers(2, 400)) {
    places.push(ours.history.append("alice", outgoing(`${n}`)).then(placeOf));
    // In turns, so that some come while it is found out what has happened.
    await new Promise((resolve) => setImmediate(resolve));
  }
  assertEquals(await Promise.all(places), numbers(2, 400).map((seq) => ({ epoch, seq })));
  assertEquals(placeOf(await theirs.history.append("alice", outgoing("m"))), { epoch, seq: 401 });
  assertEquals((await marks()).length, 1);
});

test("keeps nothing for a channel on which it may not publish", async ({ redis, ours }) => {
  await sendMany(ours.history, 1);
  const append = () => ours.history.append("alice", outgoing("again"), { idempotency: IDEMPOTENCY });
  await redis.cli("ACL", "SETUSER", "default", "resetchannels");
  assertEquals((await assertRejects(append, BrokerUnavailableError)).outcome, "refused");
  assertEquals(textsOf(await ours.history.since("alice", 0, 10)), ["m"]);
  await redis.cli("ACL", "SETUSER", "default", "allchannels");
  assertEquals(placeOf(await append()).seq, 2);
  assertEquals(textsOf(await ours.history.since("alice", 0, 10)), ["m", "again"]);
});

test("begins a new epoch without the old messages when the counter is lost", async (t) => {
  const { redis, ours, theirs } = t;
  const old = await sendMany(ours.history, 3);
  assertEquals(await redis.cli("DEL", "userwire:{alice}:position"), 1);
  const page = await theirs.history.since("alice", 0, 10);
  assertNotEquals(page.epoch, old.epoch);
  assertEquals([page.last, page.items, page.previousEpochs], [0, [], []]);
  assertEquals(await redis.cli("EXISTS", "userwire:{alice}:inbox"), 0);
  assertEquals(placeOf(await ours.history.append("alice", outgoing("m"))), { epoch: page.epoch, seq: 1 });
}, { isHeld: true });

test("begins a new epoch with its first send, too", async ({ redis, ours, theirs }) => {
  const old = await sendMany(ours.history, 3);
  await redis.cli("FLUSHALL");
  const place = placeOf(await theirs.history.append("alice", outgoing("new")));
  assertEquals(place.seq, 1);
  assertNotEquals(place.epoch, old.epoch);
  const page = await ours.history.since("alice", 0, 10);
  assertEquals([page.epoch, textsOf(page)], [place.epoch, ["new"]]);
}, { isHeld: true });

test("begins a new epoch when Redis restarts without its data", async ({ redis, ours, theirs }) => {
  const old = await sendMany(ours.history, 3);
  await redis.restart();
  await available(ours, theirs);
  const { epoch, last, previousEpochs } = await ours.history.since("alice", 0, 10);
  assertNotEquals(epoch, old.epoch);
  assertEquals([last, previousEpochs], [0, []]);
  assertEquals((await theirs.history.since("alice", 0, 10)).epoch, epoch);
});

test("begins a new epoch after a restart from a snapshot, and says up to where the old one holds", async (t) => {
  const { redis, ours, theirs } = t;
  const first = await sendMany(ours.history, 7);
  await redis.cli("SAVE");
  await sendMany(ours.history, 3);
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
  await available(ours, theirs);
  // Ours knows what was lost. Theirs may not have heard of it, and hears of it with its next look.
  await until(
    async () => (await theirs.history.since("alice", 5, 10)).epoch !== first.epoch,
    "a new epoch",
    15_000,
  );
  const page = await theirs.history.since("alice", 5, 10);
  assertEquals(page.previousEpochs, [{ epoch: first.epoch, seq: 7 }]);
  assertEquals([page.last, seqsOf(page)], [7, [6, 7]]);
  assertEquals(placeOf(await ours.history.append("alice", outgoing("m"))), { epoch: page.epoch, seq: 8 });

  // Once more, and the list goes on.
  await redis.cli("SAVE");
  await sendMany(ours.history, 1);
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
  await available(ours, theirs);
  const third = await ours.history.since("alice", 7, 10);
  assertEquals(third.previousEpochs, [{ epoch: first.epoch, seq: 7 }, { epoch: page.epoch, seq: 8 }]);
  assertEquals([third.last, seqsOf(third)], [8, [8]]);
  assertEquals((await theirs.history.since("alice", 0, 10)).epoch, third.epoch);
});

test("begins one new epoch, and not another with each node that lost something", async (t) => {
  const { redis, ours, theirs } = t;
  await sendMany(ours.history, 1);
  await redis.cli("SAVE");
  // Neither has told the other of the last one.
  await Promise.all([sendMany(ours.history, 1), sendMany(theirs.history, 1)]);
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
  await available(ours, theirs);
  const { epoch } = await ours.history.since("alice", 0, 10);
  for (let look = 0; look < 3; look++) {
    const told = async () => String(await redis.cli("HVALS", LAST_KEY));
    const { seq } = await sendMany(ours.history, 1);
    await until(async () => (await told()).includes(` ${seq} `), "the node to look at Redis");
    const next = await sendMany(theirs.history, 1);
    await until(async () => (await told()).includes(` ${next.seq} `), "the other to look at Redis");
  }
  assertEquals((await ours.history.since("alice", 0, 10)).epoch, epoch);
});

test("notes up to where an epoch holds also when the first to come is a send", async (t) => {
  const { redis, ours, theirs } = t;
  const first = await sendMany(ours.history, 2);
  await redis.cli("SAVE");
  await sendMany(ours.history, 1);
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
  await available(ours, theirs);
  const place = placeOf(await ours.history.append("alice", outgoing("m")));
  assertEquals(place.seq, 3);
  const page = await ours.history.since("alice", 0, 10);
  assertEquals([page.epoch, page.previousEpochs], [place.epoch, [{ epoch: first.epoch, seq: 2 }]]);
  assertEquals(seqsOf(page), [1, 2, 3]);
});

test("keeps the list of former epochs short over many timelines", async ({ redis, ours }) => {
  let place = await sendMany(ours.history, 1);
  const epochs = new Set<string>();
  for (let life = 0; life < 30; life++) {
    epochs.add(place.epoch);
    // What a new timeline changes, without the wait for one.
    await redis.cli("HSET", "userwire:{alice}:position", "timeline", "0.before");
    place = await sendMany(ours.history, 1);
  }
  const page = await ours.history.since("alice", 0, 100);
  assertEquals([page.epoch, page.last], [place.epoch, 31]);
  assert(page.previousEpochs.length >= 10 && page.previousEpochs.length < 20);
  assertEquals(page.previousEpochs.map(({ seq }) => seq), numbers(31 - page.previousEpochs.length, 30));
  for (const { epoch } of page.previousEpochs) assert(epochs.has(epoch), `There was no ${epoch}`);
  // No piece of one is left where the list was cut.
  const kept = String(await redis.cli("HGET", "userwire:{alice}:position", "former"));
  assertEquals(kept.split(",").length - 1, page.previousEpochs.length, kept);
});

test("begins a new epoch on what another server's first timeline wrote, and none on a later one's", async (t) => {
  const { redis, ours } = t;
  const first = await sendMany(ours.history, 2);
  const position = "userwire:{alice}:position";
  assertEquals(String(await redis.cli("HGET", position, "timeline")).slice(0, 2), "1.");
  await redis.cli("HSET", position, "timeline", "1.another");
  const next = await ours.history.since("alice", 0, 10);
  assertNotEquals(next.epoch, first.epoch);
  assertEquals([next.previousEpochs, seqsOf(next)], [[first], [1, 2]]);
  // It comes from a node that has heard of a timeline of which this one has not yet.
  await redis.cli("HSET", position, "timeline", "7.later");
  assertEquals(placeOf(await ours.history.append("alice", outgoing("m"))), { epoch: next.epoch, seq: 3 });
  assertEquals(await redis.cli("HGET", position, "timeline"), "7.later");
});

test("names an epoch after the one it goes on from, for a timeline that ends before it is saved", async (t) => {
  const { redis, ours, theirs } = t;
  const first = await sendMany(ours.history, 5);
  assertEquals(originOf(first.epoch), undefined);
  await redis.cli("SAVE");
  const lives: Position[] = [];
  await sendMany(ours.history, 1);
  for (let life = 0; life < 2; life++) {
    await redis.stop({ signal: "SIGKILL" });
    await redis.restart({ keepData: true });
    await available(ours, theirs);
    lives.push(await sendMany(ours.history, 1));
  }
  // The second knows nothing of the first; both say where they come from.
  assertEquals((await ours.history.since("alice", 0, 10)).previousEpochs, [{ epoch: first.epoch, seq: 5 }]);
  for (const { epoch, seq } of lives) {
    assertEquals([originOf(epoch), seq], [{ epoch: ownNameOf(first.epoch), seq: 5 }, 6]);
    assertEquals(parsePosition(`${epoch}.${seq}`), { epoch, seq });
  }
  assertNotEquals(ownNameOf(lives[0]!.epoch), ownNameOf(lives[1]!.epoch));
});

test("takes up what was written before there were timelines, by the same run of Redis only", async (t) => {
  const { redis, ours } = t;
  const first = await sendMany(ours.history, 2);
  const run = /run_id:(\w+)/.exec(String(await redis.cli("INFO", "server")))![1]!;
  const position = "userwire:{alice}:position";
  await redis.cli("HDEL", position, "timeline", "tag");
  await redis.cli("HSET", position, "run", `${run}+`);
  const same = await ours.history.since("alice", 0, 10);
  assertEquals([same.epoch, same.previousEpochs, same.last], [first.epoch, [], 2]);
  await redis.cli("HDEL", position, "timeline");
  await redis.cli("HSET", position, "run", "another");
  const other = await ours.history.since("alice", 0, 10);
  assertNotEquals(other.epoch, first.epoch);
  assertEquals([other.previousEpochs, other.last], [[{ epoch: first.epoch, seq: 2 }], 2]);
});

test("goes on in the same epoch when Redis restarts with an append-only file", async (t) => {
  const { redis, ours, theirs } = t;
  const old = await sendMany(ours.history, 3);
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await redis.restart({ keepData: true, signal });
    await available(ours, theirs);
  }
  const page = await ours.history.since("alice", 1, 10);
  assertEquals([page.epoch, page.previousEpochs, seqsOf(page)], [old.epoch, [], [2, 3]]);
  assertEquals(placeOf(await ours.history.append("alice", outgoing("m"))), { ...old, seq: 4 });
}, { args: ["--appendonly", "yes"] });

test("has one epoch whatever nodes come, and whether or not there is an append-only file", async (t) => {
  const { redis, ours } = t;
  await sendMany(ours.history, 1);
  await redis.cli("CONFIG", "SET", "appendonly", "yes");
  const late = await openOn(redis);
  try {
    const epochs = new Set<string>();
    for (let i = 0; i < 4; i++) {
      for (const { history } of [ours, late]) epochs.add((await sendMany(history, 1)).epoch);
    }
    assertEquals(epochs.size, 1);
    assertEquals((await late.history.since("alice", 0, 100)).last, 9);
  } finally {
    await late.close();
  }
});

for (const appendonly of ["no", "yes"]) {
  test(
    `begins a new epoch on a replica that took over, with an append-only file: ${appendonly}`,
    async ({ redis: primary, ours }) => {
      await using replica = await RedisServer.start({
        args: ["--appendonly", appendonly, "--replicaof", "127.0.0.1", `${primary.port}`],
      });
      const old = await sendMany(ours.history, 3);
      const seqOn = (redis: RedisServer) => redis.cli("HGET", "userwire:{alice}:position", "seq");
      await until(async () => await seqOn(replica) === "3", "the replica to have what was sent");
      await replica.cli("REPLICAOF", "NO", "ONE");
      // What the primary still takes never reaches the replica: its numbers will be given out again.
      await sendMany(ours.history, 2);
      const next = await openOn(replica);
      try {
        const page = await next.history.since("alice", 2, 10);
        assertNotEquals(page.epoch, old.epoch);
        assertEquals([page.previousEpochs, page.last], [[{ epoch: old.epoch, seq: 3 }], 3]);
        assertEquals(seqsOf(page), [3]);
      } finally {
        await next.close();
      }
    },
    { args: ["--appendonly", appendonly] },
  );
}

test("publishes in the order it stores, seen from two subscriptions of two nodes", async (t) => {
  const recorders = [new Recorder(), new Recorder()];
  await t.ours.broker.subscribe("alice", recorders[0]!);
  await t.theirs.broker.subscribe("alice", recorders[1]!);
  await Promise.all(
    numbers(1, 100).flatMap((n) => [
      t.ours.history.append("alice", outgoing(`ours ${n}`)),
      t.theirs.history.append("alice", outgoing(`theirs ${n}`)),
    ]),
  );
  await Promise.all(recorders.map((recorder) => recorder.received(200)));
  const envelopes = (await t.ours.history.since("alice", 100, 100)).items.map(({ envelope }) => envelope);
  assertEquals(recorders.map(({ payloads }) => payloads.slice(100)), [envelopes, envelopes]);
});

test("sets the ends of keys now and then, never too early for what they hold", async ({ redis, ours }) => {
  const history = "userwire:{alice}:inbox", position = "userwire:{alice}:position";
  const ends = () =>
    Promise.all([history, position].map((key) => redis.cli("PEXPIRETIME", key) as Promise<number>));
  const append = (ttlMs?: number) =>
    ours.history.append("alice", outgoing("m"), ttlMs === undefined ? {} : { ttlMs });
  await append();
  const first = await ends();
  await append();
  await append(1_000);
  assertEquals(await ends(), first);
  // As if the slack had passed.
  await redis.cli("PEXPIRE", history, 59_000);
  await redis.cli("HSET", position, "ends", Math.floor(await timeOf(redis)) + 59_000);
  await append();
  const second = await ends();
  assert(second.every((end, i) => end >= first[i]!), `${second} is before ${first}`);
  await append(7 * DAY_MS);
  const third = await ends();
  assert(third[0]! >= first[0]! + 6 * DAY_MS && third[1]! >= third[0]! + DAY_MS, `${third}`);
  await append();
  assertEquals(await ends(), third);
  // A stream that is written anew, as its numbers were ahead of the counter, has an end again.
  await redis.cli("HSET", position, "seq", 1, "tag", "");
  await append();
  assert(Number(await redis.cli("PTTL", history)) > 6 * DAY_MS);
});

test("gives keys an end that took the place of some that were lost", async ({ redis, ours }) => {
  const keys = ["userwire:{alice}:inbox", "userwire:{alice}:position"] as const;
  const lives = () => Promise.all(keys.map((key) => redis.cli("PTTL", key) as Promise<number>));
  const append = () => ours.history.append("alice", outgoing("m"));
  for (const lost of [[keys[0]], [keys[1]], keys]) {
    await append();
    await redis.cli("DEL", ...lost);
    const { seq } = placeOf(await append());
    assert((await lives()).every((ms) => ms > 50_000), `${lost} lost: they end in ${await lives()} ms`);
    assertEquals(seqsOf(await ours.history.since("alice", 0, 10)), [seq]);
  }
  // Written before a position said when its history ends.
  await redis.cli("HDEL", keys[1], "ends");
  await redis.cli("PEXPIRE", keys[0], 30_000);
  await append();
  assert((await lives()).every((ms) => ms > 50_000), `they end in ${await lives()} ms`);
});

test("holds little more than it shows", async ({ redis, ours }) => {
  for (let n = 0; n < 2_000; n += 250) {
    await Promise.all(numbers(1, 250).map(() => ours.history.append("alice", outgoing("m"))));
  }
  const length = Number(await redis.cli("XLEN", "userwire:{alice}:inbox"));
  // 100 and one, what lies with the oldest in one part, and 16 times the mean of what comes before it is cut.
  assert(length >= 101 && length <= 101 + 100 + 128, `${length} entries`);
  assertEquals((await ours.history.since("alice", 0, 300)).items.length, 100);
});
