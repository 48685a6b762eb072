/** What a client makes of broadcasts, which it may also do without. */
import type { Case } from "../case.ts";
import type { Peer } from "../peer.ts";

const COMMON = { section: "broadcasts", part: "broadcasts" } as const;
const GAP = { t: "bgap", from: 3, to: 5, count: 3, why: "trimmed", pos: "b.5" };

type Fields = Record<string, unknown>;

interface Resumed {
  readonly name: string;
  readonly rule: string;
  readonly hi: Fields;
  readonly frames: readonly Fields[];
  /** What the program writes of them. */
  readonly lines: readonly Fields[];
  /** What it then comes back with. */
  readonly all: string | null;
  readonly own: string | null;
}

/** What a client has had of broadcasts, and from where it then goes on. */
const RESUMED: readonly Resumed[] = [
  {
    name: "broadcast-resume-from-hi",
    rule: "comes back with ?all= as hi.all has it, also when no broadcast came",
    hi: { pos: "e.0", all: "b.7" },
    frames: [],
    lines: [],
    all: "b.7",
    own: "e.0",
  },
  {
    name: "broadcast-resume",
    rule: "comes back with ?all= of the last broadcast, with its tag, beside its own position",
    hi: { pos: "e.4", all: "b.0" },
    frames: [frame(1, { tag: "bbbbbbbb" })],
    lines: [{ broadcast: 1, data: 1 }],
    all: "b.1.bbbbbbbb",
    own: "e.4",
  },
  {
    name: "broadcast-resume-after-gap",
    rule: "comes back with ?all= of bgap.pos after a bgap, which leaves its own position alone",
    hi: { pos: "e.4", all: "b.2" },
    frames: [GAP],
    lines: [{ bgap: "trimmed", from: 3, to: 5, count: 3 }],
    all: "b.5",
    own: "e.4",
  },
  {
    name: "broadcast-without-history",
    rule: "comes back without ?all= where hi had none",
    hi: {},
    frames: [{ t: "b", id: "x", ts: 1, data: 1 }],
    lines: [{ broadcast: null, data: 1 }],
    all: null,
    own: null,
  },
];

export const BROADCASTS: readonly Case[] = [
  {
    ...COMMON,
    name: "broadcast",
    rule: "hands over broadcasts, of JSON and of bytes",
    async play(stage) {
      const peer = await stage.open({ pos: "e.0", all: "b.0" });
      broadcast(peer, 1, { data: { sale: true } });
      broadcast(peer, 2, { enc: "base64", data: "AP8=" });
      peer.send({ t: "b", id: "x", ts: 1, data: "without a number" });
      await stage.wrote(
        { broadcast: 1, data: { sale: true } },
        { broadcast: 2, base64: "AP8=" },
        { broadcast: null, data: "without a number" },
      );
    },
  },
  {
    ...COMMON,
    name: "broadcast-duplicates",
    rule: "drops a broadcast whose number is not above its position among them",
    async play(stage) {
      const peer = await stage.open({ pos: "e.9", all: "b.2" });
      for (const seq of [2, 3, 3, 1, 4]) broadcast(peer, seq);
      await stage.wrote({ broadcast: 3, data: 3 }, { broadcast: 4, data: 4 });
    },
  },
  {
    ...COMMON,
    name: "broadcast-gap",
    rule: "tells the application of a bgap, and goes on after it",
    async play(stage) {
      const peer = await stage.open({ pos: "e.0", all: "b.2" });
      peer.send({ ...GAP, tag: "gggggggg" });
      broadcast(peer, 5);
      broadcast(peer, 6);
      await stage.wrote({ bgap: "trimmed", from: 3, to: 5, count: 3 }, { broadcast: 6, data: 6 });
    },
  },
  ...RESUMED.map(({ name, rule, hi, frames, lines, all, own }): Case => ({
    ...COMMON,
    name,
    rule,
    async play(stage) {
      const peer = await stage.open(hi);
      for (const frame of frames) peer.send(frame);
      await stage.wrote(...lines);
      peer.bye(1012, "restart", 0);
      const { searchParams } = (await stage.handshake()).head.url;
      const [foundAll, foundOwn] = [searchParams.get("all"), searchParams.get("resume")];
      stage.expect(foundAll === all, `it comes back with all=${foundAll} in place of ${all}`);
      stage.expect(foundOwn === own, `it comes back with resume=${foundOwn} in place of ${own}`);
    },
  })),
];

function broadcast(peer: Peer, seq: number, fields: Fields = {}): void {
  peer.send(frame(seq, fields));
}

function frame(seq: number, fields: Fields = {}): Fields {
  return { t: "b", seq, id: `b${seq}`, ts: 1795495876799, data: seq, ...fields };
}
