/**
 * What every broker over Redis must do when Redis comes and goes: `broker.ts` has the guarantees that need only
 * a server that is well. Each test has a server of its own and hurts it for real.
 *
 *     redisBrokerContract("DedicatedRedisBroker", (url) => {
 *       const { broker, close } = openEngine({ redisUrl: url });
 *       return { broker, dispose: close };
 *     });
 */
import { assert, assertEquals, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import type { Subscription } from "../../src/broker/broker.ts";
import { outageContract } from "./redis_broker_outages.ts";
import { counted } from "./broker_under_test.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";
import type { RedisServer } from "../../testkit/redis_server.ts";
import {
  assertUnavailable,
  CALL_MS,
  isAvailable,
  listeners,
  NOTICE_MS,
  type OpenedRedisBroker,
  QUICK_MS,
  RedisBrokerTests,
  SENTENCE,
} from "./redis_broker_under_test.ts";

/** How many subscriptions an ACL refused. */
async function refusals(redis: RedisServer): Promise<number> {
  const stats = String(await redis.cli("INFO", "commandstats"));
  return Number(/^cmdstat_subscribe:.*rejected_calls=(\d+)/m.exec(stats)?.[1]);
}

/**
 * Declares the tests.
 * @param name Name of the implementation; each test's name begins with it.
 * @param open Opens a broker on the server at this URL, which may be down, and returns at once. Its timeouts
 *   must be the ones of the product.
 * @param options.isDedicated Whether each subscription takes a connection of Redis.
 */
export function redisBrokerContract(
  name: string,
  open: (url: string) => OpenedRedisBroker,
  options: { isDedicated: boolean },
): void {
  const on = new RedisBrokerTests(name, open);
  outageContract(on);

  // -------------------------------------------------------------------------------------------------------
  // Payloads of others

  on.test("hands on foreign bytes as text when they are UTF-8, else as bytes", async (broker, redis) => {
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
    const expected: (string | Uint8Array)[] = [...payloads];
    expected[1] = text;
    expected[6] = "";
    assertEquals(recorder.payloads.slice(0, -1), expected.slice(0, -1));
    const long = recorder.payloads.at(-1);
    assert(long instanceof Uint8Array && long.length === 200_000 && long.every((byte) => byte === 0xff));
    assertEquals(recorder.byteLengths, payloads.map((payload) => payload.length));
  });

  // -------------------------------------------------------------------------------------------------------
  // Connections and their names

  on.test("names its connections for CLIENT LIST", async (broker, redis) => {
    await broker.subscribe("alice", new Recorder());
    await until(
      async () => {
        const names = [...String(await redis.cli("CLIENT", "LIST")).matchAll(/ name=(\S+)/g)].map((
          [, name],
        ) => name);
        return names.includes("userwire-publisher") && names.includes("userwire-subscription");
      },
      "both names",
    );
  });

  on.test("works on a Redis that lets nobody name a connection", async (broker, redis) => {
    await redis.cli("ACL", "SETUSER", "default", "-client|setname");
    const recorder = new Recorder();
    await broker.subscribe("alice", recorder);
    assertEquals(await broker.publish("alice", "hi"), 1);
    await recorder.received(1);
    await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    const isHeard = () => broker.publish("alice", "again").then((reached) => reached === 1, () => false);
    await until(isHeard, "the broker to be back", 10_000);
  });

  on.testWithServer(
    "works on a Redis that does not know how to name a connection",
    { args: ["--rename-command", "CLIENT", ""] },
    async (redis) => {
      await on.withBroker(redis.url, async (broker) => {
        await isAvailable(broker);
        const recorder = new Recorder();
        await broker.subscribe("alice", recorder);
        assertEquals(await broker.publish("alice", "hi"), 1);
        await recorder.received(1);
      });
    },
  );

  // -------------------------------------------------------------------------------------------------------
  // Channels that an ACL forbids

  on.test("refuses a channel that Redis forbids, says so, and harms no other", async (broker, redis) => {
    await redis.cli("ACL", "SETUSER", "default", "resetchannels", "&good*");
    const good = Array.from({ length: 6 }, () => new Recorder());
    await broker.subscribe("good0", good[0]!);
    // In one turn of the event loop, so that a shared connection asks for all of them together.
    const [refused] = await Promise.all([
      Promise.allSettled(["bad1", "bad2", "bad1"].map((name) => broker.subscribe(name, new Recorder()))),
      ...good.slice(1).map((recorder, i) => broker.subscribe(`good${i + 1}`, recorder)),
    ]);
    for (const outcome of refused) {
      assert(outcome.status === "rejected" && outcome.reason instanceof BrokerUnavailableError);
      assertMatch(outcome.reason.message, /does not grant its user the rights/);
    }
    for (const [i, recorder] of good.entries()) {
      assertEquals(await broker.publish(`good${i}`, "hi"), 1);
      await recorder.received(1);
      assertEquals(recorder.changes, []);
    }
    await redis.cli("ACL", "SETUSER", "default", "allchannels");
    await broker.subscribe("bad1", good[0]!);
    assertEquals(await broker.publish("bad1", "allowed now"), 1);
    await good[0]!.received(2);
  });

  on.test("restores a channel that was forbidden meanwhile, and the others before", async (broker, redis) => {
    const names = ["good1", "bad1", "good2", "bad2"];
    const recorders = names.map(() => new Recorder());
    for (const [i, name] of names.entries()) await broker.subscribe(name, recorders[i]!);
    const [bad1, bad2] = [recorders[1]!, recorders[3]!];
    await redis.cli("ACL", "SETUSER", "default", "resetchannels", "&good*"); // hangs up on who has another
    await Promise.all([bad1.isLost(), bad2.isLost()]);
    await until(
      async () =>
        await listeners(redis, "good1") === 1 && await listeners(redis, "good2") === 1 &&
        (await refusals(redis)) >= 2,
      "the others to be back, and the forbidden to be refused",
    );
    const newcomer = broker.subscribe("bad1", new Recorder());
    await assertRejects(() => newcomer, BrokerUnavailableError, "rights that are needed");
    await redis.cli("ACL", "SETUSER", "default", "allchannels");
    await Promise.all([bad1.isRestored(NOTICE_MS), bad2.isRestored(NOTICE_MS)]);
    for (const [i, recorder] of recorders.entries()) {
      assertEquals(await broker.publish(names[i]!, "all here"), 1);
      await recorder.received(1);
      recorder.assertPairs();
      assert(recorder.changes.length <= 2);
    }
  });

  // -------------------------------------------------------------------------------------------------------
  // Connections that break

  on.test("restores a subscription whose connection was killed", async (broker, redis) => {
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
    for (const why of recorder.reasons) assertMatch(why, SENTENCE);
  });

  on.test(
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

  on.test("survives subscribers that throw when they are lost and restored", async (broker, redis) => {
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
    assertEquals(await broker.publish("alice", "still here"), counted(broker, 3));
    for (const recorder of recorders) await recorder.received(1);
  });

  on.test("lets go of a subscription that its subscriber closes when it is lost", async (broker, redis) => {
    const closed = Promise.withResolvers<void>();
    class Leaving extends Recorder {
      override lost(why: string): void {
        super.lost(why);
        subscription.close().then(closed.resolve);
      }
    }
    const [leaving, staying] = [new Leaving(), new Recorder()];
    const subscription = await broker.subscribe("alice", leaving);
    await broker.subscribe("alice", staying);
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await withDeadline(closed.promise, CALL_MS, "the subscription to close");
    await staying.isRestored();
    assertEquals(await broker.publish("alice", "who stays"), 1);
    await staying.received(1);
    assertEquals([leaving.changes, leaving.payloads], [["lost"], []]);
  });

  // -------------------------------------------------------------------------------------------------------
  // A server that is not there, or does not let us in

  on.testWithServer(
    "opened without Redis says so, and uses Redis as soon as it is there",
    {},
    async (redis) => {
      await redis.stop();
      await on.withBroker(redis.url, async (broker) => {
        const why = broker.unavailable();
        assert(why !== undefined);
        assertMatch(why, SENTENCE);
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
    },
  );

  on.testWithServer("logs in with the password of the URL", { password: "s3cret/@:" }, async (redis) => {
    await on.withBroker(redis.url, async (broker) => {
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
    on.testWithServer(`says in words that it has ${what}`, { password }, async (redis) => {
      await on.withBroker(`redis://${login}127.0.0.1:${redis.port}`, async (broker) => {
        await until(() => says.test(broker.unavailable() ?? ""), `unavailable() to match ${says}`);
        const error = await assertUnavailable(() => broker.subscribe("alice", new Recorder()), QUICK_MS);
        assertMatch(error.message, says);
        assertNotMatch(error.message, /s3cret/);
      });
    });
  }

  if (!options.isDedicated) return;
  on.testWithServer(
    "refuses a subscription that Redis has no room for",
    { args: ["--maxclients", "30"] },
    async (redis) => {
      await on.withBroker(redis.url, async (broker) => {
        await isAvailable(broker);
        const open: { recorder: Recorder; subscription: Subscription }[] = [];
        const refused = await assertRejects(async () => {
          while (open.length < 20) {
            const recorder = new Recorder();
            open.push({ recorder, subscription: await broker.subscribe("alice", recorder) });
          }
        }, BrokerUnavailableError);
        assertMatch(refused.message, /as many connections as it may/);
        // Those inside are unharmed, and a place that becomes free can be taken.
        assertEquals(await broker.publish("alice", "crowded"), counted(broker, open.length));
        for (const { recorder } of open) await recorder.received(1);
        await open[0]!.subscription.close();
        await broker.subscribe("alice", new Recorder());
        assertEquals(await broker.publish("alice", "as many again"), counted(broker, open.length));
      });
    },
  );
}
