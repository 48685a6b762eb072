/**
 * Clients that do not read: what they cost, that they lose nothing that the history still has, and when they are given
 * up. Stalled for real: the peer stops taking bytes from the kernel. The figures for a hundred of them are in
 * `bench/stalled.ts`.
 */
import { assert, assertEquals } from "@std/assert";
import { Publisher } from "../src/publisher.ts";
import type { GapFrame, MessageFrame } from "../src/protocol.ts";
import { call, CLOSED, tokenFor } from "./support/closed.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { Follower } from "./support/follower.ts";
import { type Env, numbers } from "./support/instances.ts";
import { OPCODE, RawSocket } from "./support/raw_socket.ts";
import { ProcessService } from "./support/process_service.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";
import { Service, Truth } from "./support/service.ts";
import { openClient } from "./support/ws_client.ts";

const MARK = 128 * 1024;
const ENV: Env = { USERWIRE_MAX_BUFFERED_BYTES: String(MARK), USERWIRE_SLOW_TIMEOUT_S: "60" };
const TEXT = "x".repeat(16 * 1024);
/** Enough to fill every buffer of the kernel on the way, twice over. */
const MANY = 480;
/** More than the kernel takes on both ways together; less than Redis holds for one client, 32 MB. */
const FLOOD = 3 * MANY;

/** A framed peer, greeted, that reads nothing any more. */
async function openStalled(service: Service | ProcessService): Promise<RawSocket> {
  const raw = await RawSocket.open(service.socketUrl("alice"), {
    headers: { "Sec-WebSocket-Protocol": "userwire.v1" },
  });
  assertEquals(JSON.parse(await raw.readText()).t, "hi");
  raw.stopReading();
  return raw;
}

/** Sends no faster than the others can take it; `pace` is asked after every few messages. */
async function sendMany(
  publisher: Publisher,
  count: number,
  // In memory nothing else lets the sockets have their turn.
  pace: (n: number) => Promise<void> = () => new Promise((resolve) => setTimeout(resolve)),
): Promise<void> {
  for (const n of numbers(1, count)) {
    await publisher.send("alice", { kind: "text", text: `${n} ${TEXT}` });
    if (n % 4 === 0) await pace(n);
  }
}

/** A framed peer that takes from the kernel just what it is told to, at a pace. */
class Sipper implements Disposable {
  readonly #conn: Deno.Conn;
  #isOpen = true;

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  static async open(url: string, mode: "v1" | "raw" = "v1"): Promise<Sipper> {
    const { hostname, port, host, pathname, search } = new URL(url);
    const conn = await Deno.connect({ hostname, port: Number(port) });
    const lines = [
      `GET ${pathname}${search} HTTP/1.1`,
      `Host: ${host}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
      ...mode === "v1" ? ["Sec-WebSocket-Protocol: userwire.v1"] : [],
    ];
    await conn.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
    const sipper = new Sipper(conn);
    await sipper.take(1);
    return sipper;
  }

  /** Takes so many bytes, then rests a moment. */
  async take(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) {
      const count = await this.#conn.read(new Uint8Array(left));
      if (count === null) throw new Error("The server closed the connection");
      left -= count;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }

  leave(): void {
    if (this.#isOpen) this.#conn.close();
    this.#isOpen = false;
  }

  [Symbol.dispose](): void {
    this.leave();
  }
}

/** Reads messages and gaps up to the last message. */
async function readUpTo(raw: RawSocket, last: number): Promise<(MessageFrame | GapFrame)[]> {
  const frames: (MessageFrame | GapFrame)[] = [];
  for (;;) {
    const frame = JSON.parse(await raw.readText(OPCODE.text, 15_000));
    if (frame.t === "p") continue;
    frames.push(frame);
    if (frame.t === "m" && frame.seq === last) return frames;
  }
}

/** The ranges that frames cover, in order: `m` for live messages, `r` for replayed ones, `gap`. */
function rangesOf(frames: readonly (MessageFrame | GapFrame)[]): [kind: string, from: number, to: number][] {
  const ranges: [string, number, number][] = [];
  for (const frame of frames) {
    const kind = frame.t === "gap" ? "gap" : frame.r === 1 ? "r" : "m";
    const [from, to] = frame.t === "gap" ? [frame.from, frame.to!] : [frame.seq!, frame.seq!];
    const last = ranges.at(-1);
    if (last?.[0] === kind && last[2] + 1 === from) last[2] = to;
    else ranges.push([kind, from, to]);
  }
  return ranges;
}

function assertContiguous(ranges: [string, number, number][]): void {
  assertEquals(ranges[0]![1], 1);
  for (const [i, [, from]] of ranges.entries()) if (i > 0) assertEquals(from, ranges[i - 1]![2] + 1);
}

function closeOf(service: Service): unknown {
  return service.logged("connection closed").map(({ fields }) => fields.code)[0];
}

/** Declares the test in memory and over Redis. */
function test(
  claim: string,
  body: (service: Service, redis?: RedisServer) => Promise<void>,
  env: Env = {},
): void {
  Deno.test(`A slow reader in memory ${claim}`, async () => {
    await using service = await Service.start({ ...ENV, ...env });
    await body(service);
  });
  redisTest(`A slow reader over Redis ${claim}`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url, ...ENV, ...env });
    await body(service, redis);
  });
}

test(
  "gets all that the history has when it reads again, in order, and a gap for the rest",
  async (service) => {
    await using alice = await openStalled(service);
    await using healthy = await Follower.open(service.socketUrl("alice"));
    await sendMany(service.server.app.publisher, MANY, (n) => healthy.reaches(n));
    healthy.assertNoFault();
    assertEquals([healthy.messages.length, healthy.gaps], [MANY, []]);

    alice.resumeReading();
    const ranges = rangesOf(await readUpTo(alice, MANY));
    // What was under way when she stopped reading, then nothing that the history has no more, then all it has.
    assertContiguous(ranges);
    assertEquals(ranges.filter(([kind]) => kind === "gap").length, 1);
    assertEquals(ranges.slice(-2).map(([kind, , to]) => [kind, to]), [["gap", MANY - 50], ["r", MANY]]);

    // She is live again.
    await sendMany(service.server.app.publisher, 1);
    assertEquals(rangesOf(await readUpTo(alice, MANY + 1)), [["m", MANY + 1, MANY + 1]]);
    assertEquals(closeOf(service), undefined);
  },
  { USERWIRE_HISTORY: "50" },
);

test("loses nothing when the history is long enough", async (service) => {
  await using alice = await openStalled(service);
  await sendMany(service.server.app.publisher, MANY);
  alice.resumeReading();
  const ranges = rangesOf(await readUpTo(alice, MANY));
  assertEquals(ranges.filter(([kind]) => kind === "gap"), []);
  assertContiguous(ranges);
}, { USERWIRE_HISTORY: "1000", USERWIRE_MAX_REPLAY: "1000" });

redisTest("A slow reader costs no more memory than its mark and the history", async () => {
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url, USERWIRE_HISTORY: "20", USERWIRE_SLOW_TIMEOUT_S: "600" };
  // What the tests themselves hold must not count.
  await using service = await ProcessService.start({ ...ENV, ...env });
  await using publisher = await Publisher.open({ redisUrl: redis.url, history: 20 });
  await using _alice = await openStalled(service);
  await using healthy = await Follower.open(service.socketUrl("alice"));
  const reaches = async (n: number) => {
    await healthy.reaches(n);
    healthy.messages.length = 0;
  };
  await sendMany(publisher, 1_200, reaches); // the kernel's buffers are full, and the heap has its shape
  const before = await service.memory();
  // Far more than what the garbage collector lets lie around.
  const count = 12_000;
  await sendMany(publisher, count, (n) => reaches(1_200 + n));
  const grown = await service.memory() - before;
  const sent = count * TEXT.length;
  assert(grown < sent / 4, `Grew by ${grown} bytes while ${sent} were sent`);
});

test(
  "is closed with 4508 when it takes nothing in time, and comes back to where it stood",
  async (service, redis) => {
    await using alice = await openStalled(service);
    await sendMany(service.server.app.publisher, MANY);
    await until(() => closeOf(service) === 4508, "the connection to be closed with 4508");
    // Freed at the decision, not when the peer agrees.
    assertEquals([service.server.app.connections.size, service.server.app.connections.closing], [0, 1]);
    if (redis) await new Truth(redis).isEmpty();
    assertEquals(await service.sockets("alice"), 0);
    alice.resumeReading();
    let seq = 0, bye: unknown;
    while (bye === undefined) {
      const frame = JSON.parse(await alice.readText());
      if (frame.t === "m") assertEquals(frame.seq, ++seq);
      else bye = [frame.t, frame.code];
    }
    assertEquals([bye, (await alice.readClose()).code], [["bye", 4508], 4508]);
    alice.sendClose(4508);
    await service.isEmpty();

    const { epoch } = await (await service.fetch("/v1/users/alice/messages?limit=1")).json();
    await using again = await Follower.open(service.socketUrl("alice"), `${epoch}.${seq}`);
    await again.reaches(MANY);
    assertEquals([again.messages.length, again.gaps], [MANY - seq, []]);
  },
  { USERWIRE_SLOW_TIMEOUT_S: "1", USERWIRE_HISTORY: "1000", USERWIRE_MAX_REPLAY: "1000" },
);

for (const letter of ["語"]) {
  Deno.test(`A slow reader is not closed while it takes some, with text of "${letter}"`, async () => {
    const env = { USERWIRE_SLOW_TIMEOUT_S: "2", USERWIRE_MAX_BUFFERED_BYTES: "40000000" };
    await using service = await Service.start({ ...env, USERWIRE_HISTORY: "20" });
    const { publisher, connections } = service.server.app;
    using alice = await Sipper.open(service.socketUrl("alice"));
    const text = letter.repeat(Math.ceil(20_000 / new TextEncoder().encode(letter).length));
    const send = () => publisher.send("alice", { kind: "text", text });
    // What comes from here on waits in the process, not in the kernel.
    for (let i = 0; i < 500; i++) await send();
    const endMs = performance.now() + 4_500;
    while (performance.now() < endMs && connections.size > 0) {
      // More comes than she takes.
      await alice.take(60_000);
      for (let i = 0; i < 8; i++) await send();
    }
    assertEquals([closeOf(service), connections.size], [undefined, 1]);
    await until(
      () => closeOf(service) === 4508,
      "the connection to be closed once she takes nothing",
      10_000,
    );
    alice.leave();
    await until(() => connections.closing === 0, "the socket to be gone");
  });
}

/** Clients that no inbox can bring up to date. */
const NO_WAY_BACK: [who: string, open: (service: Service) => Promise<RawSocket>, history: string][] = [
  ["v1, history 0", openStalled, "0"],
  ["raw, history 0", openStalledRaw, "0"],
  ["raw, history 100", openStalledRaw, "100"],
];

async function openStalledRaw(service: Service): Promise<RawSocket> {
  const raw = await RawSocket.open(service.socketUrl("alice"));
  raw.stopReading();
  return raw;
}

async function assertClosedAtTheMark(
  service: Service,
  open: (service: Service) => Promise<RawSocket>,
): Promise<void> {
  await using alice = await open(service);
  await using healthy = await openClient(service.socketUrl("alice"));
  // No faster than the healthy one takes it: she would be as slow as the other.
  await sendMany(service.server.app.publisher, MANY, async (n) => {
    await until(() => healthy.waiting.length >= n, `message ${n} to come to the healthy one`, 15_000);
  });
  await until(() => closeOf(service) !== undefined, "the slow one to be closed");
  assertEquals(closeOf(service), 4508);
  assertEquals(service.server.app.connections.size, 1);
  for (const n of numbers(1, MANY)) {
    const text = await withDeadline(healthy.next(), 20_000, `message ${n}`);
    assertEquals((text as string).split(" ", 1)[0], `${n}`);
  }
  await alice.closeAbruptly();
  await until(() => service.server.app.connections.closing === 0, "the socket to be gone");
}

for (const [who, open, history] of NO_WAY_BACK) {
  Deno.test(`A slow reader in memory is closed with 4508 at the mark: ${who}`, async () => {
    await using service = await Service.start({ ...ENV, USERWIRE_HISTORY: history });
    await assertClosedAtTheMark(service, open);
  });

  redisTest(`A slow reader with a shared subscription is closed with 4508 at the mark: ${who}`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({
      ...ENV,
      REDIS_URL: redis.url,
      USERWIRE_HISTORY: history,
      USERWIRE_SUBSCRIPTIONS: "shared",
    });
    await assertClosedAtTheMark(service, open);
  });

  redisTest(`A slow reader with a subscription of its own leaves the rest in Redis: ${who}`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ ...ENV, REDIS_URL: redis.url, USERWIRE_HISTORY: history });
    await using alice = await open(service);
    await sendMany(service.server.app.publisher, FLOOD);
    await until(async () => {
      const clients = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub"));
      return Number(/\bomem=(\d+)/.exec(clients)?.[1]) > 0;
    }, "what waits to be held by Redis");
    alice.resumeReading();
    for (const n of numbers(1, FLOOD)) {
      const text = await alice.readText(OPCODE.text, 20_000);
      const payload: string = who.startsWith("raw") ? text : JSON.parse(text).data;
      assertEquals(payload.split(" ", 1)[0], `${n}`);
    }
    assertEquals(closeOf(service), undefined);
  });
}

redisTest("A slow reader that takes some, but stays behind for too long, is closed with 4508", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...ENV, REDIS_URL: redis.url, USERWIRE_SLOW_TIMEOUT_S: "2" });
  using alice = await Sipper.open(service.socketUrl("alice"), "raw");
  const { publisher } = service.server.app;
  await sendMany(publisher, MANY, () => alice.take(1));
  for (let i = 0; i < 1_000 && closeOf(service) === undefined; i++) {
    // More comes than she takes.
    await alice.take(60_000);
    await sendMany(publisher, 5);
  }
  const [closed] = service.logged("connection closed");
  assertEquals([closed?.fields.code, closed?.fields.why], [4508, "slow reader: behind for too long"]);
  alice.leave();
  await until(() => service.server.app.connections.closing === 0, "the socket to be gone");
});

redisTest("A slow reader with a history hears an order to close also after a bare PUBLISH", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...ENV, REDIS_URL: redis.url, USERWIRE_HISTORY: "100" });
  await using _alice = await openStalled(service);
  await sendMany(service.server.app.publisher, MANY);
  await redis.cli("PUBLISH", "alice", `bare ${TEXT}`);
  const response = await service.fetch("/v1/users/alice/connections", { method: "DELETE" });
  assertEquals(await response.json(), { closed: 1 });
  await until(() => closeOf(service) === 4403, "the connection to be closed with 4403");
  assertEquals(service.logged("connection closed")[0]!.fields.missed, 1);
});

redisTest(
  "A slow reader whose subscription is not read either is closed when its token is revoked",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ ...ENV, ...CLOSED, REDIS_URL: redis.url });
    const headers = { Authorization: `Bearer ${await tokenFor("alice", { jti: "bad" })}` };
    await using alice = await RawSocket.open(service.socketUrl(), { headers });
    alice.stopReading();
    await sendMany(service.server.app.publisher, FLOOD);
    const { status } = await call(service, "POST /v1/users/alice/revocations", { body: { jti: "bad" } });
    assertEquals(status, 201);
    await until(() => closeOf(service) !== undefined, "the connection to be closed", 10_000);
    assertEquals(closeOf(service), 4401);
  },
);
