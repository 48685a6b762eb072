/**
 * The merge of live messages and stored ones. First against a world in which fast-check says what happens next
 * (`support/replay_model.ts` has it, and what must hold); then the hard cases by name.
 *
 * A failure is shrunk and prints its seed; TEST_SEED=<seed> plays it again, TEST_RUNS sets how many runs there are.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "../packages/fast_check.ts";
import type { GapFrame } from "../../src/protocol/frames.ts";
import type { Position } from "../../src/protocol/position.ts";
import { Replay } from "../../src/session/replay.ts";
import { World, type WorldOptions } from "../../testkit/replay_model.ts";

const seed = Deno.env.get("TEST_SEED");
const PARAMETERS: fc.Parameters<unknown> = {
  numRuns: Number(Deno.env.get("TEST_RUNS") ?? 1_500),
  ...(seed !== undefined && { seed: Number(seed) }),
};

/** Something that happens in the world. */
type Step = readonly [what: string, happens: (world: World) => void | Promise<void>];

function step(what: string, happens: Step[1]): Step {
  return [what, happens];
}

const few = fc.integer({ min: 1, max: 5 });
/** More than wait at one time. */
const many = fc.integer({ min: 60, max: 90 });

const storing: fc.WeightedArbitrary<Step>[] = [
  { weight: 8, arbitrary: few.map((n) => step(`send ${n}`, (world) => world.send(n))) },
  { weight: 1, arbitrary: many.map((n) => step(`send ${n}`, (world) => world.send(n))) },
  { weight: 2, arbitrary: fc.nat(30).map((n) => step(`expire ${n}`, (world) => world.expire(n))) },
  { weight: 1, arbitrary: fc.constant(step("flush", (world) => world.flush())) },
  { weight: 1, arbitrary: fc.nat(5).map((n) => step(`roll back ${n}`, (world) => world.rollBack(n))) },
];

/** A store that is lost in the few milliseconds of a handshake shows at the next ping only. */
const growing = storing.slice(0, 3);

const travelling: fc.WeightedArbitrary<Step>[] = [
  { weight: 5, arbitrary: few.map((n) => step(`hear ${n}`, (world) => world.hear(n))) },
  { weight: 2, arbitrary: fc.constant(step("hear all", (world) => world.hear(Infinity))) },
  { weight: 2, arbitrary: fc.constant(step("drop", (world) => world.drop())) },
  { weight: 2, arbitrary: fc.constant(step("lose", (world) => world.lose())) },
  { weight: 3, arbitrary: fc.constant(step("restore", (world) => world.restore())) },
  { weight: 6, arbitrary: fc.constant(step("carry out", (world) => world.carryOut())) },
  { weight: 6, arbitrary: fc.constant(step("answer", (world) => world.answer())) },
];

const living: fc.WeightedArbitrary<Step>[] = [
  { weight: 1, arbitrary: fc.constant(step("fail", (world) => world.fail())) },
  { weight: 2, arbitrary: fc.constant(step("verify", (world) => world.replay.verify())) },
  { weight: 2, arbitrary: fc.constant(step("resume", (world) => world.replay.resume())) },
  { weight: 2, arbitrary: fc.constant(step("full", (world) => void (world.hasRoom = false))) },
  { weight: 2, arbitrary: fc.constant(step("room", (world) => world.makeRoom())) },
];

const happening = fc.oneof(...storing, ...travelling, ...living);

/** A whole life: what was before, how the client connects, and what happens then. */
const life = fc.record({
  keep: fc.constantFrom(1, 3, 10, 100, 200),
  maxReplay: fc.constantFrom(1, 5, 1_000),
  tagged: fc.boolean(),
  before: fc.array(fc.oneof(...storing), { maxLength: 12 }),
  /** Undefined: a new client. Else it was there in this epoch, and left after so many of its messages. */
  past: fc.option(fc.record({ epoch: fc.nat(5), seq: fc.nat(120) }), { nil: undefined }),
  early: fc.array(fc.oneof(...growing), { maxLength: 4 }),
  meanwhile: fc.array(fc.oneof(...storing, ...travelling), { maxLength: 12 }),
  after: fc.array(happening, { maxLength: 50 }),
});

type Life = typeof life extends fc.Arbitrary<infer L> ? L : never;

async function live(world: World, { before, past, early, meanwhile, after }: Life): Promise<void> {
  const play = async (steps: readonly Step[]) => {
    for (const [, happens] of steps) {
      await happens(world);
      world.check();
    }
  };
  await play(before);
  const wanted = past && world.placeOf(past.epoch, past.seq);
  await world.open({
    ...(wanted && { wanted }),
    early: () => play(early),
    meanwhile: () => play(meanwhile),
  });
  await play(after);
}

function property(claim: string, body: (life: Life, at: number) => Promise<void>): void {
  Deno.test(`Replay ${claim}`, async () => {
    const any = fc.tuple(life, fc.nat(40));
    await fc.assert(
      fc.asyncProperty(any, ([life, at]) => body(life, at)),
      PARAMETERS as fc.Parameters<[[Life, number]]>,
    );
  });
}

property("hands over each message once, in order, or states exactly what is missing", async (life) => {
  const world = new World(life);
  await live(world, life);
  await world.finish();
});

property("delivers nothing more once it was stopped, at any moment", async (life, at) => {
  const world = new World(life);
  const { after } = life;
  const steps = [...after.slice(0, at), step("stop", (world) => world.stop()), ...after.slice(at)];
  await live(world, { ...life, after: steps });
  await world.leave();
  world.check();
});

property("delivers nothing more once it was stopped, from within a delivery", async (life, at) => {
  const world = new World({ ...life, stopAfter: at + 1 });
  await live(world, life);
  await world.leave();
  world.check();
});

// ---------------------------------------------------------------------------------------------------------
// The hard cases by name

function names(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => `m${first + i}`);
}

function trimmed(from: number, to: number, epoch = "e1"): GapFrame {
  return { t: "gap", from, to, count: to - from + 1, why: "trimmed", pos: `${epoch}.${to}` };
}

async function opened(options: WorldOptions & { sent?: number; wanted?: Position } = {}): Promise<World> {
  const world = new World(options);
  world.send(options.sent ?? 0);
  await world.open(options.wanted ? { wanted: options.wanted } : {});
  await world.rest();
  return world;
}

Deno.test("Replay starts a new client where the history stands, and delivers what its subscription got", async () => {
  const world = new World();
  world.send(3);
  await world.open({
    meanwhile() {
      world.send(2);
      world.hear(1);
      return Promise.resolve();
    },
  });
  assertEquals(world.start, { pos: "e1.3", resumed: false, replay: 0 });
  await world.rest();
  assertEquals([world.log, world.replayed, world.readCount], [["m4", "m5"], ["m5"], 2]);
  world.hear(1);
  await world.finish();
});

Deno.test("Replay owes a new client nothing from before the first message its subscription got", async () => {
  const world = new World({ keep: 2 });
  world.send(3);
  await world.open({
    early: () => Promise.resolve(world.send(5)),
    meanwhile() {
      world.send(2);
      world.hear(1);
      return Promise.resolve();
    },
  });
  assertEquals(world.start, { pos: "e1.8", resumed: false, replay: 0 });
  world.hear(1);
  await world.rest();
  assertEquals(world.log, ["m9", "m10"]);
  await world.finish();
});

Deno.test("Replay resumes after the last message the client had, in batches", async () => {
  const world = await opened({ sent: 400, keep: 400, wanted: { epoch: "e1", seq: 20 } });
  assertEquals(world.start, { pos: "e1.20", resumed: true, replay: 380 });
  assertEquals(world.log, names(21, 400));
  assertEquals(world.readCount, 4);
  await world.finish();
});

Deno.test("Replay states what has left, and replays the rest", async () => {
  const world = new World({ keep: 5 });
  world.send(12);
  world.expire(1); // m9
  world.expire(3); // m12
  await world.open({ wanted: { epoch: "e1", seq: 2 } });
  await world.rest();
  assertEquals(world.log, [trimmed(3, 7), "m8", trimmed(9, 9), "m10", "m11", trimmed(12, 12)]);
  await world.finish();
});

Deno.test("Replay replays no more than its limit on a resume, and states the rest", async () => {
  const world = await opened({ sent: 200, keep: 200, maxReplay: 30, wanted: { epoch: "e1", seq: 0 } });
  assertEquals(world.start, { pos: "e1.0", resumed: true, replay: 30 });
  assertEquals(world.log, [trimmed(1, 170), ...names(171, 200)]);
  await world.finish();
});

Deno.test("Replay keeps to its limit when the epoch is another than the client's", async () => {
  const world = new World({ maxReplay: 3 });
  world.send(5);
  world.flush();
  world.send(10);
  await world.open({ wanted: { epoch: "e1", seq: 4 } });
  await world.rest();
  assertEquals(world.start, { pos: "e2.0", resumed: false, replay: 3 });
  const gap: GapFrame = { t: "gap", from: 5, to: null, count: null, why: "epoch", pos: "e2.0" };
  assertEquals(world.log, [gap, trimmed(1, 7, "e2"), "m13", "m14", "m15"]);
  await world.finish();
});

Deno.test("Replay goes on with an epoch that came from the client's, from where both agree", async () => {
  const world = new World();
  world.send(7);
  world.rollBack(2);
  world.send(2);
  await world.open({ wanted: { epoch: "e1", seq: 3 } });
  await world.rest();
  const gap: GapFrame = { t: "gap", from: 4, to: null, count: null, why: "epoch", pos: "e2.3" };
  assertEquals([world.start!.pos, world.start!.resumed], ["e2.3", false]);
  assertEquals(world.log, [gap, "m4", "m5", "m8", "m9"]);
  await world.finish();
});

Deno.test("Replay trusts no number of an epoch in which the client's was given out again", async () => {
  // The epoch began when up to 11 were there, and by then 9 was another message than the client's.
  const previousEpochs = [{ epoch: "e1", seq: 11 }];
  for (const [tag, pos] of [["mine", "e2.9"], ["other", "e2.0"], ["", "e2.9"]] as const) {
    const since = () =>
      Promise.resolve({
        epoch: "e2",
        previousEpochs,
        last: 11,
        items: [],
        upTo: 11,
        lastTag: "last",
        afterTag: tag,
      });
    const history = {
      limits: { count: 1, ttlMs: 1 },
      append: since as never,
      appendToAll: since as never,
      openRun: since as never,
      appendPage: since as never,
      leaveRun: since as never,
      claim: since as never,
      release: since as never,
      since,
      close: async () => {},
    };
    const host = { deliver: () => true, gap() {}, onForeign() {}, onReadFailed() {} };
    const replay = new Replay(history, host, { channel: "alice", maxReplay: 100 });
    await replay.load({ epoch: "e1", seq: 9, tag: "mine" });
    assertEquals(replay.greeting().pos, pos, `The history has "${tag}"`);
    replay.stop();
  }
});

Deno.test("Replay takes nobody at his word who is ahead of the counter", async () => {
  const world = await opened({ sent: 5, wanted: { epoch: "e1", seq: 9 } });
  const gap: GapFrame = { t: "gap", from: 10, to: null, count: null, why: "epoch", pos: "e1.5" };
  assertEquals([world.start, world.log], [{ pos: "e1.5", resumed: false, replay: 0 }, [gap]]);
  world.send();
  world.hear(1);
  assertEquals(world.log, [gap, "m6"]);
});

Deno.test("Replay passes over live messages that come after the read that had them, without another read", async () => {
  const world = await opened({ wanted: { epoch: "e1", seq: 0 } });
  world.lose();
  world.send(2);
  world.restore();
  world.send(5);
  await world.rest();
  const { readCount } = world;
  for (let i = 0; i < 5; i++) {
    world.hear(1);
    world.send();
  }
  world.hear(Infinity);
  assertEquals([world.log, world.readCount], [names(1, 12), readCount]);
  await world.finish();
});

Deno.test("Replay reads again when more come during a read than it keeps waiting", async () => {
  const world = await opened({ sent: 1 });
  world.replay.verify();
  world.carryOut();
  world.send(90);
  world.hear(Infinity);
  await world.answer();
  assert(!world.replay.isLive);
  await world.rest();
  assert(world.replay.isLive);
  assertEquals([world.log, world.readCount], [names(2, 91), 4]);
  await world.finish();
});

for (const [rate, allowed] of [[3, 2], [60, 3], [100, 200]] as const) {
  Deno.test(`Replay comes to rest, or keeps up, while ${rate} messages come during each read`, async () => {
    const world = await opened({ sent: 1, keep: 1_000 });
    const { readCount } = world;
    world.send(2);
    world.drop();
    for (let round = 0; round < 100; round++) {
      // Half of them arrive before the answer, half after it although it has them already.
      world.send(rate);
      world.carryOut();
      world.hear(Math.ceil(world.onAir / 2));
      await world.answer();
      assert(world.position.seq - world.replay.position.seq <= 3 * rate + 128, "It falls behind");
    }
    assert(world.readCount - readCount <= allowed, `It read ${world.readCount - readCount} times`);
    await world.finish();
  });
}

Deno.test("Replay delivers the first message of an epoch once, although it looks like the next of the last", async () => {
  const world = await opened();
  world.flush();
  world.send();
  world.hear(1);
  await world.rest();
  assertEquals(world.log, [{ t: "gap", from: 1, to: null, count: null, why: "epoch", pos: "e2.0" }, "m1"]);
  await world.finish();
});

Deno.test("Replay finds a counter that was set back within its epoch, and says so", async () => {
  const world = await opened({ sent: 10 });
  world.send();
  world.hear(1);
  world.setBack(4);
  world.restore();
  await world.rest();
  const gap: GapFrame = { t: "gap", from: 12, to: null, count: null, why: "epoch", pos: "e1.7" };
  assertEquals(world.log, ["m11", gap]);
  world.send(3);
  world.hear(Infinity);
  await world.rest();
  assertEquals(world.log.slice(2), ["m12", "m13", "m14"]);
  await world.finish();
});

Deno.test("Replay marks as replayed only what did not come live", async () => {
  const world = await opened();
  world.send();
  world.hear(1);
  await world.rest();
  world.send(4);
  world.drop();
  world.drop();
  world.hear(1);
  world.carryOut();
  world.hear(1);
  world.send();
  world.hear(1);
  await world.rest();
  assertEquals([world.log, world.replayed], [names(1, 6), ["m2", "m3"]]);
  await world.finish();
});

Deno.test("Replay doubts a number that is not higher than the one before", async () => {
  const world = await opened({ sent: 10 });
  world.send();
  world.hear(1);
  const { readCount } = world;
  world.replay.live(11, "again", 1);
  assertEquals([world.readCount, world.replay.isLive], [readCount + 1, false]);
  await world.finish();
});

Deno.test("Replay leaves live messages to the history while the client is full, and holds none of them", async () => {
  const world = await opened();
  world.send(1);
  world.hear(1);
  await world.rest();
  world.hasRoom = false;
  const { readCount } = world;
  for (let i = 0; i < 50; i++) {
    world.send();
    world.hear(1);
  }
  assertEquals([world.replay.isFull, world.readCount, world.log], [true, readCount, ["m1"]]);
  await world.makeRoom();
  await world.rest();
  assertEquals(world.log, names(1, 51));
  await world.finish();
});

Deno.test("Replay reads no more at one time than the client takes", async () => {
  const world = await opened({ sent: 500, keep: 500, wanted: { epoch: "e1", seq: 0 }, room: 10 });
  for (let rounds = 0; world.log.length < 400; rounds++) {
    assert(rounds < 50, "It takes too many rounds");
    await world.makeRoom();
    await world.rest();
  }
  assert(world.readMessages < 1_000, `It read ${world.readMessages} messages`);
  await world.finish();
});

Deno.test("Replay tries again when it is told to after a read that failed", async () => {
  const world = await opened();
  world.lose();
  world.send(2);
  world.restore();
  await world.fail();
  assertEquals([world.replay.hasFailed, world.log], [true, []]);
  world.send();
  world.hear(1);
  world.replay.resume();
  await world.rest();
  assertEquals(world.log, ["m1", "m2", "m3"]);
  await world.finish();
});
