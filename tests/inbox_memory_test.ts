/** The inbox in memory: the contract, on a clock that the test moves, and what takes longer than a test may. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { MemoryBroker } from "../src/broker/memory.ts";
import type { InboxLimits } from "../src/inbox/inbox.ts";
import { MemoryInbox } from "../src/inbox/memory.ts";
import { draftOf, inboxContract, placeOf, textsOf } from "./contracts/inbox.ts";

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
