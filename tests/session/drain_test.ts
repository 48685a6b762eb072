/** How many sessions are ended together: the test says when a step is over and when a socket is gone. */
import { setImmediate } from "node:timers";
import { assert, assertEquals } from "@std/assert";
import { UNLINKED } from "../../src/async/chain.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { drain, sendAway } from "../../src/session/drain.ts";
import { type Member, Registry } from "../../src/session/registry.ts";
import { HeldSeconds, HeldTimers } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

/** A registry whose members end when they are told to, and whose sockets stay until the test says so. */
class Stage {
  readonly registry = new Registry({ maxConnections: 100_000, onFlood() {}, hasFlooded: () => false });
  readonly closed: Member[] = [];
  readonly retriesMs: number[] = [];

  join(count: number): void {
    for (let i = 0; i < count; i++) {
      const member: Member = {
        ...UNLINKED,
        addressKey: undefined,
        tick() {},
        close: (_reason, options) => {
          this.closed.push(member);
          this.retriesMs.push(options!.retryMs!);
          this.registry.onEnd(member);
        },
      };
      this.registry.join(member, "address");
    }
  }

  leave(members: Member[]): void {
    for (const member of members) this.registry.onGone(member);
  }
}

/** By then every promise that could go on has. */
const turn = () => new Promise((resolve) => setTimeout(() => setImmediate(resolve)));

Deno.test("A drain closes in steps, then whoever joined meanwhile, and waits until all sockets are gone", async () => {
  using steps = new HeldTimers(50);
  const stage = new Stage();
  stage.join(20);
  let left: number | undefined;
  const drained = drain(stage.registry, CLOSE.restart, 60_000).then((count) => left = count);
  await turn();
  assertEquals(stage.closed.length, 10, "twenty in a tenth of a second are ten in a twentieth");
  stage.join(1);
  await turn();
  steps.run();
  await turn();
  assertEquals([stage.closed.length, steps.count], [21, 0]);
  assert(stage.retriesMs.every((ms) => ms >= 0 && ms <= 1_050), `${stage.retriesMs}`);
  stage.leave(stage.closed.slice(1));
  await turn();
  assertEquals(left, undefined, "one socket is still there");
  stage.leave(stage.closed.slice(0, 1));
  await drained;
  assertEquals(left, 0);
});

Deno.test("Clients that a drain of 2,000 sends away come back evenly: no second has twice the mean", async () => {
  // The times by the steps, of which each takes what it should: no machine is too slow for that.
  using steps = new HeldTimers(50);
  const stage = new Stage();
  stage.join(2_000);
  const arrivals: number[] = [];
  const drained = drain(stage.registry, CLOSE.restart, 10_000);
  for (let step = 0; stage.registry.size > 0; step++) {
    await turn();
    arrivals.push(...stage.retriesMs.splice(0).map((retryMs) => step * 50 + retryMs));
    steps.run();
  }
  const seconds: number[] = new Array(Math.ceil(Math.max(...arrivals) / 1_000)).fill(0);
  for (const ms of arrivals) seconds[Math.floor(ms / 1_000)]!++;
  assertEquals(seconds.reduce((sum, count) => sum + count), 2_000);
  const mean = 2_000 / seconds.length;
  // Evenly spread chance lets a second stray by some tens from its share; a heap in the middle has double.
  assert(seconds.length >= 13 && Math.max(...seconds) < 1.4 * mean, `${seconds} with a mean of ${mean}`);
  stage.leave(stage.closed);
  assertEquals(await drained, 0);
});

Deno.test("A drain that is given up closes no more, and waits for nobody", async () => {
  using steps = new HeldTimers(50);
  const stage = new Stage();
  stage.join(20);
  const stop = new AbortController();
  const told: [number, number][] = [];
  const drained = drain(stage.registry, CLOSE.restart, 60_000, {
    signal: stop.signal,
    onStep: (closed, of) => told.push([closed, of]),
  });
  await turn();
  stop.abort();
  steps.run();
  assertEquals([await drained, stage.closed.length, stage.registry.size, told], [20, 10, 10, [[10, 20]]]);
  const late = new AbortController();
  const waiting = drain(stage.registry, CLOSE.restart, 60_000, { signal: late.signal });
  await turn();
  late.abort();
  assertEquals(await waiting, 20);
});

Deno.test("A drain ends with its window, and says how many sockets it leaves behind", async () => {
  const stage = new Stage();
  stage.join(3);
  assertEquals(await drain(stage.registry, CLOSE.restart, 0), 3);
});

Deno.test("Sending away is over when those that were there are gone; those that join meanwhile stay", async () => {
  using steps = new HeldTimers(50);
  const stage = new Stage();
  stage.join(20);
  let isOver = false;
  const over = sendAway(stage.registry, CLOSE.restart, 60_000).then(() => isOver = true);
  stage.join(1);
  await turn();
  steps.run();
  await turn();
  stage.leave(stage.closed.slice(1));
  await turn();
  assertEquals([stage.closed.length, isOver], [20, false]);
  stage.leave(stage.closed.slice(0, 1));
  await over;
  assertEquals(stage.registry.size, 1);
  for (const member of stage.registry.live()) member.close(CLOSE.restart, { retryMs: 0 });
});

Deno.test("Ten thousand sessions are never ticked, verified or closed more than 250 in a turn of the event loop", async () => {
  using turns = new TurnCounter();
  using seconds = new HeldSeconds();
  using _clock = new StandingClock();
  const registry = new Registry({ maxConnections: 10_000, onFlood() {}, hasFlooded: () => false });
  const ticks = new Map<Member, number>();
  for (let i = 0; i < 10_000; i++) {
    const member: Member = {
      ...UNLINKED,
      addressKey: undefined,
      tick() {
        turns.count();
        ticks.set(member, (ticks.get(member) ?? 0) + 1);
      },
      verify: () => turns.count(),
      close() {
        turns.count();
        registry.onEnd(member);
        registry.onGone(member);
      },
    };
    registry.join(member, "address");
  }
  seconds.run();
  for (let i = 0; i < 1_000 && turns.all < 10_000; i++) await turn();
  await turn();
  assertEquals([turns.most, new Set(ticks.values()), ticks.size], [250, new Set([1]), 10_000]);
  await registry.verify();
  await turn();
  assertEquals([turns.all, turns.most], [20_000, 250]);
  assertEquals(await drain(registry, CLOSE.restart, 0), 0);
  assertEquals([turns.all, turns.most, seconds.count], [30_000, 250, 0]);
});
