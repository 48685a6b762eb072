/**
 * The second half of the contract of a broker: how subscriptions and the broker end, and what a subscriber may
 * do without harm to others.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Subscription } from "../../src/broker/broker.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { until } from "../../testkit/deadline.ts";
import { Chance } from "../../testkit/random.ts";
import { Recorder } from "../../testkit/recorder.ts";
import {
  assertCount,
  counted,
  countElsewhere,
  countOf,
  type DeclareTest,
  sender,
} from "./broker_under_test.ts";

export function closingContract(test: DeclareTest): void {
  // -------------------------------------------------------------------------------------------------------
  // Closing

  test("Subscription.close resolves when it is counted no more", async (t, channel) => {
    for (let i = 0; i < 50; i++) {
      const subscription = await t.broker.subscribe(channel, new Recorder());
      await assertCount(t, channel, 1);
      await subscription.close();
      await assertCount(t, channel, 0);
      assertEquals(await sender(t).publish(channel, "anybody?"), 0);
    }
  });

  test("Subscription.close may be called any number of times", async (t, channel) => {
    const other = new Recorder();
    await t.broker.subscribe(channel, other);
    const subscription = await t.broker.subscribe(channel, new Recorder());
    await Promise.all([subscription.close(), subscription.close()]);
    await subscription.close();
    await assertCount(t, channel, 1);
    assertEquals(await sender(t).publish(channel, "for the other"), 1);
    await other.received(1);
  });

  test("Subscription.close stops the delivery at once, in the middle of a flood", async (t, channel) => {
    const witness = new Recorder();
    await t.broker.subscribe(channel, witness);
    let closing: Promise<void> | undefined;
    const leaver: Recorder = new Recorder(() => {
      if (leaver.payloads.length === 50) closing = subscription.close();
    });
    const subscription: Subscription = await t.broker.subscribe(channel, leaver);
    await Promise.all(Array.from({ length: 200 }, (_, i) => sender(t).publish(channel, `${i}`)));
    await witness.received(200);
    await until(() => closing !== undefined, "payload 50");
    await closing;
    assertEquals(leaver.payloads.length, 50);
    await assertCount(t, channel, 1);
  });

  test("Subscription.close keeps a payload under way from the subscription closed", async (t, channel) => {
    // Each closes the other when it gets the payload: whoever is served second must get nothing.
    const subscriptions: Subscription[] = [];
    const recorders = [0, 1].map((i) => new Recorder(() => void subscriptions[1 - i]!.close()));
    for (const recorder of recorders) subscriptions.push(await t.broker.subscribe(channel, recorder));
    await sender(t).publish(channel, "one of you");
    await until(async () => await countOf(t, channel) === 1, "one subscription to be left");
    assertEquals(recorders.flatMap(({ payloads }) => payloads), ["one of you"]);
  });

  test("opening and closing one channel from all sides ends with the right count", async (t, channel) => {
    await Chance.run(async (chance) => {
      for (let round = 0; round < 10; round++) {
        const closed: { recorder: Recorder; received: number }[] = [];
        const stayed = await Promise.all(Array.from({ length: 8 }, async () => {
          const broker = chance.below(2) === 0 ? t.broker : sender(t);
          for (let visit = chance.below(4); visit > 0; visit--) {
            await chance.pause();
            const recorder = new Recorder();
            const subscription = await broker.subscribe(channel, recorder);
            await chance.pause();
            if (chance.below(2) === 0) await broker.publish(channel, `from a visitor of round ${round}`);
            const closing = subscription.close();
            closed.push({ recorder, received: recorder.payloads.length });
            if (chance.below(2) === 0) await closing;
          }
          if (chance.below(2) === 0) return undefined;
          const recorder = new Recorder();
          return { broker, recorder, subscription: await broker.subscribe(channel, recorder) };
        }));
        const open = stayed.filter((entry) => entry !== undefined);
        const own = open.filter(({ broker }) => broker === t.broker).length;
        const count = counted(t.broker, own, open.length - own);
        await until(
          async () => await countOf(t, channel) === count,
          `${count} to be counted`,
        );
        const last = `the end of round ${round}`;
        assertEquals(await t.broker.publish(channel, last), count);
        for (const { recorder } of open) {
          await until(() => recorder.payloads.at(-1) === last, "the last payload");
          assertEquals(recorder.payloads.filter((payload) => payload === last).length, 1);
        }
        for (const { recorder, received } of closed) assertEquals(recorder.payloads.length, received);
        await Promise.all(open.map(({ subscription }) => subscription.close()));
        await assertCount(t, channel, 0);
      }
    });
  });

  // -------------------------------------------------------------------------------------------------------
  // Faulty subscribers

  test("a subscriber that throws harms no other subscriber and no later payload", async (t, channel) => {
    const faulty = new Recorder(() => {
      throw new Error("a subscriber's own fault");
    });
    const [before, after] = [new Recorder(), new Recorder()];
    for (const recorder of [before, faulty, after]) await t.broker.subscribe(channel, recorder);
    const elsewhere = new Recorder();
    await t.broker.subscribe(`${channel}-elsewhere`, elsewhere);
    const payloads = ["1", "2", "3", "4", "5"];
    const reached = await Promise.all(payloads.map((payload) => sender(t).publish(channel, payload)));
    await sender(t).publish(`${channel}-elsewhere`, "calm");
    assertEquals(reached, payloads.map(() => counted(t.broker, 3)));
    for (const recorder of [before, faulty, after]) {
      await recorder.received(payloads.length);
      assertEquals(recorder.payloads, payloads);
      assertEquals(recorder.changes, []);
    }
    await elsewhere.received(1);
  });

  // -------------------------------------------------------------------------------------------------------
  // The broker itself

  test("is available and says what kind it is", async (t, channel) => {
    assertEquals(t.broker.unavailable(), undefined);
    assert(["memory", "redis"].includes(t.broker.kind), `Its kind is "${t.broker.kind}"`);
    await t.broker.publish(channel, "used");
    assertEquals(t.broker.unavailable(), undefined);
  });

  test("close ends every subscription, and the broker can't be used any more", async (t, channel) => {
    const recorders = [new Recorder(), new Recorder(), new Recorder()];
    const subscriptions = await Promise.all(
      recorders.map((recorder, i) => t.broker.subscribe(`${channel}${i % 2}`, recorder)),
    );
    await t.broker.close();
    assert(t.broker.unavailable() !== undefined);
    await assertUnavailable(() => t.broker.subscribe(channel, new Recorder()));
    await assertUnavailable(() => t.broker.publish(channel, "too late"));
    await assertUnavailable(() => t.broker.counts([channel]));
    if (t.peer) {
      assertEquals(await t.peer.publish(`${channel}0`, "gone?"), 0);
      assertEquals(await t.peer.counts([`${channel}0`, `${channel}1`]), [0, 0]);
    }
    for (const i of [0, 1]) assertEquals(await t.countOutside?.(`${channel}${i}`) ?? 0, 0);
    assertEquals(recorders.flatMap(({ payloads }) => payloads), []);
    await Promise.all(subscriptions.map((subscription) => subscription.close()));
  });

  test("close may be called any number of times", async (t, channel) => {
    await t.broker.subscribe(channel, new Recorder());
    await Promise.all([t.broker.close(), t.broker.close()]);
    await t.broker.close();
  });

  test("close keeps a payload under way from all subscriptions", async (t, channel) => {
    const recorders = [0, 1, 2].map(() => new Recorder(() => void t.broker.close()));
    for (const recorder of recorders) await t.broker.subscribe(channel, recorder);
    await sender(t).publish(channel, "the last one").catch(() => {}); // its own broker may be closed under it
    await until(() => t.broker.unavailable() !== undefined, "the broker to be closed");
    await t.broker.close();
    assertEquals(recorders.flatMap(({ payloads }) => payloads), ["the last one"]);
  });

  test("close ends a subscribe under way", async (t, channel) => {
    await Chance.run(async (chance) => {
      const attempts = Array.from({ length: 20 }, async () => {
        await chance.pause();
        return await t.broker.subscribe(channel, new Recorder());
      });
      const outcomes = Promise.allSettled(attempts);
      await chance.pause();
      await t.broker.close();
      for (const outcome of await outcomes) {
        if (outcome.status === "rejected") assert(outcome.reason instanceof BrokerUnavailableError);
      }
      if (t.peer ?? t.countOutside) {
        await until(async () => await countElsewhere(t, channel) === 0, "nothing to be left");
      }
    });
  });
}

async function assertUnavailable(call: () => Promise<unknown>): Promise<void> {
  await assertRejects(call, BrokerUnavailableError);
}
