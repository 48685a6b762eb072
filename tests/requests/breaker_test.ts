/** When a backend is left alone, and when it is asked again. */
import { assert, assertEquals } from "@std/assert";
import { Breaker, MAX_FAILURES, type Verdict } from "../../src/requests/breaker.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

function pass(breaker: Breaker): Verdict {
  const entry = breaker.enter();
  assert(typeof entry !== "number", `left alone for ${entry} ms`);
  return entry;
}

function fail(breaker: Breaker, times: number): void {
  for (let i = 0; i < times; i++) pass(breaker)(false);
}

Deno.test("Five failures in a row are too many, four and a success are not, and nothing said is none", () => {
  const changes: boolean[] = [];
  const breaker = new Breaker((isAway) => changes.push(isAway));
  fail(breaker, MAX_FAILURES - 1);
  pass(breaker)(undefined);
  pass(breaker)(true);
  fail(breaker, MAX_FAILURES - 1);
  assertEquals(changes, []);
  fail(breaker, 1);
  assertEquals(changes, [true]);
  assertEquals(typeof breaker.enter(), "number");
});

Deno.test("After its time one request finds out, the others wait; each failure makes the time longer, up to 30 s", () => {
  using clock = new StandingClock();
  const changes: boolean[] = [];
  const breaker = new Breaker((isAway) => changes.push(isAway));
  // What was under way when it went away makes nothing worse.
  const late = Array.from({ length: 50 }, () => pass(breaker));
  fail(breaker, MAX_FAILURES);
  for (const verdict of late) verdict(false);
  let longest = 0;
  for (let i = 0; i < 8; i++) {
    const leftMs = breaker.enter();
    assert(typeof leftMs === "number");
    assert(
      leftMs >= Math.min(15_000, 500 * 2 ** i) && leftMs <= Math.min(30_000, 1_000 * 2 ** i),
      `${leftMs}`,
    );
    longest = leftMs;
    clock.pass(leftMs);
    const probe = pass(breaker);
    assertEquals(breaker.enter(), 1_000, "one at a time");
    probe(false);
  }
  assert(longest >= 15_000);
  clock.pass(30_000);
  pass(breaker)(undefined);
  const probe = pass(breaker);
  probe(true);
  assertEquals(changes, [true, false]);
  fail(breaker, MAX_FAILURES - 1);
  pass(breaker)(true);
});
