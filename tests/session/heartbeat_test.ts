/** The timers of all sessions, by a clock that the test turns. */
import { assertEquals } from "@std/assert";
import { Heartbeat } from "../../src/session/heartbeat.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

Deno.test("A tick is late when it comes more than a quarter of a second after its time, which counts from the last one", () => {
  using seconds = new HeldIntervals(1_000);
  using clock = new StandingClock();
  const ticks: boolean[] = [];
  const heartbeat = new Heartbeat([{ tick: (isLate) => void ticks.push(isLate) }]);
  heartbeat.start();
  heartbeat.start();
  assertEquals(seconds.made, 1, "one timer is enough");
  for (const ms of [1_250, 1_251, 1_000, 1_250]) {
    clock.pass(ms);
    seconds.run();
  }
  assertEquals(ticks, [false, true, false, false]);
  heartbeat.stop();
  assertEquals(seconds.count, 0);
  heartbeat.start();
  assertEquals(seconds.count, 1);
  heartbeat.stop();
});

Deno.test("Who has no room is asked until there is some, and then nobody has a timer", () => {
  using looks = new HeldIntervals(50);
  const heartbeat = new Heartbeat([]);
  const make = () => ({ asked: 0, room: false, hasRoom: () => false });
  const [a, b, c] = [make(), make(), make()];
  for (const full of [a, b, c]) {
    full.hasRoom = () => ++full.asked > 0 && full.room;
    heartbeat.watch(full);
  }
  looks.run();
  a.room = true;
  heartbeat.forget(c);
  looks.run();
  looks.run();
  assertEquals([looks.made, looks.count, a.asked, b.asked, c.asked], [1, 1, 2, 3, 1]);
  b.room = true;
  looks.run();
  assertEquals([looks.count, b.asked], [0, 4]);
  heartbeat.watch(a);
  assertEquals(looks.count, 1, "and anew");
  heartbeat.forget(a);
});
