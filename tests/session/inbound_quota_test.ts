/** What a client may send in a second, to the frame and the byte, by a clock that the test turns. */
import { assertEquals } from "@std/assert";
import { InboundQuota } from "../../src/session/inbound_quota.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

const LIMITS = { maxFrameBytes: 8, maxFramesPerSecond: 3, maxBytesPerSecond: 20 };

/** A quota in the middle of the life of a process. */
function make(clock: StandingClock): InboundQuota {
  clock.pass(10_000);
  return new InboundQuota(LIMITS);
}

Deno.test("A client may send so many frames and bytes in each second, and what it did not use is not saved up", () => {
  using clock = new StandingClock();
  const quota = make(clock);
  const take = (...sizes: number[]) => sizes.map((size) => quota.take("x".repeat(size)));
  for (const ms of [0, 1_000, 60_000]) {
    clock.pass(ms);
    assertEquals(take(1, 1, 1, 1), [undefined, undefined, undefined, CLOSE.tooFast]);
    clock.pass(1_000);
    assertEquals(take(8, 8, 4), [undefined, undefined, undefined]);
    clock.pass(1_000);
    assertEquals(take(8, 8, 5), [undefined, undefined, CLOSE.tooMuch]);
  }
  clock.pass(1_000);
  assertEquals(take(8, 8), [undefined, undefined]);
  clock.pass(999);
  assertEquals(take(5), [CLOSE.tooMuch], "the second is not over");
});

Deno.test("A frame is measured in bytes, and one of the largest size is not too large", () => {
  using clock = new StandingClock();
  for (
    const [data, excess] of [
      ["x".repeat(8), undefined],
      ["x".repeat(9), CLOSE.tooBig],
      ["éééé", undefined],
      ["ééééx", CLOSE.tooBig],
      ["語語xx", undefined],
      ["語語語", CLOSE.tooBig],
      ["😀😀", undefined],
      ["😀😀x", CLOSE.tooBig],
      [new ArrayBuffer(8), undefined],
      [new ArrayBuffer(9), CLOSE.tooBig],
    ] as const
  ) {
    assertEquals(make(clock).take(data), excess, String(data));
  }
});
