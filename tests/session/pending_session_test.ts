/**
 * A raw socket until it is known whose it is, in the orders of events that real ones meet only by chance: here the test
 * says when a second has passed, when the client is known and when it leaves.
 */
import { assertEquals } from "@std/assert";
import type { Identity } from "../../src/auth/auth.ts";
import type { SessionContext } from "../../src/session/context.ts";
import { UnauthorizedError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { PendingSession } from "../../src/session/pending_session.ts";
import { WebSocketTransport } from "../../src/session/websocket_transport.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

const ALICE: Identity = { username: "alice" };

/** A pending session that has two seconds, and a process that writes down what it is told. */
class Stage {
  readonly peer = new StubSocket();
  readonly told: string[] = [];
  /** What its successor heard of its client. */
  readonly taken: unknown[] = [];
  readonly verified = Promise.withResolvers<Identity>();
  /** Whom the first frame names. */
  identify: () => Identity | Promise<Identity> = () => this.verified.promise;
  readonly pending: PendingSession;

  constructor(state: number = WebSocket.OPEN) {
    this.peer.readyState = state;
    const context = {
      limits: { maxFrameBytes: 100, maxFramesPerSecond: 100, maxBytesPerSecond: 1_000 },
      log: memoryLog(),
      metrics: { onFail: (code: number) => this.told.push(`failed ${code}`) },
      registry: {
        isPatient: () => true,
        onFlood: () => this.told.push("flood"),
        onEnd: () => this.told.push("end"),
        onGone: () => this.told.push("gone"),
      },
    };
    const transport = new WebSocketTransport(false, 1_000);
    this.pending = new PendingSession(transport, context as unknown as SessionContext, {
      timeoutS: 2,
      identify: () => this.identify(),
      onIdentity: ({ username }) => {
        this.told.push(username);
        transport.events = {
          opened() {},
          flooded() {},
          expired() {},
          gone() {},
          frame: (data) => void this.taken.push(data),
        };
      },
    });
    transport.attach(this.peer.socket, {
      opened: () => void this.told.push("opened"),
      end: () => void this.told.push("no handshake"),
      lost: () => void this.told.push("lost"),
    });
  }

  /** The token turns out to be alice's. */
  async verify(): Promise<void> {
    this.verified.resolve(ALICE);
    await this.verified.promise;
  }
}

Deno.test("A pending has the whole time that it is said to have", () => {
  const { pending, peer, told } = new Stage();
  // The first second may be over right after it came.
  for (const closes of [0, 0, 1, 1]) {
    pending.tick();
    assertEquals(peer.closes.length, closes);
  }
  assertEquals([peer.closes, told], [[[4408, "no identity in time"]], ["end", "failed 4408"]]);
  peer.end();
  assertEquals(told.slice(2), ["no handshake", "gone"]);
});

Deno.test("A pending session that is known is handed over with its socket, and hears nothing more of it", async () => {
  const stage = new Stage();
  const { pending, peer, told } = stage;
  peer.frame("token");
  peer.frame("ping");
  peer.frame("not heard while it is not known who says it");
  assertEquals([told, peer.sent], [[], ["pong"]]);
  await stage.verify();
  assertEquals(told, ["end", "gone", "alice"]);
  peer.frame("more");
  assertEquals([stage.taken, peer.sent], [["more"], ["pong"]]);
  for (let i = 0; i < 5; i++) pending.tick();
  pending.close({ code: 1012, reason: "restart" });
  assertEquals([peer.closes, told.length], [[], 3]);

  const named = new Stage();
  named.identify = () => ALICE;
  named.peer.frame("alice");
  assertEquals(
    named.told,
    ["end", "gone", "alice"],
    "at once: the next frame is the socket's",
  );
});

Deno.test("A pending session that is refused while it is verified is not let in afterwards", async () => {
  using quiet = new HeldIntervals(50);
  const stage = new Stage();
  const { peer, told } = stage;
  peer.frame("token");
  peer.frame("x".repeat(101));
  // It is heard out, and its socket is open.
  assertEquals([told, peer.closes], [["end", "failed 1009"], []]);
  await stage.verify();
  quiet.run();
  assertEquals([told.length, peer.closes], [2, [[1009, "frame too big"]]]);
});

Deno.test("A pending session that leaves while it is verified is let in nowhere, and ends once", async () => {
  const stage = new Stage();
  stage.peer.frame("token");
  stage.peer.end();
  await stage.verify();
  assertEquals(stage.told, ["no handshake", "end", "gone"]);
});

Deno.test("A pending session that is refused learns why", async () => {
  using quiet = new HeldIntervals(50);
  const stage = new Stage();
  stage.peer.frame("token");
  stage.verified.reject(new UnauthorizedError("It has expired"));
  await stage.verified.promise.catch(() => {});
  // The refusal is one turn behind.
  await Promise.resolve();
  quiet.run();
  assertEquals([stage.peer.closes, stage.told], [[[4401, "It has expired"]], ["end", "failed 4401"]]);

  const broken = new Stage();
  broken.identify = () => {
    throw new SyntaxError("No name");
  };
  broken.peer.frame("?");
  const binary = new Stage();
  binary.peer.frame(new ArrayBuffer(1));
  quiet.run();
  assertEquals([broken.peer.closes, binary.peer.closes], [[[4400, "No name"]], [[
    4400,
    "protocol violation",
  ]]]);
});

Deno.test("A pending session that is closed before it is open is not waited for", () => {
  const { pending, peer, told } = new Stage(WebSocket.CONNECTING);
  pending.close({ code: 1012, reason: "restart" });
  assertEquals(told, ["end", "failed 1012", "no handshake", "gone"]);
  // It may open all the same.
  peer.open();
  assertEquals(peer.closes, [[1012, "restart"]]);
});
