/** A session whose handshake is answered and whose socket is not open: Deno may never say that the client has left. */
import { assertEquals } from "@std/assert";
import type { SessionContext } from "../../src/session/context.ts";
import { Session } from "../../src/session/session.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { WebSocketTransport } from "../../src/session/websocket_transport.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

/** A session that is opening, and what its house and its handshake are told. */
function make() {
  const told: string[] = [];
  const context = {
    limits: {
      maxFrameBytes: 100,
      maxFramesPerSecond: 100,
      maxBytesPerSecond: 1_000,
      maxBufferedBytes: 1_000,
    },
    log: memoryLog(),
    metrics: { onFail: (code: number) => told.push(`failed ${code}`) },
    registry: {
      isPatient: () => true,
      onEnd: () => told.push("end"),
      onGone: () => told.push("gone"),
    },
  };
  const transport = new WebSocketTransport(false, context.limits.maxBufferedBytes);
  const session = new Session(transport, { username: "alice" }, context as unknown as SessionContext);
  const peer = new StubSocket();
  peer.readyState = WebSocket.CONNECTING;
  transport.attach(peer.socket, {
    opened: () => void told.push("opened"),
    end: () => void told.push("no handshake"),
    lost: () => void told.push("lost"),
  });
  return { session, peer, told };
}

Deno.test("A session that does not open for three seconds has lost its client, but for seconds that came late", () => {
  const { session, peer, told } = make();
  for (const isLate of [true, false, true, false, true, true]) session.tick(isLate);
  assertEquals([session.state, told], ["opening", []]);
  session.tick(false);
  assertEquals([session.state, told], ["closed", ["no handshake", "end", "gone"]]);
  for (let i = 0; i < 5; i++) session.tick(false);
  // It opens all the same, and nobody waits for it.
  peer.open();
  assertEquals([peer.closes, told.slice(3)], [[[CLOSE.overloaded.code, CLOSE.overloaded.reason]], [
    "opened",
  ]]);
});

Deno.test("A session that is closed before it is open is not waited for", () => {
  const { session, peer, told } = make();
  session.close(CLOSE.kicked);
  assertEquals([session.state, told], ["closed", ["end", "failed 4403", "no handshake", "gone"]]);
  assertEquals(peer.closes, []);
  peer.open();
  assertEquals(peer.closes, [[CLOSE.kicked.code, CLOSE.kicked.reason]]);
});
