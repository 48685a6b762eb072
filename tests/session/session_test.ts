/** A connection whose handshake is answered and whose socket is not open: Deno may never say that the client has left. */
import { assertEquals } from "@std/assert";
import { Connection, type ConnectionHost } from "../../src/session/session.ts";
import { memoryLog } from "../../src/log/log.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { WebSocketTransport } from "../../src/session/websocket_transport.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

/** A connection that is opening, and what its house and its handshake are told. */
function make() {
  const told: string[] = [];
  const host = {
    limits: {
      maxFrameBytes: 100,
      maxFramesPerSecond: 100,
      maxBytesPerSecond: 1_000,
      maxBufferedBytes: 1_000,
    },
    log: memoryLog(),
    metrics: { onFail: (code: number) => told.push(`failed ${code}`) },
    isPatient: () => true,
    onEnd: () => told.push("end"),
    onSocketGone: () => told.push("gone"),
  };
  const transport = new WebSocketTransport(false, host.limits.maxBufferedBytes);
  const connection = new Connection(transport, "alice", host as unknown as ConnectionHost);
  const peer = new StubSocket();
  peer.readyState = WebSocket.CONNECTING;
  transport.attach(peer.socket, {
    opened: () => void told.push("opened"),
    end: () => void told.push("no handshake"),
    lost: () => void told.push("lost"),
  });
  return { connection, peer, told };
}

Deno.test("A connection that does not open for three seconds has lost its client, but for seconds that came late", () => {
  const { connection, peer, told } = make();
  for (const isLate of [true, false, true, false, true, true]) connection.tick(isLate);
  assertEquals([connection.state, told], ["opening", []]);
  connection.tick(false);
  assertEquals([connection.state, told], ["closed", ["no handshake", "end", "gone"]]);
  for (let i = 0; i < 5; i++) connection.tick(false);
  // It opens all the same, and nobody waits for it.
  peer.open();
  assertEquals([peer.closes, told.slice(3)], [[[CLOSE.overloaded.code, CLOSE.overloaded.why]], ["opened"]]);
});

Deno.test("A connection that is closed before it is open is not waited for", () => {
  const { connection, peer, told } = make();
  connection.close(CLOSE.kicked);
  assertEquals([connection.state, told], ["closed", ["end", "failed 4403", "no handshake", "gone"]]);
  assertEquals(peer.closes, []);
  peer.open();
  assertEquals(peer.closes, [[CLOSE.kicked.code, CLOSE.kicked.why]]);
});
