/** How many connections Redis still takes, as subscriptions of their own ask before they dial; on no Redis at all. */
import { assertEquals, assertRejects } from "@std/assert";
import { Attempt } from "../../src/async/attempt.ts";
import { Redis } from "../../src/redis/commands.ts";
import { type Clients, ConnectionBudget } from "../../src/redis/connection_budget.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

/** A budget whose Redis says what the test wants it to. */
class World implements Disposable {
  clients: Clients = { connected: 0, max: 10_000 };
  asked = 0;
  readonly clock = new StandingClock();
  readonly #deadlines = new Deadlines(60_000);
  readonly budget = new ConnectionBudget(() => {
    // A budget that never has enough of asking would keep the test from ending.
    if (++this.asked > 10_000) throw new Error("asked too often");
    return Promise.resolve(this.clients);
  });

  begin(signal?: AbortSignal): Attempt {
    return new Attempt(this.#deadlines, { late: () => new Error("late"), signal });
  }

  async take(): Promise<boolean> {
    const attempt = this.begin();
    try {
      return await this.budget.take(attempt);
    } finally {
      attempt.end();
    }
  }

  /** Takes places until there is none, and says how many there were. */
  async takeAll(limit = 1_000): Promise<number> {
    for (let taken = 0;; taken++) if (taken === limit || !await this.take()) return taken;
  }

  [Symbol.dispose](): void {
    this.#deadlines.close();
    this.clock[Symbol.dispose]();
  }
}

Deno.test("Redis tells its connections, and none as its bound where it does not say one", async () => {
  const clients = (info: string) => {
    const command = <T>(issue: (client: { info(): string }) => T) => issue({ info: () => info });
    return Redis.prototype.clients.call({ command } as unknown as Redis);
  };
  assertEquals(await clients("# Clients\r\nconnected_clients:3\r\nmaxclients:10000\r\n"), {
    connected: 3,
    max: 10_000,
  });
  assertEquals(await clients("# Clients\r\nconnected_clients:3\r\n"), { connected: 3, max: Infinity });
  // The bus of a cluster takes places of the same bound.
  const onCluster = "connected_clients:3\r\ncluster_connections:10\r\nmaxclients:100\r\n";
  assertEquals(await clients(onCluster), { connected: 13, max: 100 });
});

Deno.test("ConnectionBudget asks Redis anew when its answer is a second old, however many places that named", async () => {
  using world = new World();
  assertEquals([await world.take(), world.asked], [true, 1]);
  world.clients = { connected: 10_000, max: 10_000 };
  world.clock.pass(1_000);
  assertEquals([await world.take(), world.asked], [true, 1]);
  world.clock.pass(1);
  assertEquals([await world.take(), world.asked], [false, 2]);
  world.clients = { connected: 0, max: 10_000 };
  assertEquals([await world.take(), world.asked], [true, 3], "that there was none is asked for again");
});

Deno.test("ConnectionBudget gives out an eighth of what was left, and asks again before it gives out more", async () => {
  using world = new World();
  world.clients = { connected: 4, max: 100 }; // 80 beside the reserve of 16
  for (let n = 1; n <= 10; n++) assertEquals([await world.take(), world.asked], [true, 1]);
  // Ten are coming: an eighth of 70, rounded up.
  for (let n = 1; n <= 9; n++) assertEquals([await world.take(), world.asked], [true, 2]);
  await world.take();
  assertEquals(world.asked, 3);
});

Deno.test("ConnectionBudget is full when only the reserve is left: sixteen, or one in a hundred where that is more", async () => {
  for (const [max, places] of [[20, 4], [17, 1], [16, 0], [10, 0], [5_000, 4_950]] as const) {
    using world = new World();
    world.clients = { connected: 0, max };
    assertEquals(await world.takeAll(5_000), places, `of ${max}`);
  }
});

Deno.test("ConnectionBudget counts those that are on their way, and none of them twice", async () => {
  using world = new World();
  world.clients = { connected: 0, max: 26 };
  world.budget.expect(7);
  assertEquals(await world.takeAll(), 3);
  // One has arrived, which Redis says as well; another did not come.
  world.budget.arrived();
  world.clients = { connected: 1, max: 26 };
  assertEquals(await world.takeAll(), 0);
  world.budget.arrived();
  assertEquals(await world.takeAll(), 1);
  // Those that were to come back are back, all but one.
  world.budget.expect(-6);
  world.clients = { connected: 7, max: 26 };
  assertEquals(await world.takeAll(), 0);
  world.budget.expect(-1);
  assertEquals(await world.takeAll(), 1);
});

Deno.test("ConnectionBudget asks once for all who come together, and for each of them there is a place or none", async () => {
  using world = new World();
  world.clients = { connected: 0, max: 19 };
  const taken = await Promise.all(Array.from({ length: 5 }, () => world.take()));
  assertEquals(taken.filter((is) => is).length, 3);
  using other = new World();
  await Promise.all(Array.from({ length: 100 }, () => other.take()));
  assertEquals(other.asked, 1);
});

Deno.test("ConnectionBudget of a Redis that does not say how many it takes is never full", async () => {
  using world = new World();
  world.clients = { connected: 500, max: Infinity };
  assertEquals(await world.takeAll(2_000), 2_000);
});

Deno.test("ConnectionBudget: a question that fails fails for those who wait, and the next one asks anew", async () => {
  using world = new World();
  const answers = [Promise.reject(new Error("away")), Promise.resolve({ connected: 0, max: 100 })];
  answers[0]!.catch(() => {});
  const budget = new ConnectionBudget(() => answers.shift()!);
  const attempts = [world.begin(), world.begin()];
  for (const fails of attempts.map((attempt) => budget.take(attempt))) {
    await assertRejects(() => fails, Error, "away");
  }
  assertEquals(await budget.take(attempts[0]!), true);
  for (const attempt of attempts) attempt.end();
});

Deno.test("ConnectionBudget: whoever gives up while Redis is asked takes no place", async () => {
  using world = new World();
  const answer = Promise.withResolvers<Clients>();
  const budget = new ConnectionBudget(() => answer.promise);
  const leaving = new AbortController();
  const attempts = [world.begin(leaving.signal), world.begin()];
  const [given, waiting] = attempts.map((attempt) => budget.take(attempt));
  leaving.abort(new Error("the client left"));
  await assertRejects(() => given!, Error, "the client left");
  answer.resolve({ connected: 0, max: 17 });
  assertEquals(await waiting, true);
  for (const attempt of attempts) attempt.end();
});
