/**
 * Clients that send without pause. However fast: a socket gives a refused one's frames to the service so many times and
 * no more, then it is cut. That is counted where the frames come, in the sockets, so that a slow machine changes nothing.
 */
import { assert, assertEquals } from "@std/assert";
import { flood, floodOf, FLOODS, UNSEEN_FLOODS, type Who } from "../programs/hostile/floods.ts";
import { call, CLOSED, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { ServerSockets } from "../../testkit/server_sockets.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** Two seconds' frames, as one may pass meanwhile, those that were on their way, and a few of rounding. */
const MAX_FRAMES = 200 + 10_000 + 20;
const FLOOD_MS = 20_000;
const AT_ONCE = 3;

/** Counts what each socket of this process's services is given. */
class Counter implements Disposable {
  readonly sockets: { frames: number; isClosed: boolean }[] = [];
  readonly #all = new ServerSockets((socket) => {
    const seen = { frames: 0, isClosed: false };
    this.sockets.push(seen);
    socket.addEventListener("message", () => seen.frames++);
    socket.addEventListener("close", () => seen.isClosed = true);
  });

  [Symbol.dispose](): void {
    this.#all[Symbol.dispose]();
  }
}

/** Floods of each kind, some at once, and at the same time somebody else who is served. */
async function endure(
  service: Service,
  kinds: readonly (readonly [string, Who])[],
  closed: boolean,
): Promise<void> {
  using counter = new Counter();
  for (let i = 0; i < kinds.length; i += AT_ONCE) {
    const at = counter.sockets.length;
    const some = kinds.slice(i, i + AT_ONCE);
    const options = { socketUrl: service.socketUrl(), closed, ms: FLOOD_MS };
    const cuts = await flood(await Promise.all(some.map(([name, who]) => floodOf(name, who, options))));
    const what = JSON.stringify(some);
    assertEquals(cuts.length, some.length, `all are cut: ${what}`);
    const sockets = counter.sockets.slice(at);
    await until(() => sockets.every(({ isClosed }) => isClosed), `the sockets to be closed: ${what}`);
    for (const { frames } of sockets) assert(frames <= MAX_FRAMES, `${frames} frames came: ${what}`);
  }
  await until(() => service.server.app.connections.closing === 0, "no socket to be left");
}

const ALL = FLOODS.flatMap((name) =>
  (["nameless", "refused", "raw", "v1"] as const).map((who) => [name, who] as const)
);

Deno.test("Floods of every frame are cut in every state of a socket, in closed mode", async () => {
  await using service = await Service.start(CLOSED);
  await endure(service, ALL, true);
  await using bob = await openClient(service.socketUrl(), protocolsFor(await tokenFor("bob")));
  assertEquals((await bob.nextJson()).t, "hi");
});

Deno.test("Floods of every frame are cut in every state of a socket, in open mode", async () => {
  await using service = await Service.start();
  // A first frame that is a name makes it somebody: what follows is a raw socket's.
  await endure(service, ALL, false);
  await using bob = await openClient(service.socketUrl("bob"), ["userwire.v1"]);
  assertEquals((await bob.nextJson()).t, "hi");
});

redisTest("Floods are cut with Redis, also while a subscription is being confirmed", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await endure(service, ALL.filter(([name]) => /one byte|ping|broken|64/.test(name)), false);
});

Deno.test("A flood that begins when its socket is told to close is cut: kicked, and in a drain", async () => {
  using counter = new Counter();
  await using service = await Service.start();
  const kicked = flooding(service.socketUrl("mallory"));
  await until(() => service.server.app.connections.countOf("mallory") === 1, "mallory");
  await (await service.fetch("/v1/users/mallory/connections", { method: "DELETE" })).body?.cancel();
  await kicked;
  const drained = flooding(service.socketUrl("mallory"));
  await until(() => service.server.app.connections.countOf("mallory") === 1, "mallory again");
  const draining = service.server.app.drain(60_000);
  await drained;
  assertEquals(await draining, 0);
  for (const { frames } of counter.sockets) assert(frames <= MAX_FRAMES, `${frames} frames came`);
});

/** Floods from the moment that it is told to close; resolves when it is cut. */
async function flooding(url: string): Promise<void> {
  await using socket = await RawSocket.open(url);
  await socket.readClose(30_000);
  const piece = new Uint8Array(7 * 1_000);
  for (let i = 0; i < piece.length; i += 7) piece.set([0x81, 0x81, 0, 0, 0, 0, 0x78], i);
  let isOver = false;
  const ended = socket.ended.then(() => isOver = true);
  while (!isOver) {
    socket.sendBytes(piece);
    await new Promise((resolve) => setTimeout(resolve));
  }
  await ended;
}

for (const name of UNSEEN_FLOODS) {
  Deno.test(`A flood that Deno keeps to itself does not end the service to others: ${name}`, async () => {
    await using service = await Service.start(CLOSED);
    await using bob = await openClient(service.socketUrl(), protocolsFor(await tokenFor("bob")));
    assertEquals((await bob.nextJson()).t, "hi");
    const options = { socketUrl: service.socketUrl(), closed: true, ms: 1_000 };
    using sockets = new ServerSockets();
    const over = flood([await floodOf(name, "v1", options)]);
    try {
      // Not that it is there: on a busy machine it may have come and gone before anybody looks.
      await until(() => sockets.all.length > 0, "the flood to begin");
      await call(service, "POST /v1/users/bob/messages", { body: 1 });
      assertEquals((await bob.nextJson()).data, 1);
    } finally {
      await over;
    }
  });
}
