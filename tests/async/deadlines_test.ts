/** Time limits of many short waits: what passes at one time is acted on in slices. */
import { assert, assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import { Deadlines } from "../../src/async/deadlines.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

const COUNT = 10_000;
/** How late a limit may act. */
const TICK_MS = 500;

const turn = () => new Promise((resolve) => setImmediate(resolve));

Deno.test("Deadlines that pass at one time act in slices, and none that was cleared meanwhile", async () => {
  using ticks = new HeldIntervals(TICK_MS);
  using clock = new StandingClock();
  const deadlines = new Deadlines(1_000);
  using turns = new TurnCounter();
  const set = Array.from({ length: COUNT }, () => deadlines.set(() => turns.count()));
  clock.pass(999);
  ticks.run();
  assertEquals(turns.all, 0);
  clock.pass(1);
  ticks.run();
  assert(turns.all > 0 && turns.all <= 250, `${turns.all} at once`);
  const last = set.at(-1)!;
  deadlines.clear(last);
  for (let i = 0; i < COUNT && turns.all < COUNT - 1; i++) await turn();
  await turn();
  assertEquals(turns.all, COUNT - 1);
  assert(turns.most <= 250, `${turns.most} in one turn`);
  deadlines.close();
  assertEquals(ticks.count, 0, "No timer is left");
});

Deno.test("Deadlines that passed while the process did not run are acted on when what has come was read", () => {
  using ticks = new HeldIntervals(TICK_MS);
  using clock = new StandingClock();
  const deadlines = new Deadlines(1_000);
  const late: string[] = [];
  const answered = deadlines.set(() => late.push("answered"));
  deadlines.set(() => late.push("not answered"));
  clock.pass(60_000);
  ticks.run();
  assertEquals(late, []);
  deadlines.clear(answered);
  clock.pass(TICK_MS);
  ticks.run();
  assertEquals(late, ["not answered"]);
  // A process that is always short of time has limits, too.
  for (const name of ["first", "second"]) {
    deadlines.set(() => late.push(name));
    clock.pass(3 * TICK_MS);
    ticks.run();
  }
  assertEquals(late, ["not answered", "first"]);
  clock.pass(3 * TICK_MS);
  ticks.run();
  assertEquals(late, ["not answered", "first", "second"]);
  deadlines.close();
  assertEquals(ticks.count, 0, "No timer is left");
});
