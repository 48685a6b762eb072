/**
 * The handshake: its subscription is confirmed before it is answered, so that whoever sees `open` misses nothing
 * that is sent from then on. A client that leaves in the middle leaves nothing behind, and a Redis that is away
 * means a clear refusal, not a socket without ears.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldSubscriptions } from "../../testkit/held_subscriptions.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { Chance } from "../../testkit/random.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { openClient, WsClient } from "../../testkit/ws_client.ts";

const MODES = { raw: [], v1: ["userwire.v1"] } as const;
type Mode = keyof typeof MODES;

/** The payload of the next message, past `hi` and out of its frame. */
async function nextPayload(client: WsClient, mode: Mode): Promise<string> {
  if (mode === "raw") return await client.next() as string;
  let frame = await client.nextJson();
  while (frame.t === "hi") frame = await client.nextJson();
  return frame.data as string;
}

// ---------------------------------------------------------------------------------------------------------
// Nothing is missed

for (const mode of Object.keys(MODES) as Mode[]) {
  redisTest(`Of 1,000 clients (${mode}) that are sent to in the instant of open, 1,000 receive`, async () => {
    await using redis = await RedisServer.start();
    await using service = await ProcessService.start({ REDIS_URL: redis.url });
    await using publisher = await Publisher.open({ redisUrl: redis.url });

    async function meet(username: string): Promise<void> {
      const socket = new WebSocket(service.socketUrl(username), [...MODES[mode]]);
      await using client = new WsClient(socket);
      const { promise: sockets, resolve, reject } = Promise.withResolvers<number>();
      socket.addEventListener("open", () => {
        publisher.send(username, { kind: "text", text: `hello ${username}` }).then(
          (sent) => resolve(sent.sockets!),
          reject,
        );
      });
      assertEquals(await nextPayload(client, mode), `hello ${username}`);
      assertEquals(await sockets, 1);
    }
    for (let i = 0; i < 1_000; i += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, k) => meet(`user${i + k}`)));
    }
    await new Truth(redis).isEmpty();
  });

  redisTest(
    `What is sent between subscription and open reaches the client (${mode}) whole and in order`,
    async () => {
      await using redis = await RedisServer.start();
      await using service = await ProcessService.start({ REDIS_URL: redis.url, USERWIRE_HISTORY: "10000" });
      await using publisher = await Publisher.open({ redisUrl: redis.url, history: 10_000 });
      let early = 0;

      for (let round = 0; round < 100; round++) {
        const username = `user${round}`;
        const socket = new WebSocket(service.socketUrl(username), [...MODES[mode]]);
        await using client = new WsClient(socket);
        // Sends without a pause, from before the subscription until after `open`; what reached a socket must arrive.
        const reached: string[] = [];
        let afterOpen = 0;
        for (let i = 0; afterOpen < 3; i++) {
          const isOpen = socket.readyState === WebSocket.OPEN;
          const { sockets } = await publisher.send(username, { kind: "text", text: String(i) });
          if (sockets === 1) reached.push(String(i));
          if (sockets === 1 && !isOpen) early++;
          if (isOpen) afterOpen++;
        }
        const got: string[] = [];
        while (got.at(-1) !== reached.at(-1)) got.push(await nextPayload(client, mode));
        // A framed client also gets what was stored between its place in the history and its subscription.
        if (mode === "raw") assertEquals(got, reached);
        else assertEquals(got.slice(-reached.length), reached);
        assertEquals(got, got.map((_, i) => String(Number(got[0]) + i)), "whole and in order");
        assertEquals(client.waiting, []);
      }
      assertGreater(early, 0, "the test never hit the moment it is about");
    },
  );
}

// ---------------------------------------------------------------------------------------------------------
// Clients that leave

redisTest("Clients that leave during the handshake leave nothing behind", async () => {
  await using redis = await RedisServer.start();
  // In a process, since Deno itself never completes an upgrade whose client is gone. With so few places, a session
  // or a socket that is still counted keeps somebody out below; but for the few that Deno keeps, which count rightly.
  await using service = await ProcessService.start({
    REDIS_URL: redis.url,
    USERWIRE_MAX_CONNECTIONS: "270",
    USERWIRE_MAX_CONNECTIONS_PER_USER: "0",
    USERWIRE_IDENTITY_TIMEOUT_S: "1",
    // The crowd subscribes at once: however long a busy machine takes for that, nobody is refused for it.
    USERWIRE_REDIS_TIMEOUT_MS: "60000",
  });
  await Chance.run(async (chance) => {
    for (let i = 0; i < 200; i++) {
      const socket = await RawSocket.dial(service.socketUrl(chance.below(4) === 0 ? undefined : `user${i}`));
      socket.sendHandshake(
        chance.below(2) === 0 ? {} : { headers: { "Sec-WebSocket-Protocol": "userwire.v1" } },
      );
      await chance.pause();
      await (chance.below(2) === 0 ? socket.reset() : socket.closeAbruptly());
    }
  });

  await new Truth(redis).isEmpty();
  await until(async () => {
    const response = await fetch(new URL("/readyz", service.url));
    return (await response.json()).connections === 0;
  }, "no session to be left");
  await using stack = new AsyncDisposableStack();
  // At once: after so many that left each waits for its turn.
  const crowd = Array.from({ length: 240 }, () => openClient(service.socketUrl("crowd")));
  for (const client of await Promise.all(crowd)) stack.use(client);
  assertEquals(await new Truth(redis).count("crowd"), 240);
  assertEquals(service.records.filter(({ level }) => level === "error"), []);
});

redisTest("Clients that leave while Redis hangs leave nothing behind", async () => {
  await using redis = await RedisServer.start();
  // However long it takes until all are under way, none of them is late.
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_REDIS_TIMEOUT_MS: "60000" });
  const { connections } = service.server.app;
  await redis.pause();
  const sockets: RawSocket[] = [];
  for (let i = 0; i < 150; i++) {
    const socket = await RawSocket.dial(service.socketUrl(`user${i}`));
    socket.sendHandshake();
    sockets.push(socket);
  }
  await until(() => connections.size === 150, "all handshakes to be under way");

  for (const [i, socket] of sockets.entries()) await (i % 2 === 0 ? socket.reset() : socket.closeAbruptly());

  await service.isEmpty();
  assertEquals(
    service.logged("connection failed while opening").map(({ fields }) => fields.reason),
    sockets.map(() => "the client left"),
  );
  redis.resume();
  await new Truth(redis).isEmpty();
  await using alice = await openClient(service.socketUrl("alice"));
  assertEquals((await service.send("alice", "hello")).body.sockets, 1);
  assertEquals(await alice.next(), "hello");
});

redisTest("A client that says its name and leaves at once leaves nothing behind", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  const { connections } = service.server.app;
  for (let i = 0; i < 50; i++) {
    const name = `user${i}`;
    const socket = await RawSocket.open(service.socketUrl());
    socket.sendText(`{"user_name":"${name}"}`);
    // To leave may overtake the name: half of them wait until it has come, and there was something to be left.
    const isKnown = () =>
      connections.countOf(name) === 1 || service.log.records.some(({ fields }) => fields.user === name);
    if (i % 4 < 2) await until(isKnown, `${name} to be known`);
    await (i % 2 === 0 ? socket.reset() : socket.closeAbruptly());
  }
  await service.isEmpty();
  await new Truth(redis).isEmpty();
});

Deno.test("A client that says its name and leaves before its subscription is confirmed leaves nothing behind", async () => {
  for (const hear of [false, true]) {
    await using service = await Service.start();
    const { connections } = service.server.app;
    using subscriptions = new HeldSubscriptions({ hear });
    for (let i = 0; i < 20; i++) {
      const socket = await RawSocket.open(service.socketUrl());
      socket.sendText(`{"user_name":"user${i}"}`);
      await subscriptions.come(i + 1);
      await (i % 2 === 0 ? socket.reset() : socket.closeAbruptly());
    }
    await service.isEmpty();
    assertEquals(connections.countOf("user0"), 0);
    subscriptions.release();
    await subscriptions.are(20, 0);
    assertEquals(service.logged("connection failed while opening").length, 20);
    assertEquals(service.logged("connection opened"), []);
  }
});

Deno.test("A client whose user is sent away while its socket opens is not let in", async () => {
  for (const way of ["kicked", "drained"]) {
    await using service = await Service.start();
    const { connections } = service.server.app;
    using subscriptions = new HeldSubscriptions({ hear: true });
    await using alice = await RawSocket.dial(service.socketUrl("alice"));
    alice.sendHandshake();
    await subscriptions.come(1);
    const draining = way === "drained" ? service.server.app.drain(0) : undefined;
    if (way === "kicked") await service.server.app.publisher.closeConnections("alice", CLOSE.kicked);
    assertEquals(connections.size + connections.closing, 0);
    subscriptions.release();
    const { status, body } = await alice.readAnswer();
    const [wanted, code] = way === "kicked" ? [401, "unauthorized"] : [503, "draining"];
    assertEquals([status, JSON.parse(body).code], [wanted, code]);
    await subscriptions.are(1, 0);
    await draining;
  }
});

// ---------------------------------------------------------------------------------------------------------
// Without Redis

redisTest(
  "A handshake while Redis is away is answered with 503 and a problem, known or not yet",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using waiting = await openClient(service.socketUrl());
    await redis.stop({ signal: "SIGKILL" });

    async function assertRefused(username: string | undefined, protocol: string | null): Promise<void> {
      await using socket = await RawSocket.open(service.socketUrl(username), {
        headers: { "Sec-WebSocket-Protocol": protocol },
      });
      const { status, headers, body } = socket.answer;
      assertEquals([status, headers.get("content-type")], [503, "application/problem+json"]);
      assertMatch(headers.get("retry-after") ?? "", /^[1-9]\d*$/);
      const { type, title, code, detail } = JSON.parse(body);
      assertEquals([type, code], ["urn:userwire:problem:broker_unavailable", "broker_unavailable"]);
      assert(title !== "" && detail !== "");
    }
    // The first one may be what finds out that Redis is away.
    await assertRefused("alice", null);
    await until(async () => (await service.readiness()).status === 503, "the outage to be known");
    await assertRefused("alice", null);
    await assertRefused("alice", "userwire.v1");
    await assertRefused(undefined, null);

    waiting.send('{"user_name":"alice"}');
    assertEquals((await waiting.closed).code, 1013);
    await service.isEmpty();
  },
);

redisTest(
  "A handshake beyond what Redis takes is answered with 503, and the others are not harmed",
  async () => {
    await using redis = await RedisServer.start({ args: ["--maxclients", "40"] });
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using alice = await openClient(service.socketUrl("alice"));
    await using stack = new AsyncDisposableStack();
    let refused = 0;
    for (let i = 0; i < 30; i++) {
      const socket = stack.use(await RawSocket.open(service.socketUrl(`user${i}`)));
      if (socket.answer.status !== 101) {
        assertEquals(socket.answer.status, 503);
        assertMatch(JSON.parse(socket.answer.body).detail, /as many connections as it may/);
        refused++;
      }
    }
    assertGreater(refused, 0);
    assertEquals((await service.send("alice", "hello")).body.sockets, 1);
    assertEquals(await alice.next(), "hello");
    await stack.disposeAsync();
    await until(async () => await service.sockets("user0") === 0, "the places to be free again");
    await using late = await openClient(service.socketUrl("late"));
    assertEquals(late.waiting, []);
  },
);
