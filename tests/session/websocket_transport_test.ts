/**
 * A WebSocket as a transport: what waits for a client, byte by byte, for real sockets don't stop at a byte; and how it is
 * closed so that its peer learns why, by a clock that the test turns.
 */
import { assertEquals } from "@std/assert";
import { CLOSE, type CloseReason } from "../../src/protocol/close_codes.ts";
import type { CloseOptions } from "../../src/session/transport.ts";
import { WebSocketTransport } from "../../src/session/websocket_transport.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

/** A transport for 100 bytes, its client, and what its owner and its handshake are told. */
function make({ isFramed = false, isOpening = false } = {}) {
  const client = new StubSocket();
  client.readyState = WebSocket.CONNECTING;
  const told: string[] = [];
  const transport = new WebSocketTransport(isFramed, 100);
  transport.events = {
    opened: () => void told.push("opened"),
    frame: (data) => void told.push(`frame ${data}`),
    flooded: () => void told.push("flooded"),
    expired() {},
    gone: (code) => void told.push(`gone ${code}`),
  };
  transport.attach(client.socket, {
    opened: () => void told.push("handshake opened"),
    end: () => void told.push("handshake over"),
    lost: () => void told.push("handshake lost"),
  });
  if (!isOpening) {
    client.open();
    told.length = 0;
  }
  return { client, transport, told };
}

Deno.test("A transport holds as much as it may and no more, but for a large frame that goes alone", () => {
  const { client, transport } = make();
  assertEquals([transport.write("x".repeat(60)), transport.write("x".repeat(40))], [true, true]);
  assertEquals([transport.write("x"), client.bufferedAmount], [false, 100]);
  client.take(99);
  assertEquals(transport.write("x".repeat(100)), false, "one byte still waits");
  client.take(1);
  assertEquals([transport.write("x".repeat(1_000)), client.bufferedAmount], [true, 1_000]);
});

Deno.test("A transport has room again when half of what may wait is taken", () => {
  const { client, transport } = make();
  transport.write("x".repeat(100));
  client.take(49);
  assertEquals(transport.hasRoom, false);
  client.take(1);
  assertEquals(transport.hasRoom, true);
});

Deno.test("A client that takes nothing of what waits is stuck, and not one that takes some while more comes", () => {
  const { client, transport } = make();
  assertEquals([transport.tick(false), transport.tick(false)], [0, 0], "nothing waits");
  transport.write("x".repeat(40));
  assertEquals([transport.tick(false), transport.tick(false)], [1, 2]);
  client.take(1);
  assertEquals([transport.tick(false), transport.tick(false)], [0, 1]);
  // No less waits than at the look before, and yet some was taken: before the frame, and after it.
  client.take(5);
  transport.write("x".repeat(10));
  assertEquals([transport.tick(false), transport.tick(false)], [0, 1]);
  transport.write("x".repeat(10));
  client.take(5);
  assertEquals([transport.tick(false), transport.tick(false)], [0, 1]);
  client.take(client.bufferedAmount);
  assertEquals([transport.tick(false), transport.tick(false)], [0, 0]);
});

Deno.test("Seconds in which the process was short of time don't count against a client", () => {
  const { client, transport } = make();
  transport.write("x".repeat(40));
  const ticks = [false, true, true, false].map((isLate) => transport.tick(isLate));
  assertEquals(ticks, [1, 1, 1, 2]);
  client.take(1);
  assertEquals([transport.tick(true), transport.tick(true), transport.tick(false)], [0, 0, 1]);
});

const QUIET_MS = 50;
const REASON: [code: number, reason: string] = [CLOSE.protocol.code, CLOSE.protocol.reason];

Deno.test("Closing says as much of the reason as a Close frame holds, in whole characters", () => {
  for (
    const [reason, said] of [
      ["why", "why"],
      ["x".repeat(123), "x".repeat(123)],
      ["x".repeat(124), "x".repeat(123)],
      ["é".repeat(62), "é".repeat(61)],
      [`x${"😀".repeat(31)}`, `x${"😀".repeat(30)}`],
    ] as const
  ) {
    const { client: peer, transport } = make();
    transport.close({ code: 4400, reason });
    assertEquals(peer.closes, [[4400, said]]);
  }
});

Deno.test("Closing waits for a socket that is not open yet", () => {
  const { client: peer, transport, told } = make({ isOpening: true });
  transport.close(CLOSE.protocol, { whenQuiet: true });
  assertEquals([peer.closes, told], [[], ["handshake over", "gone undefined"]]);
  peer.open();
  assertEquals([peer.closes, told.slice(2)], [[REASON], ["handshake opened"]]);
});

Deno.test("Closing waits until the peer has been quiet, but no longer than a second", () => {
  for (const lively of [0, 1, 5, 19, 1_000]) {
    using quiet = new HeldIntervals(QUIET_MS);
    const { client: peer, transport, told } = make();
    transport.close(CLOSE.protocol, { whenQuiet: true });
    let waits = 0;
    for (; peer.closes.length === 0; waits++) {
      if (waits < lively) peer.frame("more");
      quiet.run();
    }
    assertEquals([waits, peer.closes], [Math.min(lively + 1, 20), [REASON]]);
    assertEquals([quiet.count, told], [0, []]);
  }
});

Deno.test("A peer that sends more than can have been on its way floods, and is closed at once", () => {
  for (const [count, size, ms] of [[10_000, 1, 0], [16, 65_536, 0], [0, 0, 1_000]] as const) {
    using quiet = new HeldIntervals(QUIET_MS);
    using clock = new StandingClock();
    const { client: peer, transport, told } = make();
    transport.close(CLOSE.protocol, { whenQuiet: true });
    const frames = Array.from({ length: count + 1 }, () => new ArrayBuffer(size));
    for (const frame of frames.slice(0, count)) peer.frame(frame);
    clock.pass(ms);
    assertEquals([told, peer.closes], [[], []], "that much may have been on its way");
    // No timer has run: none does while frames come without a pause.
    clock.pass(ms === 0 ? 0 : 1);
    peer.frame(frames[count]);
    peer.frame("after the end");
    assertEquals([told, peer.closes, quiet.count], [["flooded", "frame after the end"], [REASON], 0]);
    assertEquals(frames.filter(({ detached }) => !detached), [], "nothing of it is kept");
  }
});

Deno.test("A peer that leaves while it is heard out leaves no timer", () => {
  using quiet = new HeldIntervals(QUIET_MS);
  const { client: peer, transport } = make();
  transport.close(CLOSE.protocol, { whenQuiet: true });
  assertEquals(quiet.count, 1);
  peer.end();
  assertEquals([quiet.count, peer.closes], [0, []]);
});

Deno.test("A framed client hears in a frame why it is closed, and when to come back; a raw one only in the close", () => {
  const cases: [isFramed: boolean, options: CloseOptions, bye: string[]][] = [
    [false, { retryMs: 1.5 }, []],
    [true, {}, ['{"t":"bye","code":1012,"why":"restart"}']],
    [true, { retryMs: 1.5 }, ['{"t":"bye","code":1012,"why":"restart","retry_ms":2}']],
  ];
  const reason: CloseReason = CLOSE.restart;
  for (const [isFramed, options, bye] of cases) {
    const { client, transport } = make({ isFramed });
    transport.close(reason, options);
    assertEquals([client.sent, client.closes], [bye, [[reason.code, reason.reason]]]);
  }
});

Deno.test("A transport is gone once, with the client's code, and frames that come later are freed and told to nobody", () => {
  const { client, told } = make();
  const frames = [new ArrayBuffer(1), new ArrayBuffer(1)];
  client.frame(frames[0]);
  client.end(1001);
  client.end(1001);
  client.frame(frames[1]);
  assertEquals(told, ["frame [object ArrayBuffer]", "gone 1001"]);
  assertEquals(frames.map(({ detached }) => detached), [true, true]);
});

Deno.test("A client that leaves before its handshake could be answered is lost; one whose socket is open is not", () => {
  const opening = make({ isOpening: true });
  opening.transport.abandon();
  assertEquals(opening.told, ["handshake over", "gone undefined", "handshake lost"]);
  // It opens all the same, and nobody waits for it.
  opening.client.open();
  assertEquals(opening.client.closes, [[CLOSE.overloaded.code, CLOSE.overloaded.reason]]);

  const open = make();
  open.transport.abandon();
  assertEquals([open.told, open.client.closes], [[], []]);
});

Deno.test("A socket that does not open for three seconds has lost its client, but for seconds that came late", () => {
  const { client, transport, told } = make({ isOpening: true });
  for (const isLate of [true, false, true, false, true, true]) transport.tick(isLate);
  assertEquals(told, []);
  transport.tick(false);
  assertEquals(told, ["handshake over", "gone undefined"]);
  client.open();
  assertEquals(client.closes, [[CLOSE.overloaded.code, CLOSE.overloaded.reason]]);
});

Deno.test("What counted against a socket while it opened does not count against its client", () => {
  const { client, transport, told } = make({ isOpening: true });
  for (const isLate of [false, false]) transport.tick(isLate);
  client.open();
  transport.write("x");
  assertEquals([transport.tick(false), told], [1, ["handshake opened", "opened"]]);
});
