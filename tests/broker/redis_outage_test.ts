/**
 * Redis comes and goes under a running service: it starts later, restarts, hangs, or is no Redis at all. Sockets
 * stay open, nothing waits for ever, every answer says what is wrong, and afterwards everything is as before.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { Attempt } from "../../src/async/attempt.ts";
import { RedisConnection } from "../../src/redis/raw_connection.ts";
import { DedicatedSubscription } from "../../src/broker/dedicated_subscription.ts";
import { parseRedisUrl } from "../../src/redis/address.ts";
import { encodeCommand } from "../../src/redis/resp.ts";
import { Semaphore } from "../../src/async/semaphore.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { Pace } from "../../src/async/slices.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { BusyClock } from "../../testkit/busy_clock.ts";
import { call } from "../../testkit/closed.ts";
import { connected } from "../../testkit/connected.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { type Sent, Service, Truth } from "../../testkit/service.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

/** How soon it must be known that Redis hangs, and the longest that an answer may take: three seconds, or a bit more. */
const NOTICE_MS = 4_500;
/** The longest that an answer may take that waits for nothing. */
const AT_ONCE_MS = 1_000;
/** Of what a machine that stands still may spoil. */
const TRIES = 5;

/** Fails unless the answer says: not now, come back. */
function assertUnavailable({ status, retryAfter, body }: Sent): void {
  assertEquals([status, body.code, body.status], [503, "broker_unavailable", 503]);
  assertMatch(retryAfter ?? "", /^[1-9]\d*$/);
}

function assertRefused({ status, headers, body }: RawSocket["answer"]): void {
  assertEquals(headers.get("content-type"), "application/problem+json");
  assertUnavailable({ status, retryAfter: headers.get("retry-after"), body: JSON.parse(body) });
}

async function isReady(service: Service, ms?: number): Promise<void> {
  await until(async () => (await service.readiness()).status === 200, "the service to be ready", ms);
}

async function isUnready(service: Service, ms?: number): Promise<void> {
  await until(async () => (await service.readiness()).status === 503, "the service to be unready", ms);
}

/** Opens sockets of user0, user1, … in turns on the services. They close with the stack. */
async function openUsers(
  stack: AsyncDisposableStack,
  services: Service[],
  count: number,
): Promise<WsClient[]> {
  const clients = Array.from({ length: count }, async (_, i) => {
    return stack.use(await openClient(services[i % services.length]!.socketUrl(`user${i}`)));
  });
  return await Promise.all(clients);
}

// ---------------------------------------------------------------------------------------------------------
// Away from the start

Deno.test("A Redis that accepts and hangs up at once is dialled ever more slowly", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const dialledMs: number[] = [];
  const accepting = (async () => {
    for await (const connection of listener) {
      dialledMs.push(performance.now());
      connection.close();
    }
  })();
  // A connection may be taken long after it was dialled, so the time counts from before the first one.
  const startedMs = performance.now();
  {
    await using _ = await Service.start({ REDIS_URL: `redis://127.0.0.1:${listener.addr.port}` });
    await until(() => dialledMs.length >= 6, "six attempts", 30_000);
  }
  listener.close();
  await accepting;
  // At once, then after 50, 100, 200 and 400 ms at least.
  assert(dialledMs[5]! - startedMs > 700, `six attempts within ${dialledMs[5]! - startedMs} ms`);
});

redisTest("A service started before Redis is up says so, lives, and connects by itself", async () => {
  await using redis = await RedisServer.start();
  await redis.stop();
  await using service = await Service.start({ REDIS_URL: redis.url });

  const { status, why } = await service.readiness();
  assertEquals(status, 503);
  assertMatch(why ?? "", /^Redis is not available: .*refused/i);
  const health = await service.fetch("/healthz");
  assertEquals([health.status, await health.json()], [200, { status: "ok" }]);
  assertUnavailable(await service.send("alice", "hello"));
  for (const url of [service.socketUrl("alice"), service.socketUrl()]) {
    await using socket = await RawSocket.open(url);
    assertRefused(socket.answer);
  }

  await redis.restart();
  await isReady(service);
  await using alice = await openClient(service.socketUrl("alice"));
  assertEquals((await service.send("alice", "hello")).body.sockets, 1);
  assertEquals(await alice.next(), "hello");
  assertEquals(service.logged("redis unavailable").length, 1);
});

redisTest(
  "While Redis is away an answer says what became of the request, and of no message that was none",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    await redis.stop();
    await isUnready(service);
    const calls: [request: string, body: unknown, fate: RegExp][] = [
      ["POST /v1/users/alice/messages", 1, /; nothing was sent$/],
      [
        "POST /v1/messages",
        { items: [{ to: "alice", data: 1 }] },
        /; nothing was sent$/,
      ],
      ["DELETE /v1/users/alice/connections", undefined, /; no socket was told to close$/],
      ["POST /v1/users/alice/revocations", {}, /; nothing was revoked$/],
      ["POST /v1/tickets", { user: "alice" }, /^[^;]+$/],
      ["GET /v1/users/alice", undefined, /^[^;]+$/],
      ["POST /v1/users/online", { users: ["alice"] }, /^[^;]+$/],
      ["GET /v1/users/alice/messages", undefined, /^[^;]+$/],
    ];
    for (const [request, body, fate] of calls) {
      const answer = await call(service, request, { key: undefined, body });
      assertEquals([answer.status, answer.body.code], [503, "broker_unavailable"], request);
      assertMatch(answer.body.detail, /^Redis is not available: /);
      assertMatch(answer.body.detail, fate);
    }
    for (const url of [service.socketUrl("alice"), service.socketUrl()]) {
      await using socket = await RawSocket.open(url);
      assertRefused(socket.answer);
      assertMatch(JSON.parse(socket.answer.body).detail, /^Redis is not available: [^;]+$/);
    }
  },
);

Deno.test("A service whose Redis accepts and never answers is not ready, and still refuses in time", async () => {
  using mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of mute) accepted.push(conn);
  })();
  {
    await using service = await Service.start({
      REDIS_URL: `redis://127.0.0.1:${(mute.addr as Deno.NetAddr).port}`,
      USERWIRE_REDIS_TIMEOUT_MS: "500",
    });
    await until(
      async () => (await service.readiness()).why === "Redis does not answer",
      "the reason to be known",
    );
    assertUnavailable(await service.send("alice", "hello"));
    await using socket = await RawSocket.open(service.socketUrl("alice"));
    assertRefused(socket.answer);
    assertEquals(service.logged("redis available"), []);
  }
  mute.close();
  await accepting;
  for (const conn of accepted) conn.close();
});

redisTest("A service that Redis lets not in does not start", async () => {
  await using redis = await RedisServer.start({ password: "right" });
  const urls = [`redis://127.0.0.1:${redis.port}`, `redis://:wrong@127.0.0.1:${redis.port}`];
  for (const REDIS_URL of urls) {
    const error = await assertRejects(() => Service.start({ REDIS_URL }), ConfigError);
    assertMatch(error.message, /^REDIS_URL: Redis (wants a password|refused the password)/);
    assert(!error.message.includes("wrong"));
  }
});

// ---------------------------------------------------------------------------------------------------------
// Goes away and comes back

redisTest("A restart of Redis under 200 open sockets costs none of them", async () => {
  await using redis = await RedisServer.start();
  await using here = await Service.start({ REDIS_URL: redis.url });
  await using there = await Service.start({ REDIS_URL: redis.url });
  const truth = new Truth(redis);
  await using stack = new AsyncDisposableStack();
  const users = await openUsers(stack, [here, there], 200);
  assertEquals((await truth.subscribers()).length, 200);

  await redis.stop({ signal: "SIGKILL" });
  // From the first moment on, also before anybody has noticed.
  for (const service of [here, there]) {
    assertUnavailable(await service.send("user0", "lost"));
    await using socket = await RawSocket.open(service.socketUrl("late"));
    assertRefused(socket.answer);
    const health = await service.fetch("/healthz");
    assertEquals([health.status, await health.json()], [200, { status: "ok" }]);
    assertEquals((await service.readiness()).status, 503);
    assertUnavailable(await service.send("user0", "lost"));
  }
  const who = await here.fetch("/v1/users/user0");
  assertEquals([who.status, who.headers.get("retry-after") !== null], [503, true]);
  await who.body?.cancel();

  await redis.restart();
  await Promise.all([isReady(here, 10_000), isReady(there, 10_000)]);
  await until(
    async () => (await truth.channels()).length === 200,
    "all users to be subscribed again",
    10_000,
  );
  const receipts = await Promise.all(users.map((_, i) =>
    there.server.app.publisher.send(`user${i}`, {
      kind: "text",
      text: `back ${i}`,
    })
  ));
  assertEquals(receipts.map(({ sockets }) => sockets), users.map(() => 1));
  for (const [i, user] of users.entries()) assertEquals(await user.next(), `back ${i}`);
  assertEquals((await truth.subscribers()).length, 200);
  assertEquals([here, there].map((service) => service.server.app.connections.size), [100, 100]);

  await stack.disposeAsync();
  await truth.isEmpty();
  for (const service of [here, there]) {
    assertEquals(service.logged("connection closed").length, 100);
    assertEquals(service.log.records.filter(({ level }) => level === "error"), []);
  }
});

redisTest(
  "The first number that is answered after a restart of Redis is the right one, wherever the user is",
  async () => {
    await using redis = await RedisServer.start();
    await using here = await Service.start({ REDIS_URL: redis.url });
    await using there = await Service.start({ REDIS_URL: redis.url });
    await using stack = new AsyncDisposableStack();
    const users = (await openUsers(stack, [here, there], 100)).map((_, i) => `user${i}`);

    for (let rounds = 0, tries = 0; rounds < 2;) {
      assert(tries++ < TRIES, "the machine stands still too often");
      await redis.stop({ signal: "SIGKILL" });
      await Promise.all([isUnready(here), isUnready(there)]);
      await redis.restart();
      // Each comes back to Redis in its own time; whoever is the first knows nothing of the other.
      const found = await Promise.all([here, there].map(async (service) => {
        const returns = () => service.logged("redis available").length;
        await until(() => returns() > tries, "the node to be back");
        const backMs = performance.now();
        let online = new Map<string, number>();
        const isAnswered = async () => {
          online = await service.server.app.publisher.online(users).catch(() => online);
          return online.size > 0;
        };
        await until(isAnswered, "an answer", 10_000);
        return { backMs, online };
      }));
      // They are waited for one and a half seconds.
      if (Math.abs(found[0]!.backMs - found[1]!.backMs) > 1_000) continue;
      for (const { online } of found) assertEquals([...online], users.map((user) => [user, 1]));
      rounds++;
    }
  },
);

// ---------------------------------------------------------------------------------------------------------
// Hangs

redisTest("A Redis that has not answered for a second is told of before anything is given up", async () => {
  await using redis = await RedisServer.start();
  const engine = openEngine({ redisUrl: redis.url, redisTimeoutMs: 600_000 });
  try {
    await connected(engine);
    await redis.pause();
    const asked = engine.broker.counts(["alice"]);
    await until(() => engine.unready() === "Redis does not answer", "a node that is not ready");
    assertEquals(engine.broker.unavailable(), undefined);
    redis.resume();
    assertEquals(await asked, [0]);
    await until(() => engine.unready() === undefined, "a node that is ready again");
  } finally {
    await engine.close();
  }
});

redisTest(
  "A hung Redis is noticed within seconds, holds up no answer, and is used again when it goes on",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using alice = await openClient(service.socketUrl("alice"));
    await using unnamed = await openClient(service.socketUrl());
    await isReady(service);

    await redis.pause();
    await using clock = new BusyClock(() => service.fetch("/healthz"));
    async function timed<T>(answer: PromiseLike<T>, limitMs = NOTICE_MS): Promise<T> {
      const startMs = clock.ms;
      const value = await withDeadline(answer, 60_000, "an answer");
      const tookMs = clock.ms - startMs;
      assert(tookMs < limitMs, `The answer took ${tookMs} ms`);
      return value;
    }
    // Many more than are dialled at one time: nobody waits for those before him.
    const upgrades = Array.from({ length: 200 }, async (_, i) => {
      await using socket = await RawSocket.dial(service.socketUrl(`user${i}`));
      socket.sendHandshake();
      return await timed(socket.readAnswer(60_000));
    });
    unnamed.send('{"user_name":"bob"}');
    const [sent, who, online, bob, answers] = await Promise.all([
      timed(service.send("alice", "hello")),
      timed(service.fetch("/v1/users/alice")),
      timed(service.fetch("/v1/users/online", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"users":["alice"]}',
      })),
      timed(unnamed.closed),
      Promise.all(upgrades),
      timed(isUnready(service, 60_000)),
    ]);
    assertUnavailable(sent);
    for (const response of [who, online]) {
      assertEquals(response.status, 503);
      await response.body?.cancel();
    }
    assertEquals(bob.code, 1013);
    for (const answer of answers) assertRefused(answer);
    // Now that it is known there is nothing to wait for.
    assertUnavailable(await timed(service.send("alice", "hello"), AT_ONCE_MS));
    // When the answers took a busy machine more than five seconds, the connection has been given up meanwhile.
    assertMatch(
      (await service.readiness()).why!,
      /^Redis (does not answer|is not available: it has been silent)/,
    );

    redis.resume();
    await isReady(service);
    await new Truth(redis).untilCount("alice", 1);
    // What was sent into the silence may arrive late: the answer said that nobody knows.
    assertEquals((await service.send("alice", "back")).body.sockets, 1);
    let message: string | Uint8Array;
    do message = await alice.next(); while (message === "hello");
    assertEquals(message, "back");
    await until(
      async () => (await new Truth(redis).subscribers()).length === 1,
      "only alice to be subscribed",
    );
    assertEquals(service.server.app.connections.size, 1);
  },
);

/** A subscription of alice, which is dialled one at a time; `close` ends all there is. */
async function subscribeAlice(redis: RedisServer, recorder: Recorder) {
  const semaphore = new Semaphore(1);
  const deadlines = new Deadlines(1_000);
  const attempt = async <T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>) => {
    const attempt = new Attempt(deadlines, { late: () => new Error("late"), signal });
    try {
      return await work(attempt);
    } finally {
      attempt.end();
    }
  };
  const dialling = {
    closeDeadlines: deadlines,
    pace: new Pace(),
    attempt,
    redial: attempt,
    whenReady: () => Promise.resolve(),
    isOld: () => false,
  };
  const subscription = new DedicatedSubscription("alice", recorder, dialling, {
    dial: (channel, attempt) =>
      RedisConnection.open(parseRedisUrl(redis.url), attempt, {
        commands: [encodeCommand("SUBSCRIBE", channel)],
        semaphore,
      }),
    onSubscribed() {},
    onLost() {},
    onClosed() {},
    isClosed: false,
    log: undefined,
  });
  await attempt(undefined, (attempt) => subscription.open(attempt));
  const close = async () => {
    await subscription.close();
    deadlines.close();
  };
  return { subscription, close };
}

redisTest("DedicatedSubscription stays on a connection that was found after a dead one", async () => {
  await using redis = await RedisServer.start();
  const recorder = new Recorder();
  const { subscription, close } = await subscribeAlice(redis, recorder);

  await redis.pause();
  while (recorder.changes.length === 0) {
    subscription.checkHealth();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  redis.resume();
  await recorder.isRestored();
  subscription.checkHealth();
  await redis.cli("PUBLISH", "alice", "hello");
  await recorder.received(1);

  assertEquals(recorder.changes, ["lost", "restored"]);
  await close();
});

redisTest("DedicatedSubscription takes the word of a Redis that is busy for a sign of life", async () => {
  await using redis = await RedisServer.start({ args: ["--busy-reply-threshold", "1"] });
  const recorder = new Recorder();
  const { subscription, close } = await subscribeAlice(redis, recorder);

  using other = await RedisCommands.connect({ port: redis.port });
  const endless = assertRejects(() => other.command("EVAL", "while true do end", 0), Error, "killed");
  await until(
    () => redis.cli("PING").then(() => false, ({ message }) => message.startsWith("BUSY ")),
    "Redis to be busy",
  );
  subscription.ping();
  await until(() => !subscription.isSilent, "the answer");
  await redis.cli("SCRIPT", "KILL");
  await endless;
  await redis.cli("PUBLISH", "alice", "hello");
  await recorder.received(1);

  assertEquals(recorder.changes, []);
  await close();
});
