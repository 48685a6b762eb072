/** Which subscriptions are found missing where messages are published, and what is done then; on no Redis at all. */
import { assertEquals } from "@std/assert";
import { ByChannel } from "../../src/broker/by_channel.ts";
import { SelfCheck, SWEEP_TICK_MS } from "../../src/broker/self_check.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";

/** A subscription, and whether Redis counts it. */
class Fake {
  isCounted = true;
  isClosed = false;
  constructor(readonly channel: string) {}
  close(): void {
    this.isClosed = true;
  }
}

class World implements Disposable {
  readonly all = new ByChannel<Fake>();
  readonly asked: string[][] = [];
  readonly found: number[] = [];
  dials = 0;
  /** Called while a question is on its way. */
  onAsk = () => {};
  readonly check = new SelfCheck({
    isIdle: () => false,
    counts: async (channels) => {
      this.asked.push([...channels]);
      const counts = channels.map((channel) =>
        this.all.of(channel).filter(({ isCounted }) => isCounted).length
      );
      await Promise.resolve();
      this.onAsk();
      return counts;
    },
    subscriptions: this,
    onFound: (channels) => this.found.push(channels),
    dialAnew: () => this.dials++,
  });

  get size(): number {
    return this.all.size;
  }

  channels(): IterableIterator<string> {
    return this.all.channels();
  }

  confirmed(channel: string): Fake[] {
    return this.all.of(channel).filter(({ isClosed }) => !isClosed);
  }

  open(channel: string): Fake {
    const fake = new Fake(channel);
    this.all.add(fake);
    this.check.opened(channel);
    return fake;
  }

  [Symbol.dispose](): void {
    this.check.close();
  }
}

Deno.test("SelfCheck asks once for all that were opened together, and does nothing when they are counted", async () => {
  using world = new World();
  for (let i = 0; i < 50; i++) world.open(`user${i}`);
  await until(() => world.asked.some(({ length }) => length === 50), "one question for all");
  // The slow look at everything goes on, a part at a time.
  await until(() => world.asked.some(({ length }) => length === 2), "a sweep");
  assertEquals([world.found, world.dials], [[], 0]);
});

Deno.test("SelfCheck closes the one that is missing, and the commands dial anew when that was in vain", async () => {
  using world = new World();
  const others = ["a", "b", "c"].map((channel) => world.open(channel));
  const twin = world.open("d");
  const astray = world.open("d");
  astray.isCounted = false;
  await until(() => astray.isClosed, "it to be closed");
  assertEquals([twin.isClosed, others.some(({ isClosed }) => isClosed), world.dials], [true, false, 0]);
  world.all.delete(astray);
  world.all.delete(twin);
  const again = world.open("d");
  again.isCounted = false;
  await until(() => world.dials === 1, "the commands to dial anew");
  assertEquals([again.isClosed, world.found], [true, [1, 1]]);
});

Deno.test("SelfCheck looks at everything when one is missing, and at once blames the commands for most", async () => {
  using world = new World();
  const all = ["a", "b", "c"].map((channel) => world.open(channel));
  await until(() => world.asked.length > 0, "a question");
  for (const fake of all) fake.isCounted = false;
  world.check.counted("a", 0);
  await until(() => world.dials === 1, "the commands to dial anew");
  assertEquals([all.every(({ isClosed }) => isClosed), world.found], [true, [3]]);
});

Deno.test("SelfCheck finds nothing in what is closed or opened while it asks", async () => {
  using world = new World();
  const leaving = world.open("leaving");
  leaving.isCounted = false;
  let rounds = 0;
  world.onAsk = () => {
    rounds++;
    // Each time another one, as when somebody comes and goes all the time.
    for (const fake of world.all.of("flapping")) world.all.delete(fake);
    const next = new Fake("flapping");
    next.isCounted = false;
    world.all.add(next);
    world.check.opened("flapping");
    leaving.isClosed = true;
  };
  world.open("flapping");
  await until(() => rounds >= 5, "some rounds");
  assertEquals([world.found, world.dials], [[], 0]);
});

Deno.test("SelfCheck is spared the question when somebody else has learned the number", async () => {
  using _sweeps = new HeldIntervals(SWEEP_TICK_MS);
  using world = new World();
  world.open("known");
  world.open("unknown");
  world.check.counted("known", 1);
  await until(() => world.asked.length > 0, "a question");
  assertEquals(world.asked[0], ["unknown"]);
});
