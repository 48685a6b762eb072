/**
 * What every broker over Redis must do when Redis comes and goes: `broker.ts` has the guarantees that need only
 * a server that is well. Each test has a server of its own and hurts it for real.
 *
 *     redisBrokerContract("DedicatedRedisBroker", (url) => {
 *       const { broker, close } = openBroker({ redisUrl: url });
 *       return { broker, dispose: close };
 *     });
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotMatch,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import type { Broker, Subscription } from "../../src/broker/broker.ts";
import { BrokerUnavailableError } from "../../src/errors.ts";
import { until, withDeadline } from "../support/deadline.ts";
import { Recorder } from "../support/recorder.ts";
import { RedisServer, type RedisServerOptions, redisTest } from "../support/redis_server.ts";

/** A broker, and how to end it and all it stands on. */
export interface OpenedRedisBroker {
  readonly broker: Broker;
  dispose(): Promise<void>;
}

const TEST_MS = 60_000;
/** No call may take longer, whatever Redis does. */
const CALL_MS = 6_000;
/** A call that needs no answer from a Redis that is known to be away. */
const QUICK_MS = 3_000;
/** How soon a broker must have noticed that Redis went away, or came back. */
const NOTICE_MS = 15_000;

/**
 * Declares the tests.
 * @param name Name of the implementation; each test's name begins with it.
 * @param open Opens a broker on the server at this URL, which may be down, and returns at once. Its timeouts
 *   must be the ones of the product.
 */
export function redisBrokerContract(name: string, open: (url: string) => OpenedRedisBroker): void {
  /** One test with its own server; the broker is opened while the server is up and answers. */
  function test(claim: string, body: (broker: Broker, redis: RedisServer) => Promise<void>): void {
    testWithServer(claim, {}, async (redis) => {
      await withBroker(redis.url, async (broker) => {
        await isAvailable(broker);
        await body(broker, redis);
      });
    });
  }

  function testWithServer(
    claim: string,
    options: RedisServerOptions,
    body: (redis: RedisServer) => Promise<void>,
  ): void {
    redisTest(`${name} ${claim}`, async () => {
      await using redis = await RedisServer.start(options);
      await withDeadline(body(redis), TEST_MS, "the test to end");
    });
  }

  async function withBroker(url: string, body: (broker: Broker) => Promise<void>): Promise<void> {
    const { broker, dispose } = open(url);
    try {
      await body(broker);
    } finally {
      await withDeadline(dispose(), CALL_MS, "the broker to be disposed of");
    }
  }

  // -------------------------------------------------------------------------------------------------------
  // Payloads of others

  test("hands on foreign bytes as text when they are UTF-8, else as bytes", async (broker, redis) => {
    const text = "\uFEFFé 日本 🦊";
    const payloads: Uint8Array[] = [
      Uint8Array.of(0xff, 0xfe, 0x00, 0x0d, 0x0a),
      new TextEncoder().encode(text),
      Uint8Array.of(0x80), // a continuation of nothing
      Uint8Array.of(0x61, 0xc3), // cut in the middle of a character
      Uint8Array.of(0xc0, 0xaf), // "/" in too many bytes
      Uint8Array.of(0xed, 0xa0, 0x80), // half of a surrogate pair
      new Uint8Array(),
      new Uint8Array(200_000).fill(0xff),
    ];
    const recorder = new Recorder();
    await broker.subscribe("bytes", recorder);
    for (const payload of payloads) assertEquals(await redis.cli("PUBLISH", "bytes", payload), 1);
    await recorder.received(payloads.length);
    // Compared after all have come: none may lie in a buffer that the next one was read into.
    assertEquals(
      recorder.payloads.slice(0, -1),
      payloads.slice(0, -1).with(1, text as never).with(6, "" as never),
    );
    const long = recorder.payloads.at(-1);
    assert(long instanceof Uint8Array && long.length === 200_000 && long.every((byte) => byte === 0xff));
    assertEquals(recorder.byteLengths, payloads.map((payload) => payload.length));
  });

  // -------------------------------------------------------------------------------------------------------
  // Connections that break

  test("restores a subscription whose connection was killed", async (broker, redis) => {
    const recorder = new Recorder();
    await broker.subscribe("alice", recorder);
    for (let i = 1; i <= 5; i++) {
      await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
      await until(() => recorder.changes.length === 2 * i, "the subscription to be lost and restored");
      recorder.assertPairs();
      assertEquals(await broker.publish("alice", `${i}`), 1);
      await recorder.received(i);
    }
    assertEquals(recorder.payloads, ["1", "2", "3", "4", "5"]);
    for (const why of recorder.reasons) assertMatch(why, /^\P{Ll}.*[^.]$/u); // a sentence without a full stop
  });

  test(
    "delivers in order and at most once to a subscription that breaks in a flood",
    async (broker, redis) => {
      const recorder = new Recorder();
      await broker.subscribe("alice", recorder);
      let sent = 0;
      while (recorder.changes.length < 6) {
        const round = Array.from({ length: 100 }, () => broker.publish("alice", `${sent++}`));
        if (sent % 500 === 0) await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
        await Promise.all(round);
      }
      await recorder.isRestored();
      const last = `${sent}`;
      await broker.publish("alice", last);
      await until(() => recorder.payloads.at(-1) === last, "the last payload");
      recorder.assertPairs();
      const numbers = recorder.payloads.map(Number);
      assert(numbers.every((n, i) => i === 0 || n > numbers[i - 1]!), "A payload came twice or out of order");
    },
  );

  test("survives subscribers that throw when they are lost and restored", async (broker, redis) => {
    class Faulty extends Recorder {
      override lost(why: string): void {
        super.lost(why);
        throw new Error("a subscriber's own fault");
      }
      override restored(): void {
        super.restored();
        throw new Error("a subscriber's own fault");
      }
    }
    const recorders = [new Faulty(), new Recorder(), new Faulty()];
    for (const recorder of recorders) await broker.subscribe("alice", recorder);
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    for (const recorder of recorders) await recorder.isRestored();
    assertEquals(await broker.publish("alice", "still here"), 3);
    for (const recorder of recorders) await recorder.received(1);
  });

  // -------------------------------------------------------------------------------------------------------
  // A server that goes and comes back

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    test(
      `restores 50 subscriptions after Redis was ended by ${signal} and came back`,
      async (broker, redis) => {
        const recorders = Array.from({ length: 50 }, () => new Recorder());
        await Promise.all(recorders.map((recorder, i) => broker.subscribe(`user-${i}`, recorder)));
        const connectionsBefore = await subscriberConnections(redis);
        await redis.stop({ signal });
        await Promise.all(recorders.map((recorder) => recorder.isLost(NOTICE_MS)));
        await isUnavailable(broker);
        await assertUnavailable(() => broker.publish("user-0", "into the void"), QUICK_MS);
        await redis.restart();
        await Promise.all(recorders.map((recorder) => recorder.isRestored(NOTICE_MS)));
        await isAvailable(broker);
        const reached = await Promise.all(recorders.map((_, i) => broker.publish(`user-${i}`, `${i}`)));
        assertEquals(reached, recorders.map(() => 1));
        await Promise.all(recorders.map((recorder) => recorder.received(1)));
        assertEquals(recorders.map(({ payloads }) => payloads), recorders.map((_, i) => [`${i}`]));
        for (const recorder of recorders) recorder.assertPairs();
        assertEquals(await subscriberConnections(redis), connectionsBefore);
      },
    );
  }

  test(
    "keeps sends from counting too few while its subscriptions are not all back",
    async (broker, redis) => {
      const recorders = Array.from({ length: 200 }, () => new Recorder());
      await Promise.all(recorders.map((recorder) => broker.subscribe("crowd", recorder)));
      await redis.restart({ signal: "SIGKILL" });
      const answers: number[] = [];
      await until(
        async () => {
          await broker.publish("crowd", "all there?").then((reached) => answers.push(reached), () => {});
          return answers.length > 0;
        },
        "a send to be answered",
        NOTICE_MS,
      );
      assertEquals(answers, [200]);
    },
  );

  test("lets go of a subscription that is closed while it is lost", async (broker, redis) => {
    const recorder = new Recorder();
    const subscription = await broker.subscribe("alice", recorder);
    await redis.stop();
    await recorder.isLost(NOTICE_MS);
    await withDeadline(subscription.close(), QUICK_MS, "the lost subscription to close");
    await redis.restart();
    await isAvailable(broker);
    const other = new Recorder();
    await broker.subscribe("alice", other); // by now the closed one would have come back, too
    assertEquals(await broker.publish("alice", "only the other"), 1);
    await other.received(1);
    assertEquals(recorder.changes, ["lost"]);
    assertEquals(recorder.payloads, []);
  });

  test("leaves no ghosts when Redis dies while many subscribe", async (broker, redis) => {
    const recorders: Recorder[] = [];
    const attempts = Array.from({ length: 60 }, async (_, i) => {
      for (let turns = 0; turns < i; turns++) await new Promise((resolve) => setTimeout(resolve));
      const recorder = new Recorder();
      await broker.subscribe("crowd", recorder);
      recorders.push(recorder);
    });
    const outcomes = Promise.allSettled(attempts);
    await attempts[10];
    await redis.restart({ signal: "SIGKILL" });
    for (const outcome of await withDeadline(outcomes, NOTICE_MS, "every subscribe to be answered")) {
      if (outcome.status === "rejected") assert(outcome.reason instanceof BrokerUnavailableError);
    }
    await isAvailable(broker);
    await until(
      async () => (await broker.counts(["crowd"]))[0] === recorders.length,
      "the right count",
      NOTICE_MS,
    );
    assertEquals(await broker.publish("crowd", "who is there"), recorders.length);
    await Promise.all(recorders.map((recorder) => recorder.received(1)));
  });

  // -------------------------------------------------------------------------------------------------------
  // A server that hangs

  test(
    "answers every call in bounded time while Redis hangs, and recovers by itself",
    async (broker, redis) => {
      const recorder = new Recorder();
      await broker.subscribe("alice", recorder);
      await redis.pause();
      const [published] = await Promise.all([
        assertUnavailable(() => broker.publish("alice", "hello?"), CALL_MS),
        assertUnavailable(() => broker.subscribe("bob", new Recorder()), CALL_MS),
        assertUnavailable(() => broker.counts(["alice"]), CALL_MS),
      ]);
      assertEquals(published.outcome, "unknown"); // it was written: Redis may find it when it goes on
      await isUnavailable(broker);
      const refused = await assertUnavailable(() => broker.publish("alice", "hello?"), QUICK_MS);
      assertEquals(refused.outcome, "refused");
      await assertUnavailable(() => broker.subscribe("bob", new Recorder()), QUICK_MS);
      redis.resume();
      await isAvailable(broker);
      assertEquals(await broker.publish("alice", "back"), 1);
      await until(() => recorder.payloads.includes("back"), "a payload after the hang");
      recorder.assertPairs();
      assertEquals(await broker.counts(["alice", "bob"]), [1, 0]);
      const late = new Recorder();
      await broker.subscribe("bob", late);
      assertEquals(await broker.publish("bob", "welcome"), 1);
      await late.received(1);
    },
  );

  test("notices by itself that Redis hangs", async (broker, redis) => {
    await redis.pause();
    await isUnavailable(broker);
    redis.resume();
    await isAvailable(broker);
  });

  test("closes a subscription in bounded time while Redis hangs", async (broker, redis) => {
    const recorder = new Recorder();
    const subscription = await broker.subscribe("alice", recorder);
    await redis.pause();
    await withDeadline(subscription.close(), CALL_MS, "the subscription to close");
    redis.resume();
    await isAvailable(broker);
    await until(async () => await listeners(redis, "alice") === 0, "nothing to be left");
    assertEquals(await broker.publish("alice", "nobody"), 0);
    assertEquals(recorder.payloads, []);
  });

  test("closes in bounded time while Redis hangs", async (broker, redis) => {
    await Promise.all(Array.from({ length: 100 }, () => broker.subscribe("crowd", new Recorder())));
    await redis.pause();
    const calls = Promise.allSettled([
      broker.publish("crowd", "?"),
      broker.subscribe("crowd", new Recorder()),
    ]);
    await withDeadline(broker.close(), CALL_MS, "the broker to close");
    assertEquals((await calls).map(({ status }) => status), ["rejected", "rejected"]);
    redis.resume();
    await until(async () => await listeners(redis, "crowd") === 0, "nothing to be left");
  });

  test("gives up 100 aborted subscribes at once while Redis hangs", async (broker, redis) => {
    await redis.pause();
    const abort = new AbortController();
    const attempts = Array.from(
      { length: 100 },
      () => broker.subscribe("alice", new Recorder(), { signal: abort.signal }),
    );
    const outcomes = Promise.allSettled(attempts);
    const reason = new Error("the client left");
    abort.abort(reason);
    for (const outcome of await withDeadline(outcomes, 1_000, "every subscribe to give up")) {
      assertStrictEquals((outcome as PromiseRejectedResult).reason, reason);
    }
    redis.resume();
    await isAvailable(broker);
    await until(async () => await listeners(redis, "alice") === 0, "nothing to be left");
  });

  // -------------------------------------------------------------------------------------------------------
  // A server that is not there, or does not let us in

  testWithServer("opened without Redis says so, and uses Redis as soon as it is there", {}, async (redis) => {
    await redis.stop();
    await withBroker(redis.url, async (broker) => {
      const why = broker.unavailable();
      assert(why !== undefined);
      assertMatch(why, /^\P{Ll}.*[^.]$/u);
      await assertUnavailable(() => broker.subscribe("alice", new Recorder()), QUICK_MS);
      await assertUnavailable(() => broker.publish("alice", "hello?"), QUICK_MS);
      await assertUnavailable(() => broker.counts(["alice"]), QUICK_MS);
      await redis.restart();
      await isAvailable(broker);
      const recorder = new Recorder();
      await broker.subscribe("alice", recorder);
      assertEquals(await broker.publish("alice", "there"), 1);
      await recorder.received(1);
      assertEquals(recorder.changes, []);
    });
  });

  testWithServer("logs in with the password of the URL", { password: "s3cret/@:" }, async (redis) => {
    await withBroker(redis.url, async (broker) => {
      await isAvailable(broker);
      const recorder = new Recorder();
      await broker.subscribe("alice", recorder);
      assertEquals(await broker.publish("alice", "in"), 1);
      await recorder.received(1);
    });
  });

  const WAYS_IN = [
    { what: "a wrong password", password: "right", login: ":wrong-s3cret@", says: /refused.*password/i },
    { what: "no password where one is wanted", password: "right", login: "", says: /wants.*password/i },
  ];
  for (const { what, password, login, says } of WAYS_IN) {
    testWithServer(`says in words that it has ${what}`, { password }, async (redis) => {
      await withBroker(`redis://${login}127.0.0.1:${redis.port}`, async (broker) => {
        await until(() => says.test(broker.unavailable() ?? ""), `unavailable() to match ${says}`);
        const error = await assertUnavailable(() => broker.subscribe("alice", new Recorder()), QUICK_MS);
        assertMatch(error.message, says);
        assertNotMatch(error.message, /s3cret/);
      });
    });
  }

  testWithServer(
    "refuses a subscription that Redis has no room for",
    { args: ["--maxclients", "8"] },
    async (redis) => {
      await withBroker(redis.url, async (broker) => {
        await isAvailable(broker);
        const open: { recorder: Recorder; subscription: Subscription }[] = [];
        const refused = await assertRejects(async () => {
          while (open.length < 20) {
            const recorder = new Recorder();
            open.push({ recorder, subscription: await broker.subscribe("alice", recorder) });
          }
        }, BrokerUnavailableError);
        assertMatch(refused.message, /max number of clients/i);
        // Those inside are unharmed, and a place that becomes free can be taken.
        assertEquals(await broker.publish("alice", "crowded"), open.length);
        for (const { recorder } of open) await recorder.received(1);
        await open[0]!.subscription.close();
        await broker.subscribe("alice", new Recorder());
        assertEquals(await broker.publish("alice", "as many again"), open.length);
      });
    },
  );
}

async function isAvailable(broker: Broker): Promise<void> {
  await until(() => broker.unavailable() === undefined, "the broker to be available", NOTICE_MS);
}

async function isUnavailable(broker: Broker): Promise<void> {
  await until(() => broker.unavailable() !== undefined, "the broker to be unavailable", NOTICE_MS);
}

async function assertUnavailable(call: () => Promise<unknown>, ms: number): Promise<BrokerUnavailableError> {
  return await assertRejects(() => withDeadline(call(), ms, "a call to be answered"), BrokerUnavailableError);
}

/** How many subscriptions Redis counts. */
async function listeners(redis: RedisServer, channel: string): Promise<number> {
  const reply = await redis.cli("PUBSUB", "NUMSUB", channel);
  return Number((reply as unknown[])[1]);
}

async function subscriberConnections(redis: RedisServer): Promise<number> {
  return String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).split("\n").filter((line) => line !== "")
    .length;
}
