/** The timers of all sessions, by a clock that the test turns. */
import { assertEquals } from "@std/assert";
import { type Linked, UNLINKED } from "../../src/async/chain.ts";
import { Heartbeat } from "../../src/session/heartbeat.ts";
import { HeldIntervals, HeldSeconds } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

interface Member extends Linked<Member> {
  tick(): void;
}

Deno.test("Members are ticked once a second each, and there is one timer, which runs while there is anybody", () => {
  using seconds = new HeldSeconds();
  const ticks = new Map<string, number>();
  const member = (name: string): Member => ({
    ...UNLINKED,
    tick: () => void ticks.set(name, (ticks.get(name) ?? 0) + 1),
  });
  const [alice, bob] = [member("alice"), member("bob")];
  const heartbeat = new Heartbeat<Member>();
  heartbeat.join(alice);
  heartbeat.join(bob);
  assertEquals(seconds.made, 1, "one timer is enough");
  seconds.run();
  seconds.run();
  assertEquals([heartbeat.leave(bob), heartbeat.leave(bob)], [true, false]);
  seconds.run();
  assertEquals(Object.fromEntries(ticks), { alice: 3, bob: 2 });
  heartbeat.leave(alice);
  assertEquals(seconds.count, 0);
  heartbeat.join(bob);
  assertEquals(seconds.count, 1);
  heartbeat.leave(bob);
});

Deno.test("Who has no room is asked until there is some, and then nobody has a timer", async () => {
  using looks = new HeldIntervals(50);
  // A look that takes long lets others have a turn in between, and a busy machine may be at fault for that.
  using _clock = new StandingClock();
  const heartbeat = new Heartbeat();
  const make = () => ({ asked: 0, room: false, hasRoom: () => false });
  const [a, b, c] = [make(), make(), make()];
  for (const full of [a, b, c]) {
    full.hasRoom = () => ++full.asked > 0 && full.room;
    heartbeat.watch(full);
  }
  looks.run();
  await Promise.resolve(); // that look is over
  a.room = true;
  heartbeat.forget(c);
  looks.run();
  await Promise.resolve(); // that look is over
  looks.run();
  await Promise.resolve(); // that look is over
  assertEquals([looks.made, looks.count, a.asked, b.asked, c.asked], [1, 1, 2, 3, 1]);
  b.room = true;
  looks.run();
  await Promise.resolve(); // that look is over
  assertEquals([looks.count, b.asked], [0, 4]);
  heartbeat.watch(a);
  assertEquals(looks.count, 1, "and anew");
  heartbeat.forget(a);
});
