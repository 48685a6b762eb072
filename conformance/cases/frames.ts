/** What a client makes of the server's frames, and what it sends. */
import { Buffer } from "node:buffer";
import type { Case } from "../case.ts";

const FROM_SERVER = "from-the-server";
const FROM_CLIENT = "from-the-client";
const PAYLOADS = [
  ...[null, false, 0, -1.5e-7, 1e21, "", 'é😀\u2028\u0000\\"', [], {}],
  { t: "bye", seq: 7, nested: [[{ a: null }]], "": { é: 1 } },
];
/** As large as a service may be told to take. */
const BIG = "0123456789abcdé".repeat(70_000);
/** Within which whatever a client holds back comes, and how long an acknowledgement may take that it had sent before. */
const ACK_DELAY_MS = 2_000, ON_ITS_WAY_MS = 300;
/** What a service lets a client send in a second, if not told else. */
const MAX_FRAMES_PER_SECOND = 100;

export const FRAMES: readonly Case[] = [
  {
    name: "payloads",
    rule: "hands over every JSON value as it was sent",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      PAYLOADS.forEach((data, i) => peer.message(i + 1, { data }));
      await stage.wrote(...PAYLOADS.map((data, i) => ({ seq: i + 1, data })));
    },
  },
  {
    name: "bytes",
    rule: 'decodes base64 where "enc" says so, and only there',
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      const base64 = Buffer.from([0, 255, 254, 62, 63]).toString("base64");
      peer.message(1, { enc: "base64", data: base64 });
      peer.message(2, { enc: "base64", data: "" });
      peer.message(3, { data: base64 });
      await stage.wrote({ seq: 1, base64 }, { seq: 2, base64: "" }, { seq: 3, data: base64 });
    },
  },
  {
    name: "no-number",
    rule: "hands over messages without number or id",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1);
      peer.send({ t: "m", ts: 1, data: "published" });
      peer.message(2);
      await stage.wrote({ seq: 1, data: 1 }, { data: "published" }, { seq: 2, data: 2 });
    },
  },
  {
    name: "no-history",
    rule: "does without a position where the server keeps no history",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open({});
      peer.send({ t: "m", id: "a", ts: 1, data: "one" });
      await stage.wrote({ data: "one" });
      peer.bye(1012, "restart", 0);
      const { resume } = await stage.handshake();
      stage.expect(resume === null, `it resumes from "${resume}"`);
    },
  },
  {
    name: "replay",
    rule: "hands over what was read from the history like the rest",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open({ pos: "e.7", replay: 2 });
      peer.message(8, { r: 1 });
      peer.message(9, { r: 1 });
      peer.message(10);
      await stage.wrote({ seq: 8, data: 8 }, { seq: 9, data: 9 }, { seq: 10, data: 10 });
    },
  },
  {
    name: "unknown-frames",
    rule: "ignores types of frames that it does not know",
    section: "framed-sockets",
    async play(stage) {
      const peer = await stage.start();
      peer.accept();
      peer.send({ t: "soon", seq: 1 });
      peer.hi({ pos: "e.0" });
      peer.send({ t: "later", seq: 1, data: "not for this version" });
      peer.send({ t: "M", seq: 2, data: "nor this" });
      peer.message(1);
      await stage.wrote({ seq: 1, data: 1 });
    },
  },
  {
    name: "unknown-fields",
    rule: "ignores fields that it does not know",
    section: "framed-sockets",
    async play(stage) {
      const peer = await stage.open({ pos: "e.0", all: "f.3", x: { t: "bye" } });
      peer.message(1, { g: "team-7", x: [1] });
      peer.send({ t: "p", x: 1 });
      peer.send({ t: "gap", from: 2, to: 3, count: 2, why: "trimmed", pos: "e.3", x: 1 });
      await stage.wrote({ seq: 1, data: 1 }, { gap: "trimmed", from: 2, to: 3, count: 2 });
    },
  },
  {
    name: "unasked-answers",
    rule: "ignores answers to what it has not asked",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.send({ t: "re", id: "x", ok: true, data: 1 });
      peer.send({ t: "re", id: "y", ok: false, code: "busy", err: "Not now", retry_ms: 0 });
      peer.message(1);
      await stage.wrote({ seq: 1, data: 1 });
    },
  },
  {
    name: "signs-of-life",
    rule: "takes p for no message",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.send({ t: "p" });
      peer.message(1);
      peer.send('{"t":"p"}');
      peer.message(2);
      await stage.wrote({ seq: 1, data: 1 }, { seq: 2, data: 2 });
    },
  },
  {
    name: "late-hi",
    rule: "waits for hi, which may come after the handshake's answer",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.start();
      peer.accept();
      await stage.stays(1_000);
      peer.hi({ pos: "e.0" });
      peer.message(1);
      await stage.wrote({ seq: 1, data: 1 });
    },
  },
  {
    name: "fragments",
    rule: "puts a message together that comes in fragments, with a ping between them",
    section: "framed-sockets",
    async play(stage) {
      const peer = await stage.open();
      peer.sendInFragments(JSON.stringify({ t: "m", seq: 1, id: "a", ts: 1, data: "in äöü fragments 😀" }));
      await stage.wrote({ seq: 1, data: "in äöü fragments 😀" });
    },
  },
  {
    name: "big-frame",
    rule: "takes a message of a mebibyte",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1, { data: BIG });
      peer.message(2);
      await stage.wrote({ seq: 1, data: BIG }, { seq: 2, data: 2 });
    },
  },
  {
    name: "pongs",
    rule: "answers the WebSocket's own pings",
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open();
      peer.ping("are you there");
      await stage.until(() => peer.pongs.includes("are you there"), "to answer a ping");
    },
  },
  {
    name: "ack-at-once",
    rule: "acknowledges at once a message whose sender waits",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.message(1);
      peer.message(2, { ack: 1 });
      const acks = () => peer.frames.filter((frame) => (frame as { t?: unknown }).t === "ack");
      await stage.until(
        () => acks().some((frame) => (frame as { seq?: unknown }).seq === 2),
        "to acknowledge 2",
      );
    },
  },
  {
    name: "ack-the-last",
    rule: "acknowledges the last of many messages whose senders wait, soon after it came",
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open();
      for (let seq = 1; seq <= 100; seq++) peer.message(seq, { ack: 1 });
      const seqs = () => peer.frames.map((frame) => (frame as { seq?: number }).seq);
      await stage.until(() => seqs().includes(100), "to acknowledge 100");
    },
  },
  {
    name: "ack-what-it-has",
    rule: "acknowledges no number that it was not sent, and none of another epoch",
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open({ pos: "e.40" });
      peer.message(41, { ack: 1 });
      await stage.wrote({ seq: 41, data: 41 });
      peer.send({ t: "gap", from: 42, to: null, count: null, why: "epoch", pos: "f.0" });
      peer.message(1, { ack: 1 });
      const seqs = () => peer.frames.map((frame) => (frame as { seq?: number }).seq);
      await stage.until(() => seqs().includes(1), "to acknowledge 1 of the new epoch");
      stage.expect(seqs().every((seq) => seq === 41 || seq === 1), `it acknowledges ${seqs().join(", ")}`);
      stage.expect(!seqs().slice(seqs().indexOf(1)).includes(41), "it acknowledges 41 in the new epoch");
    },
  },
  {
    name: "ack-before-epoch",
    rule: "acknowledges nothing of an epoch once it has told of the next one",
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open({ pos: "e.40" });
      peer.message(41);
      peer.send({ t: "gap", from: 42, to: null, count: null, why: "epoch", pos: "f.0" });
      await stage.wrote({ seq: 41, data: 41 }, { gap: "epoch", from: 42, to: null, count: null });
      const toldAt = performance.now();
      await stage.stays(ACK_DELAY_MS);
      const late = peer.times.filter((at) => at > toldAt + ON_ITS_WAY_MS).length;
      stage.expect(late === 0, "it acknowledges later on, which would be for a number of the new epoch");
    },
  },
  {
    name: "legal-frames",
    rule: "sends nothing but JSON objects with a type, in masked text frames",
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open();
      for (let seq = 1; seq <= 40; seq++) peer.message(seq, seq % 10 === 0 ? { ack: 1 } : {});
      peer.ping("and");
      await stage.until(() => peer.frames.length + peer.pongs.length > 0, "to send something");
      peer.bye(1012, "restart", 0);
      await stage.handshake();
      stage.expect(peer.faults.length === 0, peer.faults.join("; "));
    },
  },
  {
    name: "few-frames",
    rule: `sends no more than ${MAX_FRAMES_PER_SECOND} frames a second, however many messages come`,
    section: FROM_CLIENT,
    async play(stage) {
      const peer = await stage.open();
      const count = 1_000;
      for (let seq = 1; seq <= count; seq++) peer.message(seq, { ack: 1 });
      await stage.wrote(...Array.from({ length: count }, (_, i) => ({ seq: i + 1, data: i + 1 })));
      peer.bye(1012, "restart", 0);
      await stage.handshake();
      const most = peer.mostInOneSecond();
      stage.expect(most <= MAX_FRAMES_PER_SECOND, `it has sent ${most} in one second`);
    },
  },
];
