/**
 * What it costs that a framed client gets each message once and in order: a live message through `Replay`, and a
 * catch-up of 100 messages. Socket and history are stand-ins that cost next to nothing, so this is the merge alone;
 * the baseline hands the same envelopes over without it.
 */
import type { History, Page, Stored } from "../src/history/history.ts";
import { Replay, type ReplayOutput } from "../src/session/replay.ts";
import { Sink } from "./sink.ts";

const EPOCH = "Zk3vQ9aB";
const CATCH_UP = 100;
const sink = new Sink();

const output: ReplayOutput = {
  deliver(envelope) {
    sink.take(envelope);
    return true;
  },
  gap() {
    throw new Error("Nothing is missing here");
  },
  onForeign() {
    throw new Error("Nothing is foreign here");
  },
  onReadFailed(error) {
    throw error;
  },
};

/** A history whose every answer is the same page. */
function historyOf(items: readonly Stored[]): History {
  const last = items.at(-1)?.seq ?? 0;
  const page: Page = {
    epoch: EPOCH,
    previousEpochs: [],
    last,
    items,
    upTo: last,
    lastTag: "",
    afterTag: "",
  };
  return {
    limits: { count: CATCH_UP, ttlMs: 300_000 },
    append: () => Promise.reject(new Error("Nothing is sent here")),
    appendToAll: () => Promise.reject(new Error("Nothing is sent here")),
    openRun: () => Promise.reject(new Error("Nothing is sent here")),
    appendPage: () => Promise.reject(new Error("Nothing is sent here")),
    leaveRun: () => Promise.reject(new Error("Nothing is sent here")),
    claim: () => Promise.reject(new Error("Nothing is sent here")),
    release: () => Promise.reject(new Error("Nothing is sent here")),
    since: () => Promise.resolve(page),
  };
}

const envelope = `\u0001uw1j{"t":"m","seq":1,"tag":"${
  EPOCH.slice(0, 4)
}x3Fq","id":"a","ts":1,"data":{"order":7}}`;
const options = { channel: "alice", maxReplay: 300 };

// ---------------------------------------------------------------------------------------------------------
// Live

const LIVE = "A live message";
const live = new Replay(historyOf([]), output, options);
await live.load(undefined);
live.greeting();
live.run();
let seq = 0;

Deno.bench("deliver() alone", { group: LIVE, baseline: true }, () => {
  output.deliver(envelope, envelope.length);
});
Deno.bench("Replay.live()", { group: LIVE }, () => live.live(++seq, envelope, envelope.length));

// ---------------------------------------------------------------------------------------------------------
// Catching up

const items: Stored[] = Array.from({ length: CATCH_UP }, (_, i) => ({ seq: i + 1, envelope }));
const history = historyOf(items);

/** Opens at position 0, gets everything from the history, then lives on. */
async function catchUp(): Promise<void> {
  const replay = new Replay(history, output, options);
  await replay.load({ epoch: EPOCH, seq: 0 });
  replay.greeting();
  replay.run();
  if (!replay.isLive || replay.position.seq !== CATCH_UP) throw new Error("The catch-up did not end");
}

const GROUP = `A catch-up of ${CATCH_UP} messages`;
Deno.bench("deliver() alone", { group: GROUP, baseline: true }, async () => {
  await history.since("alice", 0, CATCH_UP);
  for (const { envelope } of items) output.deliver(envelope, undefined);
});
Deno.bench("Replay: load, greeting, run", { group: GROUP }, catchUp);
