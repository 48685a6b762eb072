/**
 * The part of the contract of a broker over Redis in which the server stops, dies, hangs, and is well again.
 */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { counted } from "./broker_under_test.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";
import {
  assertUnavailable,
  CALL_MS,
  isAvailable,
  isUnavailable,
  listeners,
  NOTICE_MS,
  QUICK_MS,
  type RedisBrokerTests,
  subscriberConnections,
} from "./redis_broker_under_test.ts";

export function outageContract(on: RedisBrokerTests): void {
  // -------------------------------------------------------------------------------------------------------
  // A server that goes and comes back

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    on.test(
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

  on.test(
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
      assertEquals(answers, [counted(broker, 200)]);
    },
  );

  on.test("lets go of a subscription that is closed while it is lost", async (broker, redis) => {
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

  on.test("leaves no ghosts when Redis dies while many subscribe", async (broker, redis) => {
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
      async () => (await broker.counts(["crowd"]))[0] === counted(broker, recorders.length),
      "the right count",
      NOTICE_MS,
    );
    assertEquals(await broker.publish("crowd", "who is there"), counted(broker, recorders.length));
    await Promise.all(recorders.map((recorder) => recorder.received(1)));
  });

  // -------------------------------------------------------------------------------------------------------
  // A server that hangs

  on.test(
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

  on.test("notices by itself that Redis hangs", async (broker, redis) => {
    await redis.pause();
    await isUnavailable(broker);
    redis.resume();
    await isAvailable(broker);
  });

  on.test("closes a subscription in bounded time while Redis hangs", async (broker, redis) => {
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

  on.test("closes in bounded time while Redis hangs", async (broker, redis) => {
    await Promise.all(Array.from({ length: 100 }, () => broker.subscribe("crowd", new Recorder())));
    await redis.pause();
    const calls = Promise.allSettled([
      broker.publish("crowd", "?"),
      broker.subscribe("another", new Recorder()),
    ]);
    await withDeadline(broker.close(), CALL_MS, "the broker to close");
    assertEquals((await calls).map(({ status }) => status), ["rejected", "rejected"]);
    redis.resume();
    await until(async () => await listeners(redis, "crowd") === 0, "nothing to be left");
  });

  on.test("gives up 100 aborted subscribes at once while Redis hangs", async (broker, redis) => {
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
}
