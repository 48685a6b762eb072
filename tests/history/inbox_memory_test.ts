/** The inbox in memory: the contract, on a clock that the test moves, and what takes longer than a test may. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { type InboxLimits, newEpochs } from "../../src/history/history.ts";
import { MemoryInbox } from "../../src/history/memory.ts";
import { draftOf, inboxContract, placeOf, textsOf } from "../contracts/inbox.ts";

const HOUR_MS = 3_600_000;

function open(limits: InboxLimits = { count: 100, ttlMs: 60_000 }) {
  let nowMs = Date.now();
  const broker = new MemoryBroker();
  const inbox = new MemoryInbox(broker, { limits, now: () => nowMs });
  return {
    inbox,
    broker,
    elapse(ms: number) {
      nowMs += ms;
      return Promise.resolve();
    },
    async dispose() {
      await inbox.close();
      await broker.close();
    },
  };
}

inboxContract("MemoryInbox", (limits) => Promise.resolve(open(limits)));

Deno.test("MemoryInbox remembers an idempotency key for five minutes", async () => {
  const t = open();
  const options = { idempotency: { key: "k", fingerprint: "f" } };
  const outcomes = [];
  for (const ms of [0, 299_999, 1, 299_999]) {
    await t.elapse(ms);
    outcomes.push((await t.inbox.append("alice", draftOf("m"), options)).outcome);
  }
  assertEquals(outcomes, ["appended", "repeated", "appended", "repeated"]);
  await t.dispose();
});

Deno.test("MemoryInbox forgets a counter a day after its last use, not earlier", async () => {
  const t = open();
  const first = placeOf(await t.inbox.append("alice", draftOf("m")));
  await t.elapse(23 * HOUR_MS);
  assertEquals((await t.inbox.since("alice", undefined, 1)).last, 1);
  await t.elapse(23 * HOUR_MS);
  await t.inbox.append("bob", draftOf("to make it look around"));
  assertEquals(placeOf(await t.inbox.append("alice", draftOf("m"))), { ...first, seq: 2 });
  await t.elapse(25 * HOUR_MS);
  await t.inbox.append("bob", draftOf("to make it look around"));
  const next = placeOf(await t.inbox.append("alice", draftOf("m")));
  assertEquals(next.seq, 1);
  assertNotEquals(next.epoch, first.epoch);
  await t.dispose();
});

Deno.test("MemoryInbox keeps the counter for as long as there is a message", async () => {
  const t = open();
  const first = placeOf(await t.inbox.append("alice", draftOf("for a week"), { ttlMs: 7 * 24 * HOUR_MS }));
  await t.elapse(6 * 24 * HOUR_MS);
  await t.inbox.append("bob", draftOf("to make it look around"));
  const stretch = await t.inbox.since("alice", 0, 10);
  assertEquals([stretch.epoch, stretch.last, textsOf(stretch)], [first.epoch, 1, ["for a week"]]);
  await t.dispose();
});

Deno.test("MemoryInbox lets a send that failed be sent again with its key", async () => {
  const t = open();
  const options = { idempotency: { key: "k", fingerprint: "f" } };
  await t.broker.close();
  for (let attempt = 0; attempt < 2; attempt++) {
    const outcome = await t.inbox.append("alice", draftOf("m"), options).then(
      ({ outcome }) => outcome,
      (error: Error) => error.name,
    );
    assertEquals(outcome, "BrokerUnavailableError");
  }
  await t.dispose();
});

Deno.test("MemoryInbox forgets in time although its clock was set back", async () => {
  const t = open();
  await t.elapse(-30 * 24 * HOUR_MS);
  const first = placeOf(await t.inbox.append("alice", draftOf("m")));
  await t.elapse(25 * HOUR_MS);
  await t.inbox.append("bob", draftOf("to make it look around"));
  assertNotEquals(placeOf(await t.inbox.append("alice", draftOf("m"))).epoch, first.epoch);
  await t.dispose();
});

Deno.test("MemoryInbox remembers a claim for a minute longer than a key, and not longer", async () => {
  const t = open();
  const claim = (fingerprint: string) => t.inbox.claim("", { key: "k", fingerprint });
  assertEquals(await claim("ours"), true);
  await t.elapse(359_999);
  assertEquals(await claim("theirs"), false);
  // It has looked around just now, and is not to do so again.
  await t.elapse(1);
  assertEquals(await claim("theirs"), true);
  await t.inbox.release("", { key: "k", fingerprint: "theirs" });
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
