/** How a socket is closed so that its peer learns why, by a clock that the test turns. */
import { assertEquals } from "@std/assert";
import { hangUp } from "../../src/session/hang_up.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

const QUIET_MS = 50;
const REASON: [code: number, reason: string] = [CLOSE.protocol.code, CLOSE.protocol.why];

Deno.test("Hanging up says as much of the reason as a Close frame holds, in whole characters", () => {
  for (
    const [why, said] of [
      ["why", "why"],
      ["x".repeat(123), "x".repeat(123)],
      ["x".repeat(124), "x".repeat(123)],
      ["é".repeat(62), "é".repeat(61)],
      [`x${"😀".repeat(31)}`, `x${"😀".repeat(30)}`],
    ] as const
  ) {
    const peer = new StubSocket();
    hangUp(peer.socket, { code: 4400, why });
    assertEquals(peer.closes, [[4400, said]]);
  }
});

Deno.test("Hanging up waits for a socket that is not open yet", () => {
  const peer = new StubSocket();
  peer.readyState = WebSocket.CONNECTING;
  hangUp(peer.socket, CLOSE.protocol, { whenQuiet: true });
  assertEquals(peer.closes, []);
  peer.open();
  assertEquals(peer.closes, [REASON]);
});

Deno.test("Hanging up waits until the peer has been quiet, but no longer than a second", () => {
  for (const lively of [0, 1, 5, 19, 1_000]) {
    using quiet = new HeldIntervals(QUIET_MS);
    const peer = new StubSocket();
    let floods = 0;
    hangUp(peer.socket, CLOSE.protocol, { whenQuiet: true, onFlood: () => floods++ });
    let waits = 0;
    for (; peer.closes.length === 0; waits++) {
      if (waits < lively) peer.frame("more");
      quiet.run();
    }
    assertEquals([waits, peer.closes], [Math.min(lively + 1, 20), [REASON]]);
    assertEquals([quiet.count, floods], [0, 0]);
  }
});

Deno.test("A peer that sends more than can have been on its way floods, and is closed at once", () => {
  for (const [count, size, ms] of [[10_000, 1, 0], [16, 65_536, 0], [0, 0, 1_000]] as const) {
    using quiet = new HeldIntervals(QUIET_MS);
    using clock = new StandingClock();
    const peer = new StubSocket();
    let floods = 0;
    hangUp(peer.socket, CLOSE.protocol, { whenQuiet: true, onFlood: () => floods++ });
    const frames = Array.from({ length: count + 1 }, () => new ArrayBuffer(size));
    for (const frame of frames.slice(0, count)) peer.frame(frame);
    clock.pass(ms);
    assertEquals([floods, peer.closes], [0, []], "that much may have been on its way");
    // No timer has run: none does while frames come without a pause.
    clock.pass(ms === 0 ? 0 : 1);
    peer.frame(frames[count]);
    peer.frame("after the end");
    assertEquals([floods, peer.closes, quiet.count], [1, [REASON], 0]);
    assertEquals(frames.filter(({ detached }) => !detached), [], "nothing of it is kept");
  }
});

Deno.test("A peer that leaves while it is heard out leaves no timer", () => {
  using quiet = new HeldIntervals(QUIET_MS);
  const peer = new StubSocket();
  hangUp(peer.socket, CLOSE.protocol, { whenQuiet: true });
  assertEquals(quiet.count, 1);
  peer.end();
  assertEquals([quiet.count, peer.closes], [0, []]);
});
