/** The history in memory: the contract, on a clock that the test moves, and what takes longer than a test may. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { newEpochs } from "../../src/history/epochs.ts";
import type { HistoryLimits } from "../../src/history/history.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import { historyContract, outgoing, placeOf, textsOf } from "../contracts/history.ts";
import { runContract } from "../contracts/history_runs.ts";

const HOUR_MS = 3_600_000;

function open(limits: HistoryLimits = { count: 100, ttlMs: 60_000 }) {
  let nowMs = Date.now();
  const broker = new MemoryBroker();
  const history = new MemoryHistory(broker, { limits, now: () => nowMs });
  return {
    history,
    broker,
    elapse(ms: number) {
      nowMs += ms;
      return Promise.resolve();
    },
    dispose: () => broker.close(),
  };
}

historyContract("MemoryHistory", (limits) => Promise.resolve(open(limits)));
runContract("MemoryHistory", (limits) => Promise.resolve(open(limits)));

Deno.test("MemoryHistory remembers an idempotency key for five minutes", async () => {
  const t = open();
  const options = { idempotency: { key: "k", fingerprint: "f" } };
  const outcomes = [];
  for (const ms of [0, 299_999, 1, 299_999]) {
    await t.elapse(ms);
    outcomes.push((await t.history.append("alice", outgoing("m"), options)).outcome);
  }
  assertEquals(outcomes, ["appended", "repeated", "appended", "repeated"]);
  await t.dispose();
});

Deno.test("MemoryHistory forgets a counter a day after its last use, not earlier", async () => {
  const t = open();
  const first = placeOf(await t.history.append("alice", outgoing("m")));
  await t.elapse(23 * HOUR_MS);
  assertEquals((await t.history.since("alice", undefined, 1)).last, 1);
  await t.elapse(23 * HOUR_MS);
  await t.history.append("bob", outgoing("to make it look around"));
  assertEquals(placeOf(await t.history.append("alice", outgoing("m"))), { ...first, seq: 2 });
  await t.elapse(25 * HOUR_MS);
  await t.history.append("bob", outgoing("to make it look around"));
  const next = placeOf(await t.history.append("alice", outgoing("m")));
  assertEquals(next.seq, 1);
  assertNotEquals(next.epoch, first.epoch);
  await t.dispose();
});

Deno.test("MemoryHistory keeps the counter for as long as there is a message", async () => {
  const t = open();
  const first = placeOf(await t.history.append("alice", outgoing("for a week"), { ttlMs: 7 * 24 * HOUR_MS }));
  await t.elapse(6 * 24 * HOUR_MS);
  await t.history.append("bob", outgoing("to make it look around"));
  const page = await t.history.since("alice", 0, 10);
  assertEquals([page.epoch, page.last, textsOf(page)], [first.epoch, 1, ["for a week"]]);
  await t.dispose();
});

Deno.test("MemoryHistory lets a send that failed be sent again with its key", async () => {
  const t = open();
  const options = { idempotency: { key: "k", fingerprint: "f" } };
  await t.broker.close();
  for (let attempt = 0; attempt < 2; attempt++) {
    const outcome = await t.history.append("alice", outgoing("m"), options).then(
      ({ outcome }) => outcome,
      (error: Error) => error.name,
    );
    assertEquals(outcome, "BrokerUnavailableError");
  }
  await t.dispose();
});

Deno.test("MemoryHistory forgets in time although its clock was set back", async () => {
  const t = open();
  await t.elapse(-30 * 24 * HOUR_MS);
  const first = placeOf(await t.history.append("alice", outgoing("m")));
  await t.elapse(25 * HOUR_MS);
  await t.history.append("bob", outgoing("to make it look around"));
  assertNotEquals(placeOf(await t.history.append("alice", outgoing("m"))).epoch, first.epoch);
  await t.dispose();
});

Deno.test("MemoryHistory remembers a claim for a minute longer than a key, and not longer", async () => {
  const t = open();
  const claim = (fingerprint: string) => t.history.claim("", { key: "k", fingerprint });
  assertEquals(await claim("ours"), true);
  await t.elapse(359_999);
  assertEquals(await claim("theirs"), false);
  // It has looked around just now, and is not to do so again.
  await t.elapse(1);
  assertEquals(await claim("theirs"), true);
  await t.history.release("", { key: "k", fingerprint: "theirs" });
  assertEquals(await claim("ours"), true);
  await t.dispose();
});

Deno.test("Epochs have names of their own, however many are made at one time", () => {
  const names = new Set<string>();
  for (const count of [1, 511, 1_000, 1, 2]) {
    const all = newEpochs(count);
    assertEquals(all.length, 8 * count);
    for (let at = 0; at < all.length; at += 8) names.add(all.slice(at, at + 8));
  }
  assertEquals(names.size, 1_515);
});
