/** The carrier, with events in memory and a backend made of a function; the pauses pass on a clock that the test turns. */
import { assert, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import type { Entry } from "../../src/events/events.ts";
import { MemoryEventStore } from "../../src/events/memory_store.ts";
import { Carrier } from "../../src/webhooks/carrier.ts";
import type { Delivery } from "../../src/webhooks/webhook.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const headers = new Headers();
const DELIVERED: Delivery = { outcome: "delivered", status: 204, body: "", headers };
const FAILED: Delivery = { outcome: "failed", reason: "it answered 500" };
const REFUSED: Delivery = { outcome: "refused", status: 422, body: "", headers, reason: "it answered 422" };

/** A carrier whose backend is `answer`, and a clock that stands. */
class World implements AsyncDisposable {
  readonly clock = new TurnedClock();
  readonly log = memoryLog();
  readonly tried: Entry[] = [];
  readonly counts = { delivered: 0, refused: 0, failed: 0 };
  readonly metrics = {
    oldestEventMs: undefined as number | undefined,
    eventsDropped: 0,
    onWebhook: (_type: string, outcome: string) => void this.counts[outcome as "delivered"]++,
  };
  answer: (entry: Entry) => Delivery | Promise<Delivery> = () => DELIVERED;
  readonly store: MemoryEventStore;
  readonly carrier: Carrier;

  constructor() {
    const counts = (users: readonly string[]) => Promise.resolve(users.map(() => 0));
    this.store = new MemoryEventStore({ offlineAfterMs: 1_000, holdMs: 10_000, counts, counted: "sockets" });
    this.carrier = new Carrier({
      store: this.store,
      metrics: this.metrics,
      log: this.log,
      deliver: async (entry) => {
        this.tried.push(entry);
        return await this.answer(entry);
      },
    });
  }

  /** So much time passes, and all that comes of it is done. */
  async pass(ms: number, stepMs = 1_000): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.clock.pass(Math.min(stepMs, ms - passed));
      for (let turn = 0; turn < 100; turn++) await Promise.resolve();
    }
  }

  async note(user: string): Promise<void> {
    await this.store.note([user], []);
    this.carrier.wake();
  }

  users(): string[] {
    return this.tried.flatMap(({ data }) =>
      (JSON.parse(data).changes ?? []).map(({ user }: { user: string }) => user)
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.carrier.close();
    this.clock[Symbol.dispose]();
  }
}

Deno.test("Carrier takes a new event at once, and forgets what was taken", async () => {
  await using world = new World();
  await world.note("alice");
  await world.pass(1, 1);
  assertEquals(world.users(), ["alice"]);
  await world.pass(60_000);
  assertEquals(world.counts, { delivered: 2, refused: 0, failed: 0 });
  assertEquals(world.metrics.oldestEventMs, undefined);
});

Deno.test("While the backend is away one event at a time is tried, ever more rarely; then all come, each once", async () => {
  await using world = new World();
  world.answer = () => FAILED;
  const users = Array.from({ length: 50 }, (_, i) => `user-${i}`);
  for (const user of users) await world.note(user);
  await world.pass(600_000);
  assertLessOrEqual(world.counts.failed, 600 / 15 + 8 + 6);
  assertEquals(world.counts.delivered, 0);
  assert(world.metrics.oldestEventMs !== undefined);
  const before = world.tried.length;
  world.answer = () => DELIVERED;
  await world.pass(60_000);
  const came = world.users().slice(-users.length);
  assertEquals(new Set(came).size, users.length);
  assertEquals(world.counts.delivered, 51);
  assertEquals(world.tried.length - before, 51);
  // An outage of ten minutes is in the log some ten times, and its end once.
  const failures = world.log.records.filter(({ event }) => event === "webhook failed").length;
  assertLess(failures, 12);
  assertEquals(world.log.records.filter(({ event }) => event === "webhook works again").length, 1);
});

Deno.test("A backend that answers 500 for ten minutes gets all that happened meanwhile, once, in order, and is asked ever more rarely", async () => {
  await using world = new World();
  await world.pass(2_000);
  const attemptsMs: number[] = [];
  world.answer = () => {
    attemptsMs.push(performance.now());
    return FAILED;
  };
  const beginMs = performance.now();
  const users = Array.from({ length: 20 }, (_, i) => `user-${i}`);
  // Each comes and goes, again and again; who has gone is told after a second.
  for (let round = 0; round < 30; round++) {
    const some = users.filter((_, i) => i % 5 === round % 5);
    await world.store.note(some, []);
    world.carrier.wake();
    await world.pass(10_000, 500);
    await world.store.note([], some);
    await world.pass(10_000, 500);
    await world.store.settle();
    world.carrier.wake();
  }
  assertEquals(performance.now() - beginMs, 600_000);
  const pauses = attemptsMs.slice(1).map((ms, i) => ms - attemptsMs[i]!).filter((pause) => pause > 0);
  for (const [i, pause] of pauses.entries()) {
    const mostMs = Math.min(2_000 * 2 ** i, 30_000);
    // Which of them was tried is held for ten seconds.
    assertLessOrEqual(pause, mostMs + 10_000 + 500, `pause ${i}`);
    assertLessOrEqual(mostMs / 2, pause, `pause ${i}`);
  }
  const before = world.tried.length;
  world.answer = () => DELIVERED;
  await world.pass(31_000, 500);
  const came = world.tried.slice(before);
  assertEquals(
    new Set(came.map(({ id }) => id)).size,
    came.length,
    "nothing twice after the one that ended it",
  );
  const changes = came.flatMap(({ data }) =>
    JSON.parse(data).changes as { user: string; online: boolean; n: number }[]
  );
  assertEquals(changes.length, 30 * 4 * 2);
  changes.reduce((last, { n }) => (assertLess(last, n), n), 0);
  for (const user of users) {
    const own = changes.filter((change) => change.user === user).map(({ online }) => online);
    assertEquals(own, Array.from({ length: 12 }, (_, i) => i % 2 === 0), user);
  }
  assertEquals(world.metrics.oldestEventMs, undefined);
});

Deno.test("An event that the backend refuses is put off, ever longer, and holds up none of the others", async () => {
  await using world = new World();
  await world.pass(2_000);
  world.answer = (entry) => entry.data.includes("poison") ? REFUSED : DELIVERED;
  await world.note("poison");
  for (let i = 0; i < 20; i++) {
    await world.note(`user-${i}`);
    await world.pass(1, 1);
  }
  assertEquals(world.users().filter((user) => user !== "poison").length, 20);
  await world.pass(3_600_000, 5_000);
  // At once; after 5 s, 30 s, 2 min, 10 min; then every half an hour.
  assertEquals(world.users().filter((user) => user === "poison").length, 6);
  world.answer = () => DELIVERED;
  await world.pass(1_800_000, 5_000);
  assertEquals(world.metrics.oldestEventMs, undefined);
});

Deno.test("What nobody takes in a day is dropped, counted, logged, and said to be unknown", async () => {
  await using world = new World();
  await world.pass(2_000);
  world.answer = () => FAILED;
  await world.note("alice");
  await world.pass(25 * 3_600_000, 60_000);
  world.answer = () => DELIVERED;
  await world.pass(60_000);
  assertEquals(world.tried.at(-1)!.type, "users.unknown");
  assert(world.metrics.eventsDropped >= 1);
  assert(world.log.records.some(({ event }) => event === "events dropped"));
});

Deno.test("A backend that takes its time holds up nothing but further webhooks", async () => {
  await using world = new World();
  await world.pass(2_000);
  const answers: PromiseWithResolvers<Delivery>[] = [];
  world.answer = () => {
    answers.push(Promise.withResolvers());
    return answers.at(-1)!.promise;
  };
  for (let i = 0; i < 20; i++) await world.store.note([`user-${i}`], []);
  await world.pass(1_000);
  assertEquals(answers.length, 8);
  while (answers.some(({ resolve }) => (resolve(DELIVERED), false)) || world.counts.delivered < 21) {
    await world.pass(1, 1);
  }
  assertEquals(new Set(world.users()).size, 20);
});
