/** The ring of broadcasts and its readers, without a broker: what each reader gets, is told, and counts for. */
import { assert, assertEquals } from "@std/assert";
import fc from "../packages/fast_check.ts";
import type { BroadcastGapFrame } from "../../src/protocol/frames.ts";
import type { Position } from "../../src/protocol/position.ts";
import { type BroadcastPlace, BroadcastReader } from "../../src/session/broadcast_reader.ts";
import { type BroadcastMessage, BroadcastRing } from "../../src/session/broadcast_ring.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

/** An envelope as the history stores it. */
function envelope(seq: number, { ttlMs, tag = "AAAA0000", receipt = "" } = {} as {
  ttlMs?: number;
  tag?: string;
  receipt?: string;
}): string {
  const kind = receipt === "" ? "j" : `J${receipt};`;
  const ack = receipt === "" ? "" : '"ack":1,';
  const ttl = ttlMs === undefined ? "" : `,"ttl_ms":${ttlMs}`;
  return `\u0001uw1${kind}{"t":"m",${ack}"seq":${seq},"tag":"${tag}","id":"i${seq}","ts":1${ttl},"data":${seq}}`;
}

/** A ring, and readers whose clients take what the test lets them. */
class Stage {
  readonly ring: BroadcastRing;
  epoch = "AAAA";
  seq = 0;

  constructor(limits: { entries?: number; bytes?: number } = {}) {
    this.ring = new BroadcastRing({ entries: 100, bytes: 1_000_000, ttlMs: 60_000, ...limits });
    this.ring.begin({ epoch: this.epoch, seq: 0 });
  }

  /** The next broadcasts. */
  push(count = 1, options: { ttlMs?: number; tag?: string } = {}): BroadcastMessage[] {
    return Array.from({ length: count }, () => {
      const seq = ++this.seq;
      const { tag = "AAAA0000" } = options;
      const text = envelope(seq, options);
      return this.ring.push({ epoch: this.epoch, seq, tag }, text, text.length);
    });
  }

  /** What was sent is not there any more. */
  skip(count: number): void {
    this.seq += count;
    this.ring.skipTo({ epoch: this.epoch, seq: this.seq });
  }

  newEpoch(epoch: string, seq = 0): void {
    this.epoch = epoch;
    this.seq = seq;
    this.ring.beginEpoch({ epoch, seq });
  }

  reader(from?: Position | BroadcastPlace): Client {
    const place = from === undefined
      ? { position: this.ring.position }
      : "position" in from
      ? from
      : { position: from };
    return new Client(this.ring, place);
  }
}

class Client {
  /** Numbers of what came, gaps, and what it was not told. */
  readonly got: string[] = [];
  /** So many more it takes. */
  room = Infinity;
  readonly reader: BroadcastReader;

  constructor(ring: BroadcastRing, place: BroadcastPlace) {
    this.reader = new BroadcastReader(ring, {
      broadcast: (message, isReplayed) => {
        if (this.room === 0) return false;
        this.room--;
        const frame = JSON.parse(isReplayed ? message.replayFrame : message.frame);
        assertEquals([frame.t, frame.r, frame.ack], ["b", isReplayed ? 1 : undefined, undefined]);
        this.got.push(`${isReplayed ? "r" : ""}${frame.data}`);
        return true;
      },
      gap: ({ from, to, pos, why, count }: BroadcastGapFrame) => {
        assertEquals(count, to === null ? null : to - from + 1);
        this.got.push(why === "epoch" ? `${from}-? → ${pos}` : `${from}-${to} → ${pos}`);
      },
      miss: (count) => this.got.push(`missed ${count}`),
    }, place);
    this.reader.run();
  }

  /** What it got since it was asked last. */
  take(): string[] {
    this.reader.take();
    return this.got.splice(0);
  }

  resume(): string[] {
    this.room = Infinity;
    this.reader.resume();
    return this.got.splice(0);
  }
}

Deno.test("A reader gets what comes after it has begun, each once, and counts for it", () => {
  const stage = new Stage();
  stage.push(3);
  const client = stage.reader();
  assertEquals(client.take(), []);
  const [four, five] = stage.push(2);
  assertEquals(client.take(), ["4", "5"]);
  assertEquals(client.take(), []);
  assertEquals([four!.handed, five!.handed], [1, 1]);
});

Deno.test("A reader that comes with a position gets what it missed, marked, and says so in its greeting", () => {
  const stage = new Stage();
  const [one] = stage.push(3);
  const reader = new BroadcastReader(stage.ring, { broadcast: () => true, gap() {}, miss() {} }, {
    position: { epoch: "AAAA", seq: 1 },
  });
  assertEquals(reader.greeting(), { all: "AAAA.1" });
  assertEquals(stage.reader({ epoch: "AAAA", seq: 1 }).got, ["r2", "r3"]);
  assertEquals(one!.handed, 0, "what is replayed does not count");
  // It has heard more than this node has: what it has does not come twice.
  const ahead = stage.reader({ epoch: "AAAA", seq: 4 });
  stage.push(2);
  assertEquals(ahead.take(), ["5"]);
});

Deno.test("What a ring has dropped is a gap: exact in an epoch, open beyond one, a number where nothing is numbered", () => {
  const stage = new Stage({ entries: 3 });
  const client = stage.reader();
  const late = stage.reader();
  stage.push(5);
  assertEquals(client.take(), ["1-2 → AAAA.2", "3", "4", "5"]);
  stage.newEpoch("BBBB", 4);
  stage.push(4);
  assertEquals(late.take(), ["1-? → BBBB.5", "6", "7", "8"], "the beginning of the epoch has left, too");
  assertEquals(stage.reader({ epoch: "BBBB", seq: 1 }).got, ["2-5 → BBBB.5", "r6", "r7", "r8"]);

  const bare = new BroadcastRing({ entries: 2, bytes: 1_000, ttlMs: 1_000 });
  const unnumbered = new Client(bare, { position: bare.position });
  assertEquals(unnumbered.reader.greeting(), {});
  for (let n = 1; n <= 5; n++) bare.pushUnnumbered(String(n), 1);
  assertEquals(unnumbered.take(), ["missed 3", "4", "5"]);
});

Deno.test("A ring holds so many bytes, and always the newest message", () => {
  const stage = new Stage({ bytes: 250 });
  const client = stage.reader();
  stage.push(5);
  assertEquals(client.take(), ["1-2 → AAAA.2", "3", "4", "5"]);
  const tiny = new Stage({ bytes: 1 });
  tiny.push(3);
  assertEquals(tiny.reader({ epoch: "AAAA", seq: 0 }).got, ["1-2 → AAAA.2", "r3"]);
});

Deno.test("What is missing in the history, or has outlived its time, is a gap for who reads it late, and only for them", () => {
  using clock = new TurnedClock();
  const stage = new Stage();
  const client = stage.reader();
  stage.push(1);
  stage.push(2, { ttlMs: 5_000 });
  stage.push(1);
  stage.skip(2);
  stage.push(1, { ttlMs: 5_000 });
  clock.pass(6_000);
  assertEquals(client.take(), ["1", "2", "3", "4", "5-6 → AAAA.6", "7"], "it did not come late to the node");
  assertEquals(stage.reader({ epoch: "AAAA", seq: 0 }).got, ["r1", "2-3 → AAAA.3", "r4", "5-7 → AAAA.7"]);
  clock.pass(60_000);
  assertEquals(stage.reader({ epoch: "AAAA", seq: 0 }).got, ["1-7 → AAAA.7"]);
});

Deno.test("A client that takes no more keeps its place, counts for what waits, and catches up or hears what it missed", () => {
  const stage = new Stage({ entries: 4 });
  const client = stage.reader();
  client.room = 1;
  const before = stage.push(3);
  assertEquals([client.take(), client.reader.isBehind, stage.ring.behind], [["1"], true, 1]);
  const [four] = stage.push(1);
  assertEquals(client.take(), [], "nothing goes past what waits");
  assertEquals([...before, four!].map(({ handed }) => handed), [1, 1, 1, 1]);
  assertEquals(client.resume(), ["r2", "r3", "r4"]);
  assertEquals([client.reader.isBehind, stage.ring.behind, four!.handed], [false, 0, 1]);
  client.room = 0;
  stage.push(1);
  client.take();
  stage.push(5);
  assertEquals(client.resume(), ["5-6 → AAAA.6", "r7", "r8", "r9", "r10"]);
  client.room = 0;
  stage.push(1);
  client.take();
  client.reader.stop();
  assertEquals(stage.ring.behind, 0);
  client.room = Infinity;
  client.reader.resume();
  client.reader.take();
  assertEquals(client.got, [], "it has ended");
});

Deno.test("A new epoch is told at its place, also who was away, as far as the ring knows", () => {
  const stage = new Stage();
  const client = stage.reader();
  stage.push(4);
  stage.newEpoch("BBBB", 2);
  stage.push(1);
  assertEquals(client.take(), ["1", "2", "3", "4", "5-? → BBBB.2", "3"]);
  assertEquals(stage.reader({ epoch: "AAAA", seq: 3 }).got, ["r4", "5-? → BBBB.2", "r3"]);
  // Another node had heard more of the old epoch.
  assertEquals(stage.reader({ epoch: "AAAA", seq: 9 }).got, ["10-? → BBBB.2", "r3"]);
  // The history has told where it stands.
  const place = { position: { epoch: "BBBB", seq: 2 }, instead: { epoch: "CCCC", seq: 7 } };
  assertEquals(stage.reader(place).got, ["8-? → BBBB.2", "r3"]);
});

Deno.test("A position is found where the ring has it, and left to the history where only that can tell", () => {
  const stage = new Stage({ entries: 3 });
  stage.push(5, { tag: "AAAA1111" });
  const { ring } = stage;
  const find = (seq: number, tag?: string, epoch = "AAAA") => ring.find({ epoch, seq, tag });
  assertEquals([find(3), find(5), find(3, "AAAA1111"), find(1), find(2)], [3, 5, 3, 2, 2]);
  assertEquals([find(3, "AAAA2222"), find(2, "AAAA2222"), find(6), find(3, undefined, "BBBB")], [
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  assertEquals(new BroadcastRing({ entries: 3, bytes: 9, ttlMs: 9 }).find({ epoch: "", seq: 0 }), undefined);
});

Deno.test("A message without a number comes in its place, and to who was there", () => {
  const stage = new Stage();
  const client = stage.reader();
  stage.push(1);
  stage.ring.pushUnnumbered('"bare"', 6);
  stage.push(1);
  assertEquals(client.take(), ["1", "bare", "2"]);
  assertEquals(stage.reader({ epoch: "AAAA", seq: 1 }).got, ["r2"]);
});

Deno.test("Raw clients get the payload; what only begins as an envelope is one as it stands", () => {
  const stage = new Stage();
  stage.push(1);
  const payloadAt = (index: number) => stage.ring.at(index).message?.payload;
  const broken = "\u0001uw1q{";
  stage.ring.pushUnnumbered(broken, broken.length);
  const bytes = new Uint8Array([1, 255]);
  stage.ring.pushUnnumbered(bytes, 2);
  assertEquals([payloadAt(0), payloadAt(1), payloadAt(2)], ["1", broken, bytes]);
});

Deno.test("Whatever comes in whatever order, a reader has each broadcast once and in order, or is told that it is missing", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("push" as const), count: fc.integer({ min: 1, max: 8 }) }),
    fc.record({ do: fc.constant("skip" as const), count: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ do: fc.constant("room" as const), count: fc.integer({ min: 0, max: 5 }) }),
    fc.record({ do: fc.constant("visit" as const), count: fc.constant(0) }),
    fc.record({ do: fc.constant("away" as const), count: fc.constant(0) }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const stage = new Stage({ entries: 5 });
    let client = stage.reader();
    let seen = 0;
    const read = () => {
      for (const what of client.got.splice(0)) {
        const [, from, to = from] = /^r?(\d+)(?:-(\d+) .*)?$/.exec(what)!;
        assertEquals(Number(from), seen + 1, "neither twice nor past a hole");
        seen = Number(to);
      }
    };
    for (const { do: what, count } of steps) {
      if (what === "push") stage.push(count);
      else if (what === "skip") stage.skip(count);
      else if (what === "visit") client.reader.take();
      else if (what === "room") {
        client.room = count;
        client.reader.resume();
      } else {
        read();
        client.reader.stop();
        client = stage.reader({ epoch: "AAAA", seq: seen });
      }
      read();
    }
    client.room = Infinity;
    client.reader.resume();
    client.reader.take();
    read();
    assertEquals([seen, stage.ring.behind], [stage.seq, 0]);
    assert(stage.ring.end - stage.ring.first <= 5);
  }));
});
