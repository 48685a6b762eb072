/** The timer for what is done every so often, by a clock that the test turns. */
import { assert, assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import { TICK_MS, Ticker } from "../../src/async/ticker.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

/** A ticker whose time passes when the test says so, with all timers that it sets. */
class World implements Disposable {
  readonly clock = new StandingClock();
  readonly ticker: Ticker;
  readonly #timers = new Set<{ ms: number; dueMs: number; run: () => void; holds: boolean }>();
  /** How often it woke. */
  wakes = 0;
  done: string[] = [];

  constructor() {
    this.ticker = new Ticker((run, ms) => {
      const timer = {
        ms,
        dueMs: performance.now() + ms,
        run,
        holds: true,
        hold: (holds: boolean) => void (timer.holds = holds),
        clear: () => void this.#timers.delete(timer),
      };
      this.#timers.add(timer);
      return timer;
    });
  }

  /** Whether each timer that is set keeps the process alive. */
  get timers(): boolean[] {
    return [...this.#timers].map(({ holds }) => holds);
  }

  every(periodMs: number, name: string, options?: { holds: boolean }): () => void {
    return this.ticker.every(periodMs, () => void this.done.push(name), options);
  }

  /** Lets time pass, timer by timer; what was done. */
  pass(ms: number): string[] {
    const endMs = performance.now() + ms;
    for (;;) {
      const [next] = [...this.#timers].sort((a, b) => a.dueMs - b.dueMs);
      if (!next || next.dueMs > endMs) break;
      this.clock.pass(Math.max(0, next.dueMs - performance.now()));
      this.#timers.delete(next);
      this.wakes++;
      next.run();
    }
    this.clock.pass(endMs - performance.now());
    return this.done.splice(0);
  }

  /** The next timer runs, and no time passes by the clock. @returns For how long it was set. */
  tick(): number {
    const [next] = [...this.#timers];
    this.#timers.delete(next!);
    next!.run();
    return next!.ms;
  }

  [Symbol.dispose](): void {
    this.clock[Symbol.dispose]();
  }
}

Deno.test("All that is done every so often is done at the same moments, and it wakes at no other", () => {
  using world = new World();
  world.every(1_000, "a");
  world.pass(130);
  world.every(1_000, "b");
  world.every(500, "c");
  assertEquals(world.pass(370), ["c"]);
  assertEquals(world.pass(500), ["a", "b", "c"]);
  assertEquals(world.pass(10_000).length, 10 + 10 + 20);
  assertEquals([world.wakes, world.timers], [22, [true]]);
});

Deno.test("What has ended is done no more, also by what was due in the same tick, and then no timer is left", () => {
  using world = new World();
  const stopFast = world.every(TICK_MS, "fast");
  const stopSlow = world.every(2_000, "slow");
  assertEquals(world.pass(500), ["fast", "fast"]);
  stopFast();
  stopFast();
  const wakes = world.wakes;
  assertEquals([world.pass(1_500), world.wakes - wakes], [["slow"], 1]);
  let stopOther = () => {};
  const stop = world.ticker.every(2_000, () => (stopSlow(), stopOther()));
  stopOther = world.every(2_000, "other");
  assertEquals(world.pass(2_000), ["slow"]);
  assertEquals(world.pass(2_000), []);
  stop();
  assertEquals(world.timers, []);
  world.pass(700);
  world.every(1_000, "anew");
  assertEquals([world.pass(299), world.pass(1)], [[], ["anew"]]);
});

Deno.test("A process that did not run for a while does each once, and again no sooner than a tick later", () => {
  using world = new World();
  world.every(TICK_MS, "a");
  world.every(1_000, "b");
  world.clock.pass(10_100);
  assertEquals(world.pass(0), ["a", "b"]);
  assertEquals([world.pass(399), world.pass(1)], [[], ["a"]]);
  assertEquals([world.pass(499), world.pass(1)], [["a"], ["a", "b"]]);
  // It goes on when the next tick is almost there.
  world.clock.pass(10_249);
  assertEquals(world.pass(0), ["a", "b"]);
  assertEquals([world.pass(250), world.pass(1)], [[], ["a"]]);
});

Deno.test("A process is kept alive while something is done that keeps it, and not by the rest", () => {
  using world = new World();
  world.every(1_000, "log", { holds: false });
  assertEquals(world.timers, [false]);
  const stop = world.every(1_000, "sweep");
  assertEquals(world.timers, [true]);
  stop();
  assertEquals(world.timers, [false]);
  world.pass(1_000);
  assertEquals(world.timers, [false]);
});

Deno.test("A pause ends at the first tick after its time, or at once with its signal", async () => {
  using world = new World();
  world.pass(100);
  const stop = new AbortController();
  let ended = 0;
  const pause = (ms: number, signal = stop.signal) => world.ticker.pause(ms, signal).then(() => ended++);
  const heard = () => new Promise((resolve) => setImmediate(resolve));
  const first = pause(400);
  world.pass(399);
  await heard();
  assertEquals(ended, 0);
  world.pass(1);
  await first;
  assertEquals(world.timers, []);
  const second = pause(401);
  world.pass(499);
  await heard();
  assertEquals(ended, 1);
  world.pass(1);
  await second;
  const third = pause(1_000);
  stop.abort();
  await third;
  assertEquals([ended, world.timers], [3, []]);
  await pause(1_000);
});

Deno.test("What follows on something long comes in a turn of its own, unless it has ended meanwhile", async () => {
  using world = new World();
  world.ticker.every(TICK_MS, () => world.clock.pass(2));
  const stop = world.every(TICK_MS, "ended");
  world.every(TICK_MS, "next");
  assertEquals(world.pass(TICK_MS), []);
  stop();
  await new Promise((resolve) => setImmediate(resolve));
  assert(world.done.length === 1 && world.done[0] === "next", world.done.join());
});

Deno.test("Time passes for it also by a clock that stands, or is turned back", () => {
  using world = new World();
  world.every(TICK_MS, "a");
  assertEquals(world.pass(1_000), ["a", "a", "a", "a"]);
  for (let i = 0; i < 10; i++) assert(world.tick() <= TICK_MS);
  world.clock.pass(-10_000);
  for (let i = 0; i < 10; i++) assert(world.tick() <= TICK_MS);
  assertEquals(world.done.length, 20);
});
