/**
 * What every broker must do: the guarantees of `src/broker/broker.ts`, each with at least one test. What holds
 * only behind a server that comes and goes is in `redis_broker.ts`.
 *
 *     brokerContract("MemoryBroker", () => {
 *       const broker = new MemoryBroker();
 *       return Promise.resolve({ broker, dispose: () => broker.close() });
 *     });
 */
import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import type { Broker, Subscription } from "../../src/broker/broker.ts";
import { BrokerUnavailableError } from "../../src/errors.ts";
import { until, withDeadline } from "../support/deadline.ts";
import { Chance } from "../support/random.ts";
import { Recorder } from "../support/recorder.ts";

/** A broker to be tested, and what surrounds it. */
export interface BrokerUnderTest {
  readonly broker: Broker;
  /** Another broker on the same server, as a second instance has; left out where there can be none. */
  readonly peer?: Broker;
  /** How many subscriptions of a channel are counted from outside of any broker. */
  readonly countOutside?: (channel: string) => Promise<number>;
  /** Publishes bytes from outside of any broker; left out where a broker only ever gets text. */
  readonly publishBytes?: (channel: string, payload: Uint8Array) => Promise<unknown>;
  /** Ends all of it. Called once, also after the test has closed the brokers. */
  dispose(): Promise<void>;
}

export interface ContractOptions {
  /** How the tests are declared, such as `redisTest`. @default Deno.test */
  readonly test?: (name: string, fn: () => Promise<void>) => void;
}

const TEST_MS = 30_000;

/**
 * Declares the tests.
 * @param name Name of the implementation; each test's name begins with it.
 * @param open Called for each test. A fresh server behind it is not needed, a fresh broker is.
 */
export function brokerContract(
  name: string,
  open: () => Promise<BrokerUnderTest>,
  options: ContractOptions = {},
): void {
  const declare = options.test ?? Deno.test;

  /** One test. Its channel is its own, so that tests may share a server. */
  function test(claim: string, body: (t: BrokerUnderTest, channel: string) => Promise<void>): void {
    declare(`${name} ${claim}`, async () => {
      const opened = await open();
      try {
        await withDeadline(body(opened, `test-${crypto.randomUUID()}`), TEST_MS, "the test to end");
      } finally {
        await opened.dispose();
      }
    });
  }

  // -------------------------------------------------------------------------------------------------------
  // Subscribing

  test("subscribe resolves only when a publish would arrive, 200 times in a row", async (t, channel) => {
    for (let i = 0; i < 200; i++) {
      const recorder = new Recorder();
      const subscription = await t.broker.subscribe(channel, recorder);
      assertEquals(await sender(t).publish(channel, `${i}`), 1);
      await recorder.received(1);
      await subscription.close();
      assertEquals(recorder.payloads, [`${i}`]);
    }
  });

  test("subscribe resolves only when a publish would arrive, with 200 at once", async (t, channel) => {
    const recorders = await Promise.all(Array.from({ length: 200 }, async (_, i) => {
      const recorder = new Recorder();
      await t.broker.subscribe(`${channel}-${i}`, recorder);
      assertEquals(await sender(t).publish(`${channel}-${i}`, `${i}`), 1);
      return recorder;
    }));
    await Promise.all(recorders.map((recorder) => recorder.received(1)));
    assertEquals(recorders.flatMap(({ payloads }) => payloads), recorders.map((_, i) => `${i}`));
  });

  test("subscribe says which channel it is on", async (t, channel) => {
    assertEquals((await t.broker.subscribe(channel, new Recorder())).channel, channel);
  });

  test("subscribe rejects with the reason of a signal that is aborted already", async (t, channel) => {
    const reason = new Error("not any more");
    const signal = AbortSignal.abort(reason);
    const error = await assertRejects(() => t.broker.subscribe(channel, new Recorder(), { signal }));
    assertStrictEquals(error, reason);
    await assertCount(t, channel, 0);
  });

  test("subscribe leaves nothing behind when it is aborted at any moment", async (t, channel) => {
    await Chance.run(async (chance) => {
      const reason = new Error("not any more");
      let confirmed = 0;
      for (let i = 0; i < 100; i++) {
        const recorder = new Recorder();
        const abort = new AbortController();
        const attempt = t.broker.subscribe(channel, recorder, { signal: abort.signal });
        attempt.catch(() => {}); // it may reject before it is awaited below
        await chance.pause();
        abort.abort(reason);
        try {
          await attempt; // it may have been confirmed before the abort, and is a subscription then
          confirmed++;
        } catch (error) {
          assertStrictEquals(error, reason);
        }
      }
      await until(
        async () => await countOf(t, channel) === confirmed,
        `${confirmed} subscriptions to be left`,
      );
      assertEquals(await sender(t).publish(channel, "who is there"), confirmed);
    });
  });

  test("an abort after the confirmation does not end the subscription", async (t, channel) => {
    const abort = new AbortController();
    const recorder = new Recorder();
    await t.broker.subscribe(channel, recorder, { signal: abort.signal });
    abort.abort();
    assertEquals(await sender(t).publish(channel, "still here"), 1);
    await recorder.received(1);
  });

  // -------------------------------------------------------------------------------------------------------
  // Publishing

  test("publish reaches every subscription of the channel and says how many", async (t, channel) => {
    const mine = [new Recorder(), new Recorder(), new Recorder()];
    for (const recorder of mine) await t.broker.subscribe(channel, recorder);
    const theirs = t.peer ? [new Recorder(), new Recorder()] : [];
    for (const recorder of theirs) await t.peer!.subscribe(channel, recorder);
    const all = [...mine, ...theirs];
    assertEquals(await t.broker.publish(channel, "to all"), all.length);
    await Promise.all(all.map((recorder) => recorder.received(1)));
    for (const recorder of all) assertEquals(recorder.payloads, ["to all"]);
    await assertCount(t, channel, all.length);
  });

  test("publish serves one subscriber once for each of its subscriptions", async (t, channel) => {
    const recorder = new Recorder();
    const first = await t.broker.subscribe(channel, recorder);
    await t.broker.subscribe(channel, recorder);
    assertEquals(await sender(t).publish(channel, "twice"), 2);
    await recorder.received(2);
    await first.close();
    assertEquals(await sender(t).publish(channel, "once"), 1);
    await recorder.received(3);
    assertEquals(recorder.payloads, ["twice", "twice", "once"]);
  });

  test("publish answers 0 when nobody listens", async (t, channel) => {
    assertEquals(await t.broker.publish(channel, "hello?"), 0);
  });

  test("payloads arrive in the order of 1,000 publishes", async (t, channel) => {
    const recorder = new Recorder();
    await t.broker.subscribe(channel, recorder);
    const payloads = Array.from({ length: 1_000 }, (_, i) => `${i}`);
    const reached = await Promise.all(payloads.map((payload) => sender(t).publish(channel, payload)));
    await recorder.received(payloads.length);
    assertEquals(recorder.payloads, payloads);
    assertEquals(reached, payloads.map(() => 1));
  });

  test("payloads of two publishers keep the order of each", async (t, channel) => {
    const recorder = new Recorder();
    await t.broker.subscribe(channel, recorder);
    const numbers = Array.from({ length: 300 }, (_, i) => i);
    await Promise.all(numbers.flatMap((i) => [
      t.broker.publish(channel, `mine ${i}`),
      sender(t).publish(channel, `theirs ${i}`),
    ]));
    await recorder.received(600);
    for (const whose of ["mine", "theirs"]) {
      assertEquals(
        recorder.payloads.filter((p) => `${p}`.startsWith(whose)),
        numbers.map((i) => `${whose} ${i}`),
      );
    }
  });

  test("text arrives as it was sent, with its size in bytes", async (t, channel) => {
    const texts = [
      "",
      "plain",
      "ünïcødé, 日本語, 🦊, e\u0301 and \u00e9",
      "\uFEFFa byte order mark is part of the text",
      "line\r\nline\r\n",
      "nul \0 nul",
      "$5\r\nhello\r\n*1\r\n",
      "-ERR is no error here\r\n",
      "x".repeat(1 << 20),
      "é".repeat(1 << 19),
      "after the big ones",
    ];
    const recorder = new Recorder();
    await t.broker.subscribe(channel, recorder);
    for (const text of texts) assertEquals(await sender(t).publish(channel, text), 1);
    await recorder.received(texts.length);
    for (const [i, text] of texts.entries()) {
      // Not assertEquals: it would print a megabyte.
      assert(recorder.payloads[i] === text, `Text ${i}, "${text.slice(0, 40)}", arrived changed`);
    }
    assertEquals(recorder.byteLengths, texts.map((text) => new TextEncoder().encode(text).length));
  });

  test(
    "bytes published from outside arrive as text when they are UTF-8, else as bytes",
    async (t, channel) => {
      if (t.publishBytes === undefined) return;
      const text = "\uFEFFé 日本 🦊";
      const payloads = [
        Uint8Array.of(0xff, 0xfe, 0x00, 0x0d, 0x0a),
        new TextEncoder().encode(text),
        Uint8Array.of(0x80), // a continuation of nothing
        Uint8Array.of(0x61, 0xc3), // cut in the middle of a character
        Uint8Array.of(0xc0, 0xaf), // "/" in too many bytes
        Uint8Array.of(0xed, 0xa0, 0x80), // half of a surrogate pair
        new Uint8Array(200_000).fill(0xff),
        new Uint8Array(),
      ];
      const recorder = new Recorder();
      await t.broker.subscribe(channel, recorder);
      for (const payload of payloads) await t.publishBytes(channel, payload);
      await recorder.received(payloads.length);
      // Compared after all have come: none may lie in a buffer that the next one was read into.
      assertEquals(recorder.payloads.with(6, ""), [
        payloads[0]!,
        text,
        ...payloads.slice(2, 6),
        "",
        "",
      ]);
      const long = recorder.payloads[6];
      assert(long instanceof Uint8Array && long.length === 200_000 && long.every((byte) => byte === 0xff));
      assertEquals(recorder.byteLengths, payloads.map((payload) => payload.length));
    },
  );

  test("channel names are taken letter by letter, never as patterns", async (t, channel) => {
    const names = [
      "a",
      "A",
      "ab",
      "a*",
      "a?",
      "[ab]",
      "a\\b",
      "*",
      "50%",
      "q\"u'o`te",
      "a:b",
      "-1",
      "$0",
      "日本",
      "🦊",
    ];
    names.push("e\u0301", "\u00e9"); // look the same, are not
    names.push("n".repeat(300));
    const recorders = await Promise.all(names.map(async (name) => {
      const recorder = new Recorder();
      await t.broker.subscribe(`${channel}${name}`, recorder);
      return recorder;
    }));
    for (const name of names) assertEquals(await sender(t).publish(`${channel}${name}`, name), 1);
    await Promise.all(recorders.map((recorder) => recorder.received(1)));
    assertEquals(recorders.map(({ payloads }) => payloads), names.map((name) => [name]));
    assertEquals(await t.broker.counts(names.map((name) => `${channel}${name}`)), names.map(() => 1));
  });

  // -------------------------------------------------------------------------------------------------------
  // Counting

  test("counts answers in the order asked, with zeros and repetitions", async (t, channel) => {
    const [two, none, one] = [`${channel}-two`, `${channel}-none`, `${channel}-one`];
    await t.broker.subscribe(two, new Recorder());
    await t.broker.subscribe(two, new Recorder());
    await sender(t).subscribe(one, new Recorder());
    assertEquals(await t.broker.counts([two, none, one, two]), [2, 0, 1, 2]);
    assertEquals(await t.broker.counts([none, one]), [0, 1]);
    assertEquals(await t.broker.counts([]), []);
  });

  test("counts takes 5,000 channels at once", async (t, channel) => {
    await t.broker.subscribe(`${channel}-4321`, new Recorder());
    const counts = await t.broker.counts(Array.from({ length: 5_000 }, (_, i) => `${channel}-${i}`));
    assertEquals(counts.length, 5_000);
    assertEquals(counts.indexOf(1), 4_321);
    assertEquals(counts.lastIndexOf(1), 4_321);
  });

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
          return { recorder, subscription: await broker.subscribe(channel, recorder) };
        }));
        const open = stayed.filter((entry) => entry !== undefined);
        await until(async () => await countOf(t, channel) === open.length, `${open.length} to be counted`);
        const last = `the end of round ${round}`;
        assertEquals(await t.broker.publish(channel, last), open.length);
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
    assertEquals(reached, [3, 3, 3, 3, 3]);
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

/** The other instance where there is one: what it sends has travelled. */
function sender({ broker, peer }: BrokerUnderTest): Broker {
  return peer ?? broker;
}

async function countOf({ broker }: BrokerUnderTest, channel: string): Promise<number> {
  const [count] = await broker.counts([channel]);
  return count!;
}

/** The count as seen without the broker under test. */
async function countElsewhere({ peer, countOutside }: BrokerUnderTest, channel: string): Promise<number> {
  return countOutside ? await countOutside(channel) : (await peer!.counts([channel]))[0]!;
}

/** Everybody must count the same. */
async function assertCount(t: BrokerUnderTest, channel: string, count: number): Promise<void> {
  assertEquals(await countOf(t, channel), count);
  if (t.peer) assertEquals(await t.peer.counts([channel]), [count]);
  if (t.countOutside) assertEquals(await t.countOutside(channel), count);
}

async function assertUnavailable(call: () => Promise<unknown>): Promise<void> {
  await assertRejects(call, BrokerUnavailableError);
}
