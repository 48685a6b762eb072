/**
 * Every way in which a session ends, proved by asking Redis itself: before there is no subscription, while the
 * session lives there is its own, and afterwards none. Each path also leaves one line in the log, with the code,
 * how long it lasted and how much was delivered, and never a payload. Shutdown is in `shutdown_test.ts` too.
 */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { OPCODE, RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";

/** Alice's socket on the first of two nodes, and all that surrounds it. */
interface Stage {
  readonly redis: RedisServer;
  readonly truth: Truth;
  /** Holds the socket. */
  readonly here: Service;
  /** Sends. */
  readonly there: Service;
  readonly alice: RawSocket;
  /** Sends a payload that must reach the one socket. */
  deliver(payload?: string): Promise<void>;
}

interface Path {
  readonly mode?: "raw" | "v1";
  readonly env?: Record<string, string>;
  /** Ends the session. */
  end(stage: Stage): PromiseLike<unknown>;
  /** What the log must say; a reason that is not given may be any. */
  readonly code: number;
  readonly reason?: string;
  /** Whether the socket outlives its session, because its peer does not answer. */
  readonly leavesSocket?: boolean;
}

/** What every payload holds and no record may. */
const SECRET = "for-alice-only";

const V1 = { headers: { "Sec-WebSocket-Protocol": "userwire.v1" } };

/** Declares a test of one path. */
function closePath(name: string, path: Path): void {
  redisTest(`A connection ${name} leaves no subscription and one record`, async () => {
    await using redis = await RedisServer.start();
    const truth = new Truth(redis);
    await using here = await Service.start({ REDIS_URL: redis.url, ...path.env });
    await using there = await Service.start({ REDIS_URL: redis.url });
    assertEquals([await truth.subscribers(), await truth.channels()], [[], []]);
    assertEquals((await there.send("alice", SECRET)).status, 202);

    await using alice = await RawSocket.open(here.socketUrl("alice"), path.mode === "v1" ? V1 : {});
    assertEquals(alice.answer.status, 101);
    assertEquals([(await truth.subscribers()).length, await truth.channels()], [1, ["alice"]]);
    async function deliver(payload = SECRET) {
      const { status, body } = await there.send("alice", payload);
      assertEquals([status, body.sockets], [200, 1]);
    }
    await deliver();
    if (path.mode === "v1") assertStringIncludes(await alice.readText(), '{"t":"hi"');
    assertStringIncludes(await alice.readText(), SECRET);
    assertEquals(await truth.count("alice"), 1);

    await path.end({ redis, truth, here, there, alice, deliver });

    await truth.isEmpty();
    assertEquals((await there.send("alice", SECRET)).body.sockets, 0);
    const { connections } = here.server.app;
    if (path.leavesSocket) {
      assertEquals([connections.size, connections.closing], [0, 1]);
      await alice.reset();
    }
    await here.isEmpty();
    assertOneRecord(here, path);
  });
}

function assertOneRecord(here: Service, path: Path): void {
  const closed = here.logged("connection closed");
  assertEquals(closed.length, 1);
  const { conn, user, code, reason, seconds, messages, bytes, ...rest } = closed[0]!.fields;
  assertEquals([closed[0]!.level, user, code], ["info", "alice", path.code]);
  assertEquals(reason, path.reason ?? reason);
  assertEquals(conn, here.logged("connection opened")[0]!.fields.conn);
  assert(typeof seconds === "number" && seconds >= 0 && seconds < 60, `seconds is ${seconds}`);
  assert(typeof messages === "number" && messages >= 1, `messages is ${messages}`);
  assert(typeof bytes === "number" && bytes >= messages * SECRET.length, `bytes is ${bytes}`);
  assertEquals(Object.keys(rest).filter((name) => name !== "interruptions" && name !== "ignored_frames"), []);
  assertEquals(here.log.records.filter((record) => JSON.stringify(record).includes(SECRET)), []);
  assertEquals(here.log.records.filter((record) => record.level === "error"), []);
}

/** Reads up to the server's Close frame and answers it, as a well-behaved peer does. */
async function agree(alice: RawSocket, code: number): Promise<void> {
  assertEquals((await alice.readClose()).code, code);
  alice.sendClose(code);
  assertEquals(await alice.ended, "fin");
}

/** Reads the last frame before the Close frame. */
async function readBye(alice: RawSocket): Promise<Record<string, unknown>> {
  const frame = JSON.parse(await alice.readText());
  assertEquals(frame.t, "bye");
  return frame;
}

// ---------------------------------------------------------------------------------------------------------
// By the client

for (const mode of ["raw", "v1"] as const) {
  closePath(`(${mode}) that its client closes`, {
    mode,
    code: 1000,
    reason: "client",
    async end({ alice }) {
      alice.sendClose(1000, SECRET); // the reason is the client's: it has no place in the log either
      assertEquals((await alice.readClose()).code, 1000);
      await alice.ended;
    },
  });

  closePath(`(${mode}) whose client vanishes with a reset`, {
    mode,
    code: 0,
    reason: "connection lost",
    end: ({ alice }) => alice.reset(),
  });

  closePath(`(${mode}) whose client hangs up without a Close frame`, {
    mode,
    code: 0,
    reason: "connection lost",
    end: ({ alice }) => alice.closeAbruptly(),
  });

  closePath(`(${mode}) whose client is silent`, {
    mode,
    env: { USERWIRE_IDLE_TIMEOUT_S: "1" },
    code: 1001,
    reason: "silence or going away",
    async end({ alice }) {
      // Pings come before that, the first of them maybe while the message was sent.
      assertEquals((await alice.readClose()).code, 1001);
    },
  });
}

closePath("whose client sends a Close frame and goes on sending", {
  code: 4321,
  end({ alice }) {
    alice.sendClose(4321);
    for (let i = 0; i < 50; i++) alice.sendText("more");
    return alice.ended;
  },
});

// ---------------------------------------------------------------------------------------------------------
// By the server

closePath("that sends a frame above the limit", {
  code: 1009,
  async end({ alice }) {
    alice.send({ opcode: OPCODE.binary, payload: new Uint8Array(65_537) });
    await agree(alice, 1009);
  },
});

closePath("(v1) that sends a frame above the limit", {
  mode: "v1",
  code: 1009,
  async end({ alice }) {
    alice.sendText(`{"t":"p","more":"${"é".repeat(32_768)}"}`);
    assertEquals((await readBye(alice)).code, 1009);
    await agree(alice, 1009);
  },
});

closePath("(v1) that sends broken JSON", {
  mode: "v1",
  code: 4400,
  reason: "A frame must be JSON",
  async end({ alice }) {
    alice.sendText(`{"t":"${SECRET}`);
    const bye = await readBye(alice);
    assertEquals([bye.code, bye.why], [4400, "A frame must be JSON"]);
    await agree(alice, 4400);
  },
});

closePath("(v1) that sends binary", {
  mode: "v1",
  code: 4400,
  async end({ alice }) {
    alice.send({ opcode: OPCODE.binary, payload: '{"t":"p"}' });
    assertEquals((await readBye(alice)).code, 4400);
    await agree(alice, 4400);
  },
});

closePath("that sends too many frames", {
  env: { USERWIRE_MAX_FRAMES_PER_SECOND: "20" },
  code: 4429,
  async end({ alice }) {
    alice.sendTexts(Array(100).fill("ping"));
    await agree(alice, 4429);
  },
});

closePath("whose peer never answers the Close frame", {
  code: 1009,
  leavesSocket: true,
  async end({ alice }) {
    alice.send({ opcode: OPCODE.binary, payload: new Uint8Array(65_537) });
    assertEquals((await alice.readClose()).code, 1009);
  },
});

for (const mode of ["raw", "v1"] as const) {
  closePath(`(${mode}) that reads too slowly`, {
    mode,
    env: { USERWIRE_MAX_BUFFERED_BYTES: "100000" },
    code: 4508,
    reason: "slow reader",
    leavesSocket: true,
    async end({ alice, here, there }) {
      alice.stopReading();
      const payload = { kind: "text", text: SECRET + "x".repeat(400_000) } as const;
      const isGivenUp = () => here.logged("connection closed").length > 0;
      while (!isGivenUp()) await there.server.app.publisher.send("alice", payload);
    },
  });
}

closePath("that takes nothing at all for the time a slow reader has", {
  env: { USERWIRE_SLOW_TIMEOUT_S: "1", USERWIRE_MAX_BUFFERED_BYTES: "67108864" },
  code: 4508,
  reason: "slow reader",
  leavesSocket: true,
  async end({ alice, here, there }) {
    alice.stopReading();
    // More than the kernel takes, less than what makes a reader slow at once.
    const payload = { kind: "text", text: SECRET + "x".repeat(400_000) } as const;
    const isGivenUp = () => here.logged("connection closed").length === 1;
    for (let i = 0; i < 50 && !isGivenUp(); i++) await there.server.app.publisher.send("alice", payload);
    await until(isGivenUp, "the reader to be given up");
  },
});

// ---------------------------------------------------------------------------------------------------------
// With Redis in between

closePath("whose Redis connection is killed gets another, and then", {
  code: 1000,
  async end({ redis, truth, alice, deliver }) {
    for (let round = 0; round < 3; round++) {
      const [before] = await truth.subscribers();
      assertNotEquals(await redis.cli("CLIENT", "KILL", "TYPE", "pubsub"), 0);
      await truth.untilCount("alice", 1);
      const after = await truth.subscribers();
      assertEquals(after.length, 1);
      assertNotEquals(after[0], before);
      await deliver(`${SECRET} ${round}`);
      assertEquals(await alice.readText(), `${SECRET} ${round}`);
    }
    alice.sendClose(1000);
    await agree(alice, 1000);
  },
});

closePath("that ends while its Redis connection is being replaced", {
  code: 0,
  async end({ redis, alice }) {
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await alice.reset();
  },
});

closePath("that ends while Redis is hung", {
  code: 0,
  async end({ redis, here, alice }) {
    await redis.pause();
    await alice.reset();
    await until(() => here.logged("connection closed").length === 1, "the session to end");
    await here.isEmpty();
    redis.resume();
  },
});

closePath("that a shutdown ends", {
  mode: "v1",
  code: 1012,
  reason: "restart",
  async end({ here, alice }) {
    const ended = here.server.shutdown();
    assertEquals((await readBye(alice)).code, 1012);
    await agree(alice, 1012);
    await ended;
  },
});
