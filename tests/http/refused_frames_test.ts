/**
 * Frames of clients that are refused already, or that nobody knows yet: their memory is freed at once, not when the
 * garbage collector comes to it, and they count. The frames are seen where the server sees them, in its sockets.
 */
import { assertEquals } from "@std/assert";
import { tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { OPCODE, RawSocket } from "../../testkit/raw_socket.ts";
import { ServerSockets } from "../../testkit/server_sockets.ts";
import { Service } from "../../testkit/service.ts";

const BINARY = { opcode: OPCODE.binary, payload: new Uint8Array(65_536) };
const TOO_BIG = { opcode: OPCODE.binary, payload: new Uint8Array(65_537) };

/** Keeps every binary frame that a socket of this process's services is given, so that no collector can free it. */
class Tap implements Disposable {
  readonly frames: ArrayBuffer[] = [];
  readonly #sockets = new ServerSockets((socket) =>
    socket.addEventListener("message", ({ data }) => {
      if (data instanceof ArrayBuffer) this.frames.push(data);
    })
  );

  /** Resolves when so many have come. */
  async come(count: number): Promise<void> {
    await until(() => this.frames.length >= count, `${count} binary frames`);
  }

  /** How many still hold their memory. */
  get held(): number {
    return this.frames.filter(({ detached }) => !detached).length;
  }

  [Symbol.dispose](): void {
    this.#sockets[Symbol.dispose]();
  }
}

for (const who of ["v1", "raw", "nameless"]) {
  Deno.test(`What a refused client goes on to send is freed at once: ${who}`, async () => {
    using tap = new Tap();
    await using service = await Service.start({ USERWIRE_MAX_FRAMES_PER_SECOND: "1000000" });
    const url = service.socketUrl(who === "nameless" ? undefined : "alice");
    const headers: Record<string, string> = who === "v1" ? { "Sec-WebSocket-Protocol": "userwire.v1" } : {};
    await using socket = await RawSocket.open(url, { headers });
    socket.send(TOO_BIG);
    for (let i = 0; i < 5; i++) socket.send(BINARY);
    await tap.come(6);
    assertEquals((await socket.readClose()).code, 1009);
    assertEquals(tap.held, 0);
  });
}

/** A service that does not come to know who shows a token: the keys never come. */
async function withSilentLogin(body: (service: Service, token: string) => Promise<void>): Promise<void> {
  const isOver = Promise.withResolvers<Response>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => isOver.promise);
  try {
    const { privateKey } = await crypto.subtle.generateKey(
      { name: "ECDSA", namedCurve: "P-256" },
      true,
      ["sign", "verify"],
    ) as CryptoKeyPair;
    const token = await tokenFor("alice", {}, { alg: "ES256", kid: "first", key: privateKey });
    await using service = await Service.start({
      USERWIRE_JWKS_URL: `http://127.0.0.1:${server.addr.port}/keys`,
    });
    await body(service, token);
  } finally {
    isOver.resolve(new Response("", { status: 500 }));
    await server.shutdown();
  }
}

Deno.test("What a client sends while its token is being verified is freed at once, and too many frames are refused", async () => {
  using tap = new Tap();
  await withSilentLogin(async (service, token) => {
    await using socket = await RawSocket.open(service.socketUrl());
    socket.sendText(JSON.stringify({ token }));
    for (let i = 0; i < 5; i++) socket.send(BINARY);
    socket.sendText("ping");
    assertEquals(await socket.readText(), "pong");
    assertEquals([tap.frames.length, tap.held], [5, 0]);

    // The server's second may end in the middle of them: more than 100 are on one side of it.
    socket.sendTexts(Array(201).fill("ping"));
    assertEquals(await socket.readClose(), { code: 4429, reason: "too many frames" });
  });
});

Deno.test("A frame that is too big, while its client's token is being verified, is refused", async () => {
  using tap = new Tap();
  await withSilentLogin(async (service, token) => {
    await using socket = await RawSocket.open(service.socketUrl());
    socket.sendText(JSON.stringify({ token }));
    socket.send(TOO_BIG);
    assertEquals(await socket.readClose(), { code: 1009, reason: "frame too big" });
    assertEquals([tap.frames.length, tap.held], [1, 0]);
  });
});
