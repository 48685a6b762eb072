/**
 * Where a client stands that comes with a position of another epoch: what it has counts up to where both epochs have the
 * same messages, and not one further; where nobody knows, nothing does.
 */
import { assertEquals } from "@std/assert";
import type { History, Page } from "../../src/history/history.ts";
import type { Position } from "../../src/protocol/position.ts";
import { Replay, type ReplayGreeting } from "../../src/session/replay.ts";
import { World } from "../../testkit/replay_model.ts";

/** Names as a history gives them: eight characters; then, of an epoch that goes on from another, the other's and a number. */
const A = "aaaaaaaa";
const B = `bbbbbbbb${A}5`;
/** It goes on from B. */
const C = "ccccccccbbbbbbbb8";
/** Lost before they were saved: no history tells of them. */
const LOST = `xxxxxxxx${A}5`;
const LOST_OF_B = "yyyyyyyybbbbbbbb8";

/** What the history says: its epoch and those before it, its newest number, and the tag at the client's. */
type Known = Partial<Pick<Page, "previousEpochs" | "last" | "afterTag">> & Pick<Page, "epoch">;

async function startOf(wanted: Position, known: Known): Promise<ReplayGreeting> {
  const { last = 20, previousEpochs = [], afterTag = "", epoch } = known;
  const page = { epoch, previousEpochs, last, items: [], upTo: last, lastTag: "", afterTag };
  const history = { since: () => Promise.resolve(page) } as unknown as History;
  const output = { deliver: () => true, gap() {}, onForeign() {}, onReadFailed() {} };
  const replay = new Replay(history, output, { channel: "alice", maxReplay: 100 });
  await replay.load(wanted);
  const start = replay.greeting();
  replay.stop();
  return start;
}

type Case = readonly [wanted: Position, known: Known, seq: number];

/** @param cases Each with the number after which the client stands. */
function test(claim: string, cases: readonly Case[]): void {
  Deno.test(`Replay ${claim}`, async () => {
    for (const [wanted, known, seq] of cases) {
      const what = `${Deno.inspect(wanted)} in ${Deno.inspect(known)}`;
      const { pos, resumed } = await startOf(wanted, known);
      assertEquals([pos, resumed], [`${known.epoch}.${seq}`, false], what);
    }
  });
}

const fromA = { epoch: B, previousEpochs: [{ epoch: A, seq: 5 }] };
const fromAAndB = { epoch: C, previousEpochs: [{ epoch: A, seq: 5 }, { epoch: B, seq: 8 }] };

test("counts what a client has of a former epoch, up to where that holds", [
  [{ epoch: A, seq: 0 }, fromA, 0],
  [{ epoch: A, seq: 4 }, fromA, 4],
  [{ epoch: A, seq: 5 }, fromA, 5],
  [{ epoch: A, seq: 6 }, fromA, 5],
  [{ epoch: A, seq: 9 }, fromAAndB, 5],
  [{ epoch: B, seq: 7 }, fromAAndB, 7],
  [{ epoch: B, seq: 9 }, fromAAndB, 8],
]);

test("counts no more of a former epoch than each one since has kept", [
  [{ epoch: A, seq: 9 }, { epoch: C, previousEpochs: [{ epoch: A, seq: 9 }, { epoch: B, seq: 6 }] }, 6],
  [{ epoch: B, seq: 9 }, { epoch: C, previousEpochs: [{ epoch: A, seq: 3 }, { epoch: B, seq: 8 }] }, 8],
]);

test("counts of an epoch that was lost before it was saved what that had from another, and no more", [
  // The history goes on from the same one, and knew more of it when it began.
  [{ epoch: LOST, seq: 4 }, { epoch: B, previousEpochs: [{ epoch: A, seq: 7 }] }, 4],
  [{ epoch: LOST, seq: 5 }, { epoch: B, previousEpochs: [{ epoch: A, seq: 7 }] }, 5],
  [{ epoch: LOST, seq: 6 }, { epoch: B, previousEpochs: [{ epoch: A, seq: 7 }] }, 5],
  [{ epoch: LOST, seq: 9 }, { epoch: B, previousEpochs: [{ epoch: A, seq: 7 }] }, 5],
  // Or less.
  [{ epoch: LOST, seq: 9 }, { epoch: B, previousEpochs: [{ epoch: A, seq: 3 }] }, 3],
  [{ epoch: LOST, seq: 9 }, { epoch: C, previousEpochs: [{ epoch: A, seq: 9 }, { epoch: B, seq: 2 }] }, 2],
]);

test("counts the same where the other epoch goes on itself", [
  [{ epoch: LOST, seq: 4 }, { epoch: A }, 4],
  [{ epoch: LOST, seq: 9 }, { epoch: A }, 5],
  [{ epoch: LOST, seq: 9 }, { epoch: A, last: 3 }, 3],
  [{ epoch: LOST_OF_B, seq: 9 }, { ...fromA, last: 12 }, 8],
]);

test("knows an epoch by its own name, whatever that goes on from", [
  [
    { epoch: LOST_OF_B, seq: 9 },
    { epoch: C, previousEpochs: [{ epoch: A, seq: 5 }, { epoch: B, seq: 12 }] },
    8,
  ],
  [{ epoch: LOST_OF_B, seq: 7 }, { epoch: C, previousEpochs: [{ epoch: B, seq: 12 }] }, 7],
]);

test("counts nothing of an epoch of which nobody knows where it came from", [
  [{ epoch: "zzzzzzzz", seq: 3 }, fromAAndB, 0],
  [{ epoch: "nobody", seq: 3 }, fromAAndB, 0],
  [{ epoch: "zzzzzzzzqqqqqqqq5", seq: 3 }, fromAAndB, 0],
  // Its end is no number.
  [{ epoch: `xxxxxxxx${A}5x`, seq: 3 }, fromA, 0],
]);

test("goes by the tag at the client's number, where there is one", [
  [{ epoch: "zzzzzzzz", seq: 7, tag: "mine" }, { ...fromA, afterTag: "mine" }, 7],
  [{ epoch: A, seq: 9, tag: "mine" }, { ...fromA, afterTag: "mine" }, 9],
  [{ epoch: A, seq: 4, tag: "mine" }, { ...fromA, afterTag: "other" }, 0],
  // It is about another number than that up to which the epoch holds.
  [{ epoch: A, seq: 9, tag: "mine" }, { ...fromA, afterTag: "other" }, 5],
  [{ epoch: LOST, seq: 9, tag: "mine" }, { ...fromA, afterTag: "other" }, 5],
  [{ epoch: LOST, seq: 4, tag: "mine" }, { ...fromA, afterTag: "" }, 4],
  [{ epoch: LOST, seq: 4, tag: "mine" }, { ...fromA, afterTag: "other" }, 0],
  [{ epoch: LOST, seq: 4, tag: "mine" }, { epoch: A, afterTag: "other" }, 0],
]);

test("takes back what a client has of the same epoch when its number was given out again, or is ahead", [
  [{ epoch: A, seq: 7, tag: "mine" }, { epoch: A, afterTag: "other" }, 0],
  [{ epoch: A, seq: 30, tag: "mine" }, { epoch: A }, 0],
  [{ epoch: A, seq: 30 }, { epoch: A }, 20],
]);

Deno.test("Replay proves its start by the history's tag, or else by the client's own where that was taken up", async () => {
  const mine = { epoch: A, seq: 4, tag: "mine" };
  assertEquals((await startOf(mine, { epoch: A })).tag, "mine");
  assertEquals((await startOf(mine, { epoch: A, afterTag: "mine" })).tag, "mine");
  assertEquals((await startOf({ epoch: A, seq: 4 }, { epoch: A, afterTag: "theirs" })).tag, "theirs");
  assertEquals((await startOf({ epoch: A, seq: 4 }, { ...fromA, afterTag: "theirs" })).tag, "theirs");
  assertEquals((await startOf(mine, fromA)).tag, undefined);
  assertEquals((await startOf({ ...mine, seq: 9 }, { ...fromA, afterTag: "theirs" })).tag, undefined);
});

Deno.test("Replay tells a new client of an epoch that began while it connected", async () => {
  const world = new World({ tagged: true });
  world.send(3);
  await world.open({
    meanwhile() {
      world.flush();
      world.send(2);
      world.hear(Infinity);
      return Promise.resolve();
    },
  });
  await world.rest();
  assertEquals(world.start!.pos, "e001.3");
  const [gap, ...others] = world.log;
  assertEquals([typeof gap === "object" && gap.why, others], ["epoch", ["m4", "m5"]]);
  await world.finish();
});

Deno.test("Replay tells a new client of an epoch that goes on with the next number, too", async () => {
  const world = new World({ tagged: true });
  world.send(3);
  await world.open({
    early: () => Promise.resolve(world.rollBack(0)),
    meanwhile() {
      world.send(2);
      world.hear(Infinity);
      return Promise.resolve();
    },
  });
  await world.rest();
  assertEquals(world.start!.pos, "e001.3");
  const [gap, ...others] = world.log;
  assertEquals([typeof gap === "object" && gap.pos, others], ["e002.3", ["m4", "m5"]]);
  await world.finish();
});

Deno.test("Replay looks once for each epoch that it does not know, however many messages come of it", async () => {
  const world = new World({ tagged: true });
  world.send(2);
  await world.open();
  await world.rest();
  const { readCount } = world;
  for (const [n, epoch] of ["zzzz", "yyyy", "zzzz"].entries()) {
    for (let seq = 1; seq <= 10; seq++) {
      const frame = `{"t":"m","seq":${seq},"tag":"${epoch}0000","id":"x","ts":1,"data":0}`;
      world.replay.live(seq, `\u0001uw1j${frame}`, 1);
      await world.rest();
    }
    assertEquals([world.readCount - readCount, world.foreigners], [n + 1, n + 1]);
  }
  world.send();
  world.hear(1);
  assertEquals([world.log, world.readCount - readCount], [["m3"], 3]);
  await world.finish();
});

Deno.test("Replay takes a message for heard only when it is the one that was", async () => {
  for (const [heard, byteLength] of [["new", 7], ["old", undefined]] as const) {
    const items = [{ seq: 5, envelope: "new" }];
    const page = { epoch: A, previousEpochs: [], last: 5, items, upTo: 5, lastTag: "", afterTag: "" };
    const history = { since: () => Promise.resolve(page) } as unknown as History;
    const delivered: unknown[] = [];
    const deliver = (...args: unknown[]) => delivered.push(args) > 0;
    const output = { deliver, gap() {}, onForeign() {}, onReadFailed() {} };
    const replay = new Replay(history, output, { channel: "alice", maxReplay: 100 });
    await replay.load({ epoch: A, seq: 4 });
    replay.live(5, heard, 7);
    replay.greeting();
    replay.run();
    assertEquals([delivered, replay.isLive], [[["new", byteLength]], true]);
    replay.stop();
  }
});
