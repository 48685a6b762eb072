/** What is known of Redis' availability: the reason that explains most, who waits, and what is said how often. */
import { assert, assertEquals } from "@std/assert";
import { WarnOnce } from "../../src/log/warn_once.ts";
import { Availability } from "../../src/redis/availability.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

const NOT_YET = "Redis is not connected yet";

function open() {
  const log = memoryLog();
  const availability = new Availability(new WarnOnce(log), log);
  const said = () => log.records.splice(0).map(({ event, fields }) => fields.reason ?? event);
  return { availability, said };
}

Deno.test("Availability keeps the reason that explains most, until another connection is dialled", () => {
  const { availability, said } = open();
  assertEquals([availability.reason, availability.isUnexplained], [NOT_YET, true]);
  availability.fail("refused", { severity: 1, detail: "as Redis said it" });
  assertEquals([availability.reason, availability.isUnexplained], ["refused", false]);
  availability.fail("hung up", { severity: 0 });
  assertEquals(availability.reason, "refused");
  availability.fail("as much", { severity: 1 });
  availability.fail("as much as that");
  assertEquals(availability.reason, "as much as that");
  availability.fail("hung up", { severity: 0 });
  assertEquals(availability.reason, "as much as that");
  availability.dialled();
  assertEquals(availability.reason, "as much as that");
  availability.fail("hung up", { severity: 0 });
  assertEquals([availability.reason, said()], ["hung up", [
    "refused",
    "as much",
    "as much as that",
    "hung up",
  ]]);
});

Deno.test("Availability takes whatever ends a connection that worked for the reason", () => {
  const { availability } = open();
  availability.fail("refused", { severity: 2 });
  availability.restore();
  assertEquals([availability.reason, availability.isUnexplained], [undefined, true]);
  availability.fail("no answer");
  availability.fail("hung up", { severity: 0 });
  assertEquals(availability.reason, "hung up");
});

Deno.test("Availability tells a return from a first connection, and warns anew after both", () => {
  const { availability, said } = open();
  let returns = 0;
  availability.onReturn(() => returns++);
  availability.restore();
  assertEquals([returns, availability.reconnects, availability.backAtMs], [0, 0, -Infinity]);
  availability.fail("hung up");
  availability.fail("hung up");
  availability.restore();
  assertEquals([returns, availability.reconnects], [1, 1]);
  assert(Math.abs(performance.now() - availability.backAtMs) < 5_000);
  availability.fail("hung up");
  assertEquals(said(), ["redis available", "hung up", "redis available", "hung up"]);
});

Deno.test("Availability wakes who waits once when commands can be sent, and when they never will", async () => {
  const { availability } = open();
  const woken: string[] = [];
  const wait = (name: string) => availability.whenReady().then(() => woken.push(name));
  const first = wait("first");
  availability.fail("hung up");
  await Promise.resolve();
  assertEquals(woken, []);
  availability.restore();
  await first;
  await wait("at once");
  availability.fail("hung up");
  const last = wait("last");
  availability.close("closed");
  await last;
  await wait("after the end");
  assertEquals([woken, availability.reason], [["first", "at once", "last", "after the end"], "closed"]);
});

Deno.test("Availability says how the first attempt ended, and for good", async () => {
  const late = open().availability;
  assertEquals(await late.firstAttempt(1), {
    outcome: "unreachable",
    reason: "Redis did not answer in time",
  });
  late.restore();
  assertEquals((await late.firstAttempt(5_000)).outcome, "unreachable");
  const quick = open().availability;
  quick.restore();
  quick.endFirst({ outcome: "unreachable", reason: "too late" });
  assertEquals(await quick.firstAttempt(5_000), { outcome: "ready" });
});

Deno.test("Availability warns of other trouble only while commands can be sent, and there is more to say", () => {
  const { availability, said } = open();
  availability.warn("trouble", "of a command", new Error("as Redis said it"));
  assertEquals(said(), []);
  availability.restore();
  availability.warn("trouble", "of which there is no more to say", undefined);
  availability.warn("trouble", "of a command", new Error("as Redis said it"));
  availability.warn("trouble", "of a command", new Error("as Redis said it"));
  assertEquals(said(), ["redis available", "of a command"]);
});

Deno.test("Availability wakes ten thousand who wait in slices", async () => {
  const { availability } = open();
  using turns = new TurnCounter();
  const waiting = Array.from({ length: 10_000 }, () => availability.whenReady().then(() => turns.count()));
  availability.restore();
  // Whoever comes now has nothing to wait for.
  await availability.whenReady();
  assert(turns.all < 250, `${turns.all} at once`);
  await Promise.all(waiting);
  assertEquals(turns.all, waiting.length);
  // Those who wait go on after the slice that woke them, and may be counted with the next one.
  assert(turns.most <= 2 * 250, `${turns.most} in one turn`);
});
