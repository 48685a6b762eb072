/** How long the pauses between attempts are. */
import { assertEquals } from "@std/assert";
import { backoffMs } from "../../src/async/backoff.ts";

Deno.test("backoffMs doubles with each failure up to its bound, and is random in whole or in part", () => {
  const backoff = { baseMs: 50, maxMs: 1_000 };
  const longest = [0, 1, 2, 4, 5, 5_000].map((failures) => backoffMs(failures, backoff, 1));
  assertEquals(longest, [50, 100, 200, 800, 1_000, 1_000]);
  assertEquals([0, 0.25].map((random) => backoffMs(2, backoff, random)), [0, 50]);
  const half = { ...backoff, jitter: 0.5 };
  assertEquals([0, 0.5, 1].map((random) => backoffMs(2, half, random)), [100, 150, 200]);
});

Deno.test("backoffMs takes chance from Math.random", () => {
  for (let i = 0; i < 1_000; i++) {
    const ms = backoffMs(1, { baseMs: 50, maxMs: 1_000 });
    assertEquals(ms >= 0 && ms < 100, true);
  }
});
