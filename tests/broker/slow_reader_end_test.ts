/** Clients that do not read, or too little: when they are given up, and that orders to close reach them. */
import { assertEquals } from "@std/assert";
import { call, CLOSED, tokenFor } from "../../testkit/closed.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { HeldIntervals, HeldSeconds } from "../../testkit/held_timers.ts";
import { Follower } from "../../testkit/follower.ts";
import { numbers } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { ServerSockets } from "../../testkit/server_sockets.ts";
import { Service, Truth } from "../../testkit/service.ts";
import {
  closeOf,
  ENV,
  FLOOD,
  MANY,
  NO_WAY_BACK,
  openStalled,
  sendMany,
  SIP_BYTES,
  Sipper,
  slowReaderTest,
  TEXT,
} from "../../testkit/slow_readers.ts";
import { openClient } from "../../testkit/ws_client.ts";

slowReaderTest(
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

Deno.test("A slow reader is not closed while it takes some", async () => {
  using sockets = new ServerSockets();
  using seconds = new HeldSeconds();
  const env = { USERWIRE_SLOW_TIMEOUT_S: "2", USERWIRE_MAX_BUFFERED_BYTES: "40000000" };
  await using service = await Service.start({ ...env, USERWIRE_HISTORY: "20" });
  const { publisher, connections } = service.server.app;
  using alice = await Sipper.open(service.socketUrl("alice"));
  const text = "語".repeat(7_000); // which are 21 000 bytes
  // More than the kernel holds and than she takes, and less than the mark.
  for (let i = 0; i < 1_800; i++) await publisher.send("alice", { kind: "text", text });
  const [socket] = sockets.all;
  for (let looks = 0; looks < 5; looks++) {
    const { bufferedAmount } = socket!;
    while (socket!.bufferedAmount === bufferedAmount) await alice.sip(0);
    seconds.run();
  }
  assertEquals([closeOf(service), connections.size], [undefined, 1]);
  // No turn of the event loop in between: so she takes nothing.
  seconds.run();
  assertEquals(closeOf(service), undefined);
  seconds.run();
  assertEquals(closeOf(service), 4508);
  await alice.hearOut();
  await until(() => connections.closing === 0, "the socket to be gone");
});

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
  alice.resumeReading();
  assertEquals((await alice.readClose()).code, 4508);
  alice.sendClose(4508);
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
}

redisTest("A slow reader that takes some, but stays behind for too long, is closed with 4508", async () => {
  // However much waits there: else Redis hangs up at 32 MB.
  await using redis = await RedisServer.start({ args: ["--client-output-buffer-limit", "pubsub 0 0 0"] });
  // The service looks at her when the test says so; what it asks her for while she has no room is counted.
  using seconds = new HeldSeconds();
  using pauses = new HeldIntervals(50, { runs: true });
  await using service = await Service.start({ ...ENV, REDIS_URL: redis.url, USERWIRE_SLOW_TIMEOUT_S: "2" });
  using alice = await Sipper.open(service.socketUrl("alice"), "raw");
  const { publisher } = service.server.app;
  while (pauses.count === 0) await sendMany(publisher, 4);
  let looks = 0;
  for (; closeOf(service) === undefined; looks++) {
    // She is found behind at every look, and had room for some since the last one: more comes than she takes, by a quarter,
    // since the kernel's buffers grow meanwhile and take what is left over.
    const { made } = pauses;
    while (pauses.made === made) {
      await Promise.all([alice.sip(0), sendMany(publisher, 1.25 * SIP_BYTES / TEXT.length)]);
    }
    while (pauses.count === 0) await sendMany(publisher, 4);
    seconds.run();
  }
  assertEquals(looks, 12, "six times the limit");
  const [closed] = service.logged("connection closed");
  assertEquals([closed?.fields.code, closed?.fields.reason], [4508, "slow reader: behind for too long"]);
  await alice.hearOut();
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
    await until(() => closeOf(service) !== undefined, "the connection to be closed");
    assertEquals(closeOf(service), 4401);
  },
);
