/** Where a client goes on after a break, and what it makes of what is missing or comes twice. */
import type { Case } from "../case.ts";
import type { Stage } from "../stage.ts";

const SECTION = "keeping-the-position";
const FROM_SERVER = "from-the-server";

type Fields = Record<string, unknown>;

interface Received {
  readonly name: string;
  readonly rule: string;
  readonly frames: readonly Fields[];
  /** What the program writes of them. */
  readonly lines: readonly Fields[];
  readonly position: string;
}

const GAP = { t: "gap", from: 2, to: 4, count: 3, why: "trimmed", pos: "e.4" };

/** What a client has received, and from where it then resumes. */
const RESUMED: readonly Received[] = [
  {
    name: "resume-from-message",
    rule: "resumes from the last message, with its tag",
    frames: [message(1), message(2, "b-b_bbbb")],
    lines: [{ seq: 1, data: 1 }, { seq: 2, data: 2 }],
    position: "e.2.b-b_bbbb",
  },
  {
    name: "resume-without-tag",
    rule: "leaves the tag out when the last message had none",
    frames: [message(1, "aaaaaaaa"), message(2)],
    lines: [{ seq: 1, data: 1 }, { seq: 2, data: 2 }],
    position: "e.2",
  },
  {
    name: "hole",
    rule: "hands over a message whose number is not the next one, and goes on from there",
    frames: [message(1, "aaaaaaaa"), message(5, "bbbbbbbb")],
    lines: [{ seq: 1, data: 1 }, { seq: 5, data: 5 }],
    position: "e.5.bbbbbbbb",
  },
  {
    name: "resume-past-no-number",
    rule: "stays where it is when a message has no number",
    frames: [message(1, "aaaaaaaa"), { t: "m", ts: 1, data: "published" }],
    lines: [{ seq: 1, data: 1 }, { data: "published" }],
    position: "e.1.aaaaaaaa",
  },
  {
    name: "resume-after-gap",
    rule: "resumes from gap.pos with gap.tag after a gap",
    frames: [message(1, "aaaaaaaa"), { ...GAP, tag: "bbbbbbbb" }],
    lines: [{ seq: 1, data: 1 }, { gap: "trimmed", from: 2, to: 4, count: 3 }],
    position: "e.4.bbbbbbbb",
  },
  {
    name: "resume-after-gap-without-tag",
    rule: "has no tag after a gap that has none",
    frames: [message(1, "aaaaaaaa"), GAP],
    lines: [{ seq: 1, data: 1 }, { gap: "trimmed", from: 2, to: 4, count: 3 }],
    position: "e.4",
  },
];

export const POSITIONS: readonly Case[] = [
  {
    name: "resume-from-hi",
    rule: "resumes from hi.pos with hi.tag, also when nothing was received",
    section: SECTION,
    async play(stage) {
      const peer = await stage.open({ pos: "Zk3vQ9aB.17", tag: "Zk3vx3Fq" });
      peer.bye(1012, "restart", 0);
      await resumesFrom(stage, "Zk3vQ9aB.17.Zk3vx3Fq");
    },
  },
  ...RESUMED.map(({ name, rule, frames, lines, position }): Case => ({
    name,
    rule,
    section: SECTION,
    async play(stage) {
      const peer = await stage.open();
      for (const frame of frames) peer.send(frame);
      await stage.wrote(...lines);
      peer.bye(1012, "restart", 0);
      await resumesFrom(stage, position);
    },
  })),
  {
    name: "resume-after-refusals",
    rule: "keeps its position over attempts that fail",
    section: SECTION,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1, { tag: "aaaaaaaa" });
      await stage.wrote({ seq: 1, data: 1 });
      peer.bye(1012, "restart", 0);
      (await stage.handshake()).refuse(503);
      const back = await resumesFrom(stage, "e.1.aaaaaaaa");
      back.accept();
      back.hi({ pos: "e.1", resumed: true });
      back.message(2);
      await stage.wrote({ seq: 1, data: 1 }, { seq: 2, data: 2 });
    },
  },
  {
    name: "resume-after-cut",
    rule: "comes back when the connection breaks within a frame, and resumes from the last whole one",
    section: SECTION,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1, { tag: "aaaaaaaa" });
      peer.sendHalf(JSON.stringify({ t: "m", seq: 2, id: "b", ts: 1, data: "half", tag: "bbbbbbbb" }));
      const back = await resumesFrom(stage, "e.1.aaaaaaaa");
      back.accept();
      back.hi({ pos: "e.1", resumed: true });
      back.message(2, { data: "whole", r: 1 });
      await stage.wrote({ seq: 1, data: 1 }, { seq: 2, data: "whole" });
    },
  },
  {
    name: "duplicates",
    rule: "drops a message whose number is not above its position",
    section: SECTION,
    async play(stage) {
      const peer = await stage.open({ pos: "e.5" });
      for (const seq of [5, 6, 6, 5, 1, 7]) peer.message(seq);
      await stage.wrote(...[6, 7].map((seq) => ({ seq, data: seq })));
      peer.bye(1012, "restart", 0);
      const back = await stage.reopen({ pos: "e.6", replay: 2 });
      for (const seq of [7, 8]) back.message(seq, { r: 1 });
      await stage.wrote(...[6, 7, 8].map((seq) => ({ seq, data: seq })));
    },
  },
  {
    name: "gap",
    rule: "tells the application of a gap, in its place between the messages",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1);
      peer.send({ t: "gap", from: 2, to: 4, count: 3, why: "trimmed", pos: "e.4" });
      peer.message(5);
      await stage.wrote(
        { seq: 1, data: 1 },
        { gap: "trimmed", from: 2, to: 4, count: 3 },
        { seq: 5, data: 5 },
      );
    },
  },
  {
    name: "epoch",
    rule: "tells of a lost history, and takes the numbers of the new epoch for new",
    section: FROM_SERVER,
    play: (stage) => newCount(stage, "f"),
  },
  {
    name: "epoch-again",
    rule: "starts at number 0 when the numbers of an epoch are given out a second time",
    section: FROM_SERVER,
    play: (stage) => newCount(stage, "e"),
  },
];

/** A history that was lost at number 9, in the middle of a connection. */
async function newCount(stage: Stage, epoch: string): Promise<void> {
  const peer = await stage.open({ pos: "e.8" });
  peer.message(9, { tag: "aaaaaaaa" });
  peer.send({ t: "gap", from: 10, to: null, count: null, why: "epoch", pos: `${epoch}.0` });
  peer.message(1, { tag: "bbbbbbbb" });
  await stage.wrote(
    { seq: 9, data: 9 },
    { gap: "epoch", from: 10, to: null, count: null },
    { seq: 1, data: 1 },
  );
  peer.bye(1012, "restart", 0);
  await resumesFrom(stage, `${epoch}.1.bbbbbbbb`);
}

async function resumesFrom(stage: Stage, position: string) {
  const peer = await stage.handshake();
  stage.expect(peer.resume === position, `it resumes from "${peer.resume}" in place of "${position}"`);
  return peer;
}

function message(seq: number, tag?: string): Fields {
  return { t: "m", seq, id: `id${seq}`, ts: 1, data: seq, ...(tag !== undefined && { tag }) };
}
