/**
 * Sockets that opened and then misbehave: too big, too fast, broken, silent, or gone in the middle. Each is closed
 * with the code that says why, or cut off where the frames themselves are broken, and others are served on.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { assertServes, eachCase } from "../../testkit/bad_input.ts";
import { encodeFrame, type FrameToSend, OPCODE, RawSocket } from "../../testkit/raw_socket.ts";
import { HeldSeconds } from "../../testkit/held_timers.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** `nameless` has not said who it is. */
type Kind = "raw" | "v1" | "nameless";

async function open(service: Service, kind: Kind): Promise<RawSocket> {
  const headers: Record<string, string> = kind === "v1" ? { "Sec-WebSocket-Protocol": "userwire.v1" } : {};
  const socket = await RawSocket.open(service.socketUrl(kind === "nameless" ? undefined : "alice"), {
    headers,
  });
  assertEquals(socket.answer.status, 101);
  if (kind === "v1") assertStringIncludes(await socket.readText(), '{"t":"hi"');
  return socket;
}

function text(payload: string): FrameToSend {
  return { opcode: OPCODE.text, payload };
}

/** A message in so many fragments of a mebibyte. */
function fragments(count: number): FrameToSend[] {
  const payload = "x".repeat(1024 ** 2);
  return Array.from({ length: count }, (_, i) => ({
    opcode: i === 0 ? OPCODE.text : OPCODE.continuation,
    payload,
    fin: i === count - 1,
  }));
}

const KIB_64 = 65_536;

// ---------------------------------------------------------------------------------------------------------
// Closed with a code

interface Closing {
  kinds: Kind[];
  frames: FrameToSend[];
  code: number;
  says: RegExp;
}

const named: Kind[] = ["raw", "v1"];
const all: Kind[] = ["raw", "v1", "nameless"];
const tooBig = { code: 1009, says: /frame too big/ };

eachCase<Closing>("A frame is answered with the close code that says what is wrong", {
  "of 64 KiB + 1": { ...tooBig, kinds: all, frames: [text("x".repeat(KIB_64 + 1))] },
  "of 64 KiB + 1 in bytes, not in letters": {
    ...tooBig,
    kinds: named,
    frames: [text("é".repeat(KIB_64 / 2) + "x")],
  },
  "of 64 KiB + 1, binary": {
    ...tooBig,
    kinds: named,
    frames: [{ opcode: OPCODE.binary, payload: new Uint8Array(KIB_64 + 1) }],
  },
  "of 16 MiB": { ...tooBig, kinds: ["raw"], frames: [text("x".repeat(16 * 1024 ** 2))] },
  "of 16 MiB in fragments": { ...tooBig, kinds: all, frames: fragments(16) },
  "that is binary where frames are text": {
    code: 4400,
    kinds: ["v1"],
    frames: [{ opcode: OPCODE.binary, payload: '{"t":"p"}' }],
    says: /must be text/,
  },
  "of broken JSON": { code: 4400, kinds: ["v1", "nameless"], frames: [text('{"t":')], says: /must be JSON/ },
  "of no JSON": { code: 4400, kinds: ["v1", "nameless"], frames: [text("pong")], says: /must be JSON/ },
  "that is empty": { code: 4400, kinds: ["v1", "nameless"], frames: [text("")], says: /must be JSON/ },
  "of a JSON array": { code: 4400, kinds: ["v1", "nameless"], frames: [text('["p"]')], says: /JSON object/ },
  "without a type": { code: 4400, kinds: ["v1"], frames: [text("{}")], says: /needs "t"/ },
  "with a field of the wrong type": {
    code: 4400,
    kinds: ["v1"],
    frames: [text('{"t":"ack","seq":"1"}')],
    says: /"seq", a whole number/,
  },
  "that nests very deeply": {
    code: 4400,
    kinds: ["v1", "nameless"],
    frames: [text("[".repeat(60_000))],
    says: /must be JSON/,
  },
  "that does not say who it is": {
    code: 4400,
    kinds: ["nameless"],
    frames: [text('{"username":"alice"}')],
    says: /\{"user_name": "…"\}/,
  },
  "that is binary before it is known who it is": {
    code: 4400,
    kinds: ["nameless"],
    frames: [{ opcode: OPCODE.binary, payload: '{"user_name":"alice"}' }],
    says: /protocol violation/,
  },
}, {
  async body(service, { kinds, frames, code, says }) {
    for (const kind of kinds) {
      await using socket = await open(service, kind);
      for (const frame of frames) socket.send(frame);
      if (kind === "v1") {
        const bye = JSON.parse(await socket.readText());
        assertEquals([bye.t, bye.code], ["bye", code]);
        assertMatch(bye.why, says);
      }
      const close = await socket.readClose();
      assertEquals(close.code, code);
      assertMatch(close.reason, says);
      const record = service.log.records.findLast(({ event }) => event.includes("closed"));
      assertEquals([record?.fields.code, record?.fields.reason], [code, close.reason]);
    }
  },
});

// ---------------------------------------------------------------------------------------------------------
// Cut off

eachCase<{ bytes: Uint8Array; code?: number }>(
  "A frame that breaks the rules of WebSocket ends the connection",
  {
    "with a reserved bit": { bytes: encodeFrame({ ...text("x"), reserved: 4 }) },
    "with a reserved opcode": { bytes: encodeFrame({ opcode: 3, payload: "x" }) },
    "that is a ping of 126 bytes": { bytes: encodeFrame({ opcode: OPCODE.ping, payload: "x".repeat(126) }) },
    "that is half a ping": { bytes: encodeFrame({ opcode: OPCODE.ping, payload: "x", fin: false }) },
    "that is no UTF-8": { bytes: encodeFrame({ opcode: OPCODE.text, payload: Uint8Array.of(0xff, 0xfe) }) },
    "that goes on with nothing": { bytes: encodeFrame({ opcode: OPCODE.continuation, payload: "x" }) },
    "that claims 65 MiB": { bytes: encodeFrame({ ...text("x"), claimedLength: 65 * 1024 ** 2 }) },
    "that claims more than there is": {
      bytes: encodeFrame({ ...text("x"), claimedLength: 65_536 }).with(2, 0x80),
    },
    "that closes with half a code": {
      bytes: encodeFrame({ opcode: OPCODE.close, payload: Uint8Array.of(3) }),
    },
    "that closes with text that is no UTF-8": {
      bytes: encodeFrame({ opcode: OPCODE.close, payload: Uint8Array.of(3, 0xe8, 0xff) }),
    },
    "that closes with a code that may not be sent": {
      bytes: encodeFrame({ opcode: OPCODE.close, payload: Uint8Array.of(3, 0xed) }),
      code: 1002,
    },
    "that is no frame at all": { bytes: new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n") },
  },
  {
    async body(service, { bytes, code }) {
      await using socket = await open(service, "raw");
      socket.sendBytes(bytes);
      if (code !== undefined) assertEquals((await socket.readClose()).code, code);
      assert(await socket.ended !== "own");
    },
  },
);

// ---------------------------------------------------------------------------------------------------------
// Taken

eachCase<{ kind: Kind; bytes: Uint8Array[] }>("A frame is taken", {
  "of exactly 64 KiB": { kind: "raw", bytes: [encodeFrame(text("x".repeat(KIB_64)))] },
  "of exactly 64 KiB of two bytes each": { kind: "raw", bytes: [encodeFrame(text("é".repeat(KIB_64 / 2)))] },
  "of exactly 64 KiB with a type": {
    kind: "v1",
    bytes: [encodeFrame(text(`{"t":"p","x":"${"x".repeat(KIB_64 - 16)}"}`))],
  },
  "of 64 KiB byte by byte": {
    kind: "raw",
    bytes: Array.from({ length: 64 }, (_, i) =>
      encodeFrame({
        opcode: i === 0 ? OPCODE.text : OPCODE.continuation,
        payload: "x".repeat(1024),
        fin: i === 63,
      })),
  },
  "of a type that is not known": { kind: "v1", bytes: [encodeFrame(text('{"t":"newer"}'))] },
  "that is binary, where nobody asks for frames": {
    kind: "raw",
    bytes: [encodeFrame({ opcode: OPCODE.binary, payload: Uint8Array.of(0, 255) })],
  },
  "that is empty": { kind: "raw", bytes: [encodeFrame(text(""))] },
  // Deno takes both, although a server should not.
  "that is not masked": { kind: "raw", bytes: [encodeFrame({ ...text("x"), masked: false })] },
  "whose length is written too long": {
    kind: "raw",
    bytes: [Uint8Array.of(0x81, 0xfe, 0, 1, 0, 0, 0, 0, 0x78)],
  },
}, {
  async body(service, { kind, bytes }) {
    await using socket = await open(service, kind);
    for (const chunk of bytes) socket.sendBytes(chunk);
    assertEquals((await service.send("alice", "after")).body.sockets, 1);
    const message = await socket.readText();
    assertEquals(kind === "raw" ? message : JSON.parse(message).data, "after");
  },
});

// ---------------------------------------------------------------------------------------------------------
// Too fast

/** So many small frames in one write. */
function burst(count: number, kind: Kind): Uint8Array {
  const frame = encodeFrame(text(kind === "v1" ? '{"t":"p"}' : "ping"));
  const bytes = new Uint8Array(count * frame.length);
  for (let i = 0; i < count; i++) bytes.set(frame, i * frame.length);
  return bytes;
}

Deno.test("A client that sends more frames in a second than allowed is closed with 4429", async () => {
  await using service = await Service.start({ USERWIRE_MAX_FRAMES_PER_SECOND: "20" });
  for (const kind of named) {
    await using socket = await open(service, kind);
    // The server's second may end in the middle of them: more than 20 are on one side of it.
    socket.sendBytes(burst(41, kind));
    assertEquals(await socket.readClose(), { code: 4429, reason: "too many frames" });
  }
});

eachCase<Kind>("10,000 frames at once end the connection and nothing else", {
  "of a raw client": "raw",
  "of a framed client": "v1",
  "of a client that has not said who it is": "nameless",
}, {
  async body(_shared, kind) {
    // One of its own: where the address has flooded before, less is heard of it.
    await using service = await Service.start();
    await using socket = await open(service, kind);
    socket.sendBytes(burst(10_000, kind));
    await assertServes(service);
    // What the service left unread resets the connection, and that takes the Close frame with it where the peer was slow.
    const code = await socket.readClose().then(({ code }) => code, async () => await socket.ended);
    assert(code === 4429 || code === "reset", `${code}`);
    const closings = service.log.records.filter(({ event }) => event.startsWith("connection closed"));
    assert(closings.some(({ fields }) => fields.code === 4429), JSON.stringify(closings));
  },
});

Deno.test("A client that sends as many frames as allowed stays", async () => {
  await using service = await Service.start({ USERWIRE_MAX_FRAMES_PER_SECOND: "1000" });
  await using alice = await openClient(service.socketUrl("alice"));
  for (let i = 0; i < 1_000; i++) alice.send("ping");
  for (let i = 0; i < 1_000; i++) assertEquals(await alice.next(), "pong");
});

// ---------------------------------------------------------------------------------------------------------
// Silence

Deno.test("A client that never says who it is is closed with 4408", async () => {
  await using service = await Service.start({ USERWIRE_IDENTITY_TIMEOUT_S: "1" });
  const openedMs = performance.now();
  await using silent = await open(service, "nameless");
  // Signs of life are no identity.
  silent.send({ opcode: OPCODE.ping });
  assertEquals(await silent.readClose(), { code: 4408, reason: "no identity in time" });
  assert(performance.now() - openedMs > 900);
  await assertServes(service);
});

Deno.test("A client that is silent stays open, and gets p in frames when nothing else was sent", async () => {
  await using service = await Service.start({ USERWIRE_PING_S: "1", USERWIRE_IDENTITY_TIMEOUT_S: "1" });
  await using raw = await openClient(service.socketUrl("alice"));
  await using framed = await openClient(service.socketUrl("alice"), "userwire.v1");
  assertEquals((await framed.nextJson()).ping, 1);
  for (let i = 0; i < 2; i++) assertEquals(await framed.next(), '{"t":"p"}');
  assertEquals((await service.send("alice", "still here")).body.sockets, 2);
  assertEquals(await raw.next(), "still here");
  // On a slow machine there is another p before it.
  let frame;
  do frame = await framed.nextJson(); while (frame.t === "p");
  assertEquals(frame.data, "still here");
});

Deno.test("A framed client is sent p after seconds without a frame, and a message begins them anew", async () => {
  using seconds = new HeldSeconds();
  await using service = await Service.start({ USERWIRE_PING_S: "3" });
  const { publisher } = service.server.app;
  await using alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  await alice.nextJson();
  // One in the second before it would be due.
  for (const n of [1, 2]) {
    for (let second = 1; second <= 2; second++) seconds.run();
    await publisher.send("alice", n);
    assertEquals((await alice.nextJson()).data, n);
  }
  for (let second = 1; second <= 3; second++) seconds.run();
  await publisher.send("alice", 3);
  assertEquals(await alice.next(), '{"t":"p"}');
  assertEquals((await alice.nextJson()).data, 3);
});

/** Whether a client that answers pings stays, where one that does not is closed for its silence. */
async function livelyStays(timeoutS: number): Promise<boolean> {
  await using service = await Service.start({ USERWIRE_IDLE_TIMEOUT_S: `${timeoutS}` });
  await using lively = await open(service, "raw");
  await using dead = await open(service, "raw");
  for (let i = 0; i < 3; i++) {
    const ping = await lively.readFrame();
    if (ping?.opcode !== OPCODE.ping) return false;
    lively.send({ opcode: OPCODE.pong, payload: ping.payload });
  }
  assertEquals((await dead.readClose()).code, 1001);
  lively.sendText("ping");
  return await lively.readText().then((text) => text === "pong", () => false);
}

Deno.test("A client that answers the server's pings outlives the idle timeout, one that does not is closed", async () => {
  // Where nobody had the time to answer for so long, with more of it.
  for (const timeoutS of [1, 4, 16]) if (await livelyStays(timeoutS)) return;
  assert(false, "It was closed, though it answered");
});

// ---------------------------------------------------------------------------------------------------------
// Gone in the middle

eachCase<(service: Service, url: string) => Promise<void>>(
  "A client that leaves in the middle leaves nothing",
  {
    "of its request": async (_, url) => {
      await using socket = await RawSocket.dial(url);
      socket.sendBytes("GET /ws?username=alice HTTP/1.1\r\nHost: localhost\r\nUpgr");
    },
    "of the handshake, 50 times": async (_, url) => {
      for (let i = 0; i < 50; i++) {
        const socket = await RawSocket.dial(url);
        socket.sendHandshake();
        await socket.closeAbruptly();
      }
    },
    "of the handshake, with a frame already sent": async (_, url) => {
      const socket = await RawSocket.dial(url);
      socket.sendHandshake();
      socket.sendText("ping");
      socket.sendClose(1000);
      await socket.closeAbruptly();
    },
    "of a frame": async (service) => {
      await using socket = await open(service, "raw");
      socket.sendBytes(encodeFrame(text("x".repeat(1_000))).subarray(0, 500));
    },
    "of a message in fragments": async (service) => {
      await using socket = await open(service, "v1");
      socket.send({ ...text('{"t":'), fin: false });
    },
    "of its own Close frame": async (service) => {
      await using socket = await open(service, "raw");
      socket.sendBytes(encodeFrame({ opcode: OPCODE.close, payload: Uint8Array.of(3, 0xe8) }).subarray(0, 4));
    },
    "of saying who it is": async (service) => {
      await using socket = await open(service, "nameless");
      socket.sendText('{"user_name":"alice"}');
    },
  },
  {
    async body(service, leave) {
      await leave(service, service.socketUrl("alice"));
      await service.isEmpty();
      assertEquals(await service.sockets("alice"), 0);
    },
  },
);

Deno.test({
  name: "A client that resets the connection in the middle of the handshake leaves nothing of ours",
  // Deno never completes its own reading of such a socket, and tells nobody.
  sanitizeOps: false,
  async fn() {
    await using service = await Service.start({ USERWIRE_IDENTITY_TIMEOUT_S: "1" });
    for (let i = 0; i < 50; i++) {
      const socket = await RawSocket.dial(service.socketUrl(i % 2 === 0 ? "alice" : undefined));
      socket.sendHandshake();
      await socket.reset();
    }
    await assertServes(service);
    await service.isEmpty(15_000);
    assertEquals(await service.sockets("alice"), 0);
  },
});
