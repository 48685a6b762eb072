/**
 * What is on its way to Redis and what waits: whose turn it is, whose time is up, and what each is told. `fair_share_test.ts`
 * has what that is good for.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { Outbox } from "../../src/redis/outbox.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 3_000;

/** What Redis said, as opposed to what became of the connection. */
class Reply extends Error {}

/** An outbox, and the other end of it: commands that are answered when the test says so. */
class Desk {
  /** Names of the commands in the order in which they were written. */
  readonly written: string[] = [];
  /** What came of each, in the order in which it was known. */
  readonly known: string[] = [];
  /** How often it was said that one comes. */
  posted = 0;
  readonly #writes = new Map<string, PromiseWithResolvers<string>>();
  readonly outbox: Outbox;

  constructor(timeoutMs = TIMEOUT_MS) {
    this.outbox = new Outbox({
      timeoutMs,
      onPosted: () => this.posted++,
      onAnswer: () => this.known.push("an answer"),
      failure: (error) => ({ error: error as Error, isAnswer: error instanceof Reply }),
    });
  }

  send(name: string, bytes = 0): Promise<string> {
    return this.#watched(name, this.outbox.send(() => this.#write(name), bytes));
  }

  sendNow(name: string): Promise<string> {
    return this.#watched(name, this.outbox.sendNow(() => this.#write(name)));
  }

  /** Resolves when what came of it has been heard. */
  answer(name: string): Promise<void> {
    this.#writes.get(name)!.resolve(name);
    return turn();
  }

  fail(name: string, error: Error): Promise<void> {
    this.#writes.get(name)!.reject(error);
    return turn();
  }

  #write(name: string): Promise<string> {
    this.written.push(name);
    const write = Promise.withResolvers<string>();
    this.#writes.set(name, write);
    return write.promise;
  }

  #watched(name: string, sent: Promise<string>): Promise<string> {
    sent.then(() => this.known.push(name), (error) => this.known.push(`${name}: ${error.message}`));
    return sent;
  }
}

/** Lets all that is settled be heard. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function outcomeOf(sent: Promise<unknown>, message: string): Promise<string> {
  return (await assertRejects(() => sent, BrokerUnavailableError, message)).outcome;
}

const LATE = `Redis did not answer within ${TIMEOUT_MS} ms`;
const BUSY = "Redis is busy with what was sent before";

// ---------------------------------------------------------------------------------------------------------
// Turns

Deno.test("Outbox lets nobody pass by those who wait, however little it is, but for what may go past all", async () => {
  const desk = new Desk();
  desk.send("most", MIB - 1);
  desk.send("large", 2);
  desk.send("small", 1);
  desk.send("nothing");
  assertEquals(desk.written, ["most"]);
  desk.sendNow("heartbeat");
  assertEquals(desk.written, ["most", "heartbeat"]);
  // Its answer makes no room.
  await desk.answer("heartbeat");
  assertEquals(desk.written.length, 2);
  await desk.answer("most");
  assertEquals(desk.written.slice(2), ["large", "small", "nothing"]);
});

Deno.test("Outbox fills the portion exactly, and what is larger waits until it is empty", async () => {
  const desk = new Desk();
  for (const name of ["a", "b"]) desk.send(name, MIB / 2);
  desk.send("huge", 3 * MIB);
  desk.send("c", 1);
  assertEquals(desk.written, ["a", "b"]);
  await desk.answer("b");
  assertEquals(desk.written, ["a", "b"], "one is still on its way");
  await desk.answer("a");
  assertEquals(desk.written, ["a", "b", "huge"]);
  await desk.answer("huge");
  assertEquals(desk.written, ["a", "b", "huge", "c"]);
  assertEquals(desk.known.filter((what) => what !== "an answer"), ["b", "a", "huge"]);
});

Deno.test("Outbox: a command that failed makes room as one that was answered does", async () => {
  for (const error of [new Reply("refused"), new Error("the connection broke")]) {
    const desk = new Desk();
    desk.send("first", MIB);
    desk.send("next", MIB);
    await desk.fail("first", error);
    assertEquals([desk.written, desk.known], [["first", "next"], [`first: ${error.message}`]]);
  }
});

Deno.test("Outbox: it is known that Redis answers before whoever asked goes on", async () => {
  const desk = new Desk();
  desk.send("a");
  await desk.answer("a");
  assertEquals(desk.known, ["an answer", "a"]);
});

// ---------------------------------------------------------------------------------------------------------
// Time

Deno.test("Outbox: a command's time is up to the millisecond, and that of those behind it is not", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  const first = desk.send("first");
  clock.pass(100);
  const second = desk.send("second");
  clock.pass(TIMEOUT_MS - 101);
  assertEquals(desk.outbox.check(performance.now()), false);
  await turn();
  assertEquals(desk.known, []);
  clock.pass(1);
  assertEquals(desk.outbox.check(performance.now()), true);
  assertEquals(await outcomeOf(first, LATE), "unknown");
  assertEquals(desk.known, [`first: ${LATE}`]);
  // What was late once is not late again.
  clock.pass(99);
  assertEquals(desk.outbox.check(performance.now()), false);
  clock.pass(1);
  assertEquals(desk.outbox.check(performance.now()), true);
  assertEquals(await outcomeOf(second, LATE), "unknown");
});

Deno.test("Outbox: the time of a command begins anew when it is written", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  desk.send("first", MIB);
  const second = desk.send("second", MIB);
  clock.pass(TIMEOUT_MS - 1);
  await desk.answer("first");
  clock.pass(TIMEOUT_MS - 1);
  desk.outbox.check(performance.now());
  await turn();
  assertEquals(desk.known, ["an answer", "first"]);
  clock.pass(1);
  desk.outbox.check(performance.now());
  assertEquals(await outcomeOf(second, LATE), "unknown");
});

Deno.test("Outbox: one whose turn did not come in time was not sent, and says nothing of Redis", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  desk.send("first", MIB);
  const second = desk.send("second", MIB);
  clock.pass(TIMEOUT_MS - 1);
  const other = desk.sendNow("heartbeat");
  const third = desk.send("third", MIB);
  await desk.answer("first");
  assertEquals(desk.written, ["first", "heartbeat", "second"]);
  clock.pass(1);
  const fourth = desk.send("fourth", MIB);
  clock.pass(TIMEOUT_MS - 1);
  await desk.answer("heartbeat");
  assertEquals(await other, "heartbeat");
  // The one that is written has its time until now, and so has the third, which waits.
  assertEquals(desk.outbox.check(performance.now()), false);
  assertEquals(await outcomeOf(second, LATE), "unknown");
  assertEquals(await outcomeOf(third, BUSY), "refused");
  // One that is late is on its way all the same, until it is answered.
  assertEquals(desk.written, ["first", "heartbeat", "second"]);
  await desk.answer("second");
  assertEquals(desk.written.at(-1), "fourth");
  await desk.answer("fourth");
  assertEquals(await fourth, "fourth");
});

Deno.test("Outbox: that only waiting ones are late is no silence of Redis", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  desk.send("first", MIB);
  const waiting = desk.send("waiting", MIB);
  clock.pass(TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), true, "the first one is late");
  assertEquals(await outcomeOf(waiting, BUSY), "refused");
  const another = desk.send("another", MIB);
  clock.pass(TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), false);
  assertEquals(await outcomeOf(another, BUSY), "refused");
});

Deno.test("Outbox takes a late answer for silence after a second, or the time of a command when that is less", async () => {
  for (const [timeoutMs, silenceMs] of [[TIMEOUT_MS, 1_000], [200, 200]] as const) {
    for (const quietMs of [silenceMs, silenceMs + 1]) {
      using clock = new StandingClock();
      const desk = new Desk(timeoutMs);
      const late = desk.send("late");
      clock.pass(timeoutMs);
      desk.sendNow("heartbeat");
      await desk.answer("heartbeat");
      assertEquals(desk.outbox.answeredAtMs, performance.now());
      clock.pass(quietMs);
      assertEquals(desk.outbox.check(performance.now()), quietMs > silenceMs, `${quietMs} ms`);
      await outcomeOf(late, `Redis did not answer within ${timeoutMs} ms`);
    }
  }
});

Deno.test("Outbox: a refusal of Redis is a sign of life, and what the library says of itself is none", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  assertEquals(desk.outbox.answeredAtMs, -Infinity);
  desk.send("refused");
  desk.send("broken");
  await desk.fail("broken", new Error("the connection broke"));
  assertEquals(desk.outbox.answeredAtMs, -Infinity);
  await desk.fail("refused", new Reply("NOPERM"));
  const answeredAtMs = performance.now();
  assertEquals(desk.outbox.answeredAtMs, answeredAtMs);
  clock.pass(5);
  desk.send("broken again");
  await desk.fail("broken again", new Error("the connection broke"));
  assertEquals(desk.outbox.answeredAtMs, answeredAtMs);
  // Only what is no refusal says that all is well.
  assertEquals(desk.known.filter((what) => what === "an answer"), []);
});

Deno.test("Outbox: what has failed can't be late, and what was late is told nothing more", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  desk.send("broken");
  await desk.fail("broken", new Error("the connection broke"));
  clock.pass(TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), false);
  const late = desk.send("late");
  clock.pass(TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), true);
  await outcomeOf(late, LATE);
  await desk.answer("late");
  assertEquals(desk.known, ["broken: the connection broke", `late: ${LATE}`, "an answer"]);
  assertEquals(desk.outbox.answeredAtMs, performance.now(), "late as it is, Redis lives");
  clock.pass(TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), false);
});

// ---------------------------------------------------------------------------------------------------------
// The end

Deno.test("Outbox refuses only what waits, which is not written any more when there is room", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  const written = desk.send("written", MIB);
  const waiting = ["a", "b"].map((name) => desk.send(name, MIB));
  desk.outbox.refuse("Redis is away");
  for (const sent of waiting) assertEquals(await outcomeOf(sent, "Redis is away"), "refused");
  await desk.answer("written");
  assertEquals(await written, "written");
  assertEquals(desk.written, ["written"]);
  // Nor are they late.
  clock.pass(2 * TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), false);
  desk.outbox.refuse("nobody");
});

Deno.test("Outbox that fails leaves nobody waiting: neither what was written nor what was not", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  const written = desk.send("written", MIB);
  const waiting = desk.send("waiting", MIB);
  desk.outbox.fail("The connection is closed");
  assertEquals(await outcomeOf(written, "The connection is closed"), "unknown");
  assertEquals(await outcomeOf(waiting, "The connection is closed"), "refused");
  clock.pass(2 * TIMEOUT_MS);
  assertEquals(desk.outbox.check(performance.now()), false);
  await desk.answer("written");
  assertEquals(desk.written, ["written"]);
});

Deno.test("Outbox says that something comes, also what has to wait, and is empty when nothing is under way any more", async () => {
  const desk = new Desk();
  const state = () => [desk.posted, desk.outbox.isEmpty];
  assertEquals(state(), [0, true]);
  desk.send("large", 2 * MIB);
  desk.send("waiting");
  assertEquals(state(), [2, false]);
  await desk.answer("large");
  assertEquals(state(), [2, false]);
  await desk.answer("waiting");
  desk.sendNow("heartbeat");
  assertEquals(state(), [3, false]);
  await desk.answer("heartbeat");
  assertEquals(state(), [3, true]);
});
