/** What a client makes of broadcasts, which it may also do without. */
import type { Case } from "../case.ts";
import type { Peer } from "../peer.ts";
import type { Stage } from "../stage.ts";

const COMMON = { section: "broadcasts", part: "broadcasts" } as const;
const GAP = { t: "bgap", from: 3, to: 5, count: 3, why: "trimmed", pos: "b.5" };

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
  {
    ...COMMON,
    name: "broadcast-resume-from-hi",
    rule: "comes back with ?all= as hi.all has it, also when no broadcast came",
    async play(stage) {
      (await stage.open({ pos: "e.0", all: "b.7" })).bye(1012, "restart", 0);
      await resumes(stage, "b.7", "e.0");
    },
  },
  {
    ...COMMON,
    name: "broadcast-resume",
    rule: "comes back with ?all= of the last broadcast, with its tag, beside its own position",
    async play(stage) {
      const peer = await stage.open({ pos: "e.4", all: "b.0" });
      broadcast(peer, 1, { tag: "bbbbbbbb" });
      await stage.wrote({ broadcast: 1, data: 1 });
      peer.bye(1012, "restart", 0);
      await resumes(stage, "b.1.bbbbbbbb", "e.4");
    },
  },
  {
    ...COMMON,
    name: "broadcast-resume-after-gap",
    rule: "comes back with ?all= of bgap.pos after a bgap, which leaves its own position alone",
    async play(stage) {
      const peer = await stage.open({ pos: "e.4", all: "b.2" });
      peer.send(GAP);
      await stage.wrote({ bgap: "trimmed", from: 3, to: 5, count: 3 });
      peer.bye(1012, "restart", 0);
      await resumes(stage, "b.5", "e.4");
    },
  },
  {
    ...COMMON,
    name: "broadcast-without-history",
    rule: "comes back without ?all= where hi had none",
    async play(stage) {
      const peer = await stage.open({});
      peer.send({ t: "b", id: "x", ts: 1, data: 1 });
      await stage.wrote({ broadcast: null, data: 1 });
      peer.bye(1012, "restart", 0);
      await resumes(stage, null, null);
    },
  },
];

function broadcast(peer: Peer, seq: number, fields: Record<string, unknown> = {}): void {
  peer.send({ t: "b", seq, id: `b${seq}`, ts: 1795495876799, data: seq, ...fields });
}

async function resumes(stage: Stage, all: string | null, own: string | null): Promise<void> {
  const { searchParams } = (await stage.handshake()).head.url;
  const [foundAll, foundOwn] = [searchParams.get("all"), searchParams.get("resume")];
  stage.expect(foundAll === all, `it comes back with all=${foundAll} in place of ${all}`);
  stage.expect(foundOwn === own, `it comes back with resume=${foundOwn} in place of ${own}`);
}
