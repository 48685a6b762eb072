/** What is done for very many things: counted in items a turn of the event loop, on no clock. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { setImmediate } from "node:timers";
import { type Linked, UNLINKED } from "../../src/async/chain.ts";
import { inSlices, Pace, Rounds } from "../../src/async/slices.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

Deno.test("What fits in a slice is done at once", () => {
  using _clock = new StandingClock();
  const done: number[] = [];
  void inSlices(numbers(31), (number) => void done.push(number));
  assertEquals(done, numbers(31));
});

Deno.test("More is done in slices of at most 250, in order, each in a turn of its own", async () => {
  using _clock = new StandingClock();
  using turns = new TurnCounter();
  const done: number[] = [];
  const all = inSlices(numbers(1_001), (number) => {
    turns.count();
    done.push(number);
  });
  assertEquals(done.length, 32);
  await all;
  assertEquals([done, turns.most], [numbers(1_001), 250]);
});

Deno.test("After a turn that took long, with what promises did in it, the next slice has half as many", async () => {
  using clock = new StandingClock();
  const slices: number[] = [];
  let isNew = true;
  await inSlices(numbers(1_000), () => {
    if (isNew) {
      slices.push(0);
      setImmediate(() => isNew = true);
      const ms = slices.length % 4 === 0 ? 3 : 0;
      void Promise.resolve().then(() => clock.pass(ms));
    }
    isNew = false;
    slices[slices.length - 1]!++;
  });
  assertEquals(slices, [32, 64, 128, 250, 125, 250, 151]);
});

Deno.test("A slice ends when its time is over, which is looked at after every eighth", () => {
  using clock = new StandingClock();
  const done: number[] = [];
  const stop = new AbortController();
  void inSlices(numbers(100), (number) => {
    clock.pass(number === 8 ? 2 : 0);
    done.push(number);
  }, stop.signal);
  stop.abort();
  assertEquals(done, numbers(16));
});

Deno.test("Items that go before it is their turn are not met, those that come are", async () => {
  using _clock = new StandingClock();
  const items = new Set(numbers(600));
  const done: number[] = [];
  const all = inSlices(items, (item) => void done.push(item));
  items.delete(32);
  items.delete(599);
  items.add(1_000);
  await all;
  assertEquals(done, [...items]);
});

Deno.test("An aborted signal ends it before the next item", async () => {
  using _clock = new StandingClock();
  const stop = new AbortController();
  let count = 0;
  const all = inSlices(numbers(1_000), () => void count++, stop.signal);
  stop.abort();
  await all;
  assertEquals(count, 32);
});

Deno.test("What the work throws ends it", async () => {
  let count = 0;
  const failing = () => {
    if (++count === 2) throw new Error("no");
  };
  await assertRejects(() => inSlices(numbers(3), failing), Error, "no");
  assertEquals(count, 2);
});

// ---------------------------------------------------------------------------------------------------------

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Those who come to a pace, and then do something that takes so long. */
class Crowd {
  readonly done: number[] = [];
  /** How many of them in each turn. */
  readonly slices: number[] = [];
  #isNew = true;
  readonly #pace = new Pace();
  readonly #clock: StandingClock;

  constructor(clock: StandingClock) {
    this.#clock = clock;
  }

  async come(number: number, ms = 0): Promise<void> {
    const turn = this.#pace.turn();
    if (turn) await turn;
    if (this.#isNew) {
      this.#isNew = false;
      setImmediate(() => this.#isNew = true);
      this.slices.push(0);
    }
    this.slices[this.slices.length - 1]!++;
    this.#clock.pass(ms);
    this.done.push(number);
  }
}

Deno.test("A few go on at once, in each turn of the event loop anew", async () => {
  using _clock = new StandingClock();
  const pace = new Pace();
  for (let i = 0; i < 4; i++) {
    assertEquals(numbers(32).map(() => pace.turn()), Array(32).fill(undefined));
    await turn();
  }
});

Deno.test("A crowd is let through in the order of its coming, in turns that grow to at most 250", async () => {
  using clock = new StandingClock();
  const crowd = new Crowd(clock);
  await Promise.all(numbers(1_000).map((number) => crowd.come(number)));
  assertEquals([crowd.done, crowd.slices], [numbers(1_000), [32, 64, 128, 250, 250, 250, 26]]);
});

Deno.test("Of those who take long fewer go on in a turn, and the clock is looked at before every eighth", async () => {
  using clock = new StandingClock();
  const crowd = new Crowd(clock);
  await Promise.all(numbers(100).map((number) => crowd.come(number, number < 32 ? 0 : 0.125)));
  assertEquals([crowd.done, crowd.slices], [numbers(100), [32, 16, 16, 16, 16, 4]]);
});

// ---------------------------------------------------------------------------------------------------------

const OPTIONS = { periodMs: 1_000, parts: 10, maxLateMs: 250 };
const CALM = { items: 20, everyMs: 500 };

interface Item extends Linked<Item> {
  readonly number: number;
}

/** Rounds whose time passes when the test says so. */
class World implements Disposable {
  readonly clock = new StandingClock();
  readonly ticks = new HeldIntervals([100, CALM.everyMs]);
  readonly rounds: Rounds<Item>;
  readonly #items = new Map<number, Item>();
  visits: [number, boolean][] = [];

  constructor(calm?: typeof CALM) {
    this.rounds = new Rounds({ ...OPTIONS, ...(calm && { calm }) });
  }

  start(): void {
    this.rounds.start(({ number }, isLate) => void this.visits.push([number, isLate]));
  }

  add(...numbers: number[]): void {
    for (const number of numbers) {
      const item = { ...UNLINKED, number };
      this.#items.set(number, item);
      this.rounds.add(item);
    }
  }

  delete(number: number): boolean {
    return this.rounds.delete(this.#items.get(number)!);
  }

  /** Lets time pass, then the timer runs; who was visited. */
  async tick(ms = 100): Promise<[number, boolean][]> {
    this.clock.pass(ms);
    this.ticks.run();
    await new Promise((resolve) => setImmediate(resolve));
    return this.visits.splice(0);
  }

  async round(): Promise<number[]> {
    const visited: number[] = [];
    for (let part = 0; part < OPTIONS.parts; part++) {
      visited.push(...(await this.tick()).map(([item]) => item));
    }
    return visited;
  }

  [Symbol.dispose](): void {
    this.rounds.stop();
    this.ticks[Symbol.dispose]();
    this.clock[Symbol.dispose]();
  }
}

Deno.test("Each is visited once in a round, in its own part of it, whoever comes and goes", async () => {
  using world = new World();
  world.add(...numbers(20));
  world.start();
  assertEquals(await world.tick(), [[0, false], [10, false]]);
  assertEquals(await world.tick(), [[1, false], [11, false]]);
  for (let i = 2; i < 10; i++) await world.tick();
  // Item 15 keeps its place behind those that are gone.
  for (const item of numbers(15)) assert(world.delete(item));
  assert(!world.delete(3));
  world.add(20);
  const visited = [];
  for (let i = 0; i < 10; i++) visited.push((await world.tick()).map(([item]) => item));
  assertEquals(visited, [[20], [], [], [], [], [15], [16], [17], [18], [19]]);
  assertEquals([world.rounds.size, [...world.rounds].map(({ number }) => number)], [6, [
    20,
    15,
    16,
    17,
    18,
    19,
  ]]);
});

Deno.test("A timer that is a little late makes up for it, so that rounds take no longer", async () => {
  using world = new World();
  world.add(...numbers(10));
  world.start();
  assertEquals(await world.tick(300), [[0, false], [1, false], [2, false]]);
  assertEquals(await world.tick(100), [[3, false]]);
  assertEquals(await world.tick(199), [[4, false]]);
  assertEquals(await world.tick(101), [[5, false], [6, false]]);
});

Deno.test("After one that is late by more than may be, each is visited late once", async () => {
  using world = new World();
  world.add(...numbers(10));
  world.start();
  assertEquals(await world.tick(350), [[0, false], [1, false], [2, false]]);
  assertEquals(await world.tick(50 + 251), [[3, true]]);
  const late: [number, boolean][] = [];
  for (let i = 0; i < 9; i++) late.push(...await world.tick());
  assertEquals(late, [4, 5, 6, 7, 8, 9, 0, 1, 2].map((item) => [item, true]));
  assertEquals(await world.tick(), [[3, false]]);
});

Deno.test("Rounds are started once, and stopped in the middle of a visit visit nobody more", async () => {
  using world = new World();
  world.add(...numbers(5_000));
  world.start();
  world.start();
  assertEquals(world.ticks.made, 1);
  world.clock.pass(100);
  world.ticks.run();
  world.rounds.stop();
  await new Promise((resolve) => setImmediate(resolve));
  assertEquals([world.visits.length, world.ticks.count], [32, 0]);
  world.visits = [];
  world.start();
  const visited = await world.tick();
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
  assertEquals(
    [visited.length + world.visits.length, visited[0]![0]],
    [500, 1],
    "it goes on with the next part",
  );
});

Deno.test("A part that takes longer than its time keeps others waiting, and none is visited twice for it", async () => {
  using world = new World();
  world.add(...numbers(10_000));
  world.start();
  for (let i = 0; i < 100; i++) {
    world.clock.pass(100);
    world.ticks.run();
  }
  const first = world.visits.length;
  for (let i = 0; i < 1_000 && world.visits.length < 11_000; i++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
  assertEquals([first, world.visits.length], [32, 11_000], "the part under way, and each once");
  assert(new Set(world.visits.map(([item]) => item)).size === 10_000);
});

Deno.test("A part that comes due when another has just been visited waits for the next turn", async () => {
  using world = new World();
  using turns = new TurnCounter();
  // Slices of 32, 64, 128 and 219: with the first of the next part the last one would be too large.
  const size = 443;
  world.add(...numbers(size * OPTIONS.parts));
  let visited = 0;
  const comeDue = async () => {
    for (let i = 0; i < 20; i++) await undefined; // until the visit is over, in this very turn
    world.clock.pass(100);
    world.ticks.run();
  };
  world.rounds.start(() => {
    turns.count();
    if (++visited === size) void comeDue();
  });
  world.clock.pass(100);
  world.ticks.run();
  for (let i = 0; i < 1_000 && visited < 2 * size; i++) await new Promise((resolve) => setImmediate(resolve));
  assertEquals([visited, turns.most], [2 * size, 219]);
});

Deno.test("A few are visited several parts at a time, each once in a period, with the timer for as many as there are", async () => {
  using world = new World(CALM);
  world.add(...numbers(20));
  world.start();
  const half = (from: number) => numbers(20).filter((i) => i % 10 >= from && i % 10 < from + 5);
  const sorted = (items: number[]) => items.toSorted((a, b) => a - b);
  const visited = async (ms: number) => sorted((await world.tick(ms)).map(([item]) => item));
  assertEquals([await visited(500), await visited(500), await visited(500)], [half(0), half(5), half(0)]);
  assertEquals(world.ticks.made, 1);
  // Too many to be visited at one time: part by part from then on, none of them later than it would be.
  world.add(20);
  assertEquals(await visited(500), half(5));
  assertEquals([world.ticks.made, world.ticks.count], [2, 1]);
  assertEquals(await visited(100), [0, 10, 20]);
  assertEquals(await visited(100), [1, 11]);
  world.delete(20);
  assertEquals(await visited(100), [2, 12]);
  assertEquals([world.ticks.made, world.ticks.count], [3, 1]);
  assertEquals(await visited(500), [3, 4, 5, 6, 7, 13, 14, 15, 16, 17]);
  world.rounds.stop();
  assertEquals(world.ticks.count, 0);
});

Deno.test("A few are late when the ticker is, not because they wait for it", async () => {
  using world = new World(CALM);
  world.add(...numbers(10));
  world.start();
  const late = async (ms: number) => (await world.tick(ms)).filter(([, isLate]) => isLate).length;
  assertEquals([await late(500), await late(750), await late(500 + 251), await late(500), await late(500)], [
    ...[0, 0, 1, 5, 4],
  ]);
});
