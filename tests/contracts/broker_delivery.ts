/**
 * The first half of the contract of a broker: what is published arrives, with whom, in which order, and counted.
 */
import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Chance } from "../../testkit/random.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { assertCount, counted, countOf, type DeclareTest, sender } from "./broker_under_test.ts";

export function deliveryContract(test: DeclareTest): void {
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
        async () => await countOf(t, channel) === counted(t.broker, confirmed),
        `${confirmed} subscriptions to be left`,
      );
      assertEquals(await sender(t).publish(channel, "who is there"), counted(t.broker, confirmed));
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
    assertEquals(await t.broker.publish(channel, "to all"), counted(t.broker, mine.length, theirs.length));
    await Promise.all(all.map((recorder) => recorder.received(1)));
    for (const recorder of all) assertEquals(recorder.payloads, ["to all"]);
    await assertCount(t, channel, mine.length, theirs.length);
  });

  test("publish serves one subscriber once for each of its subscriptions", async (t, channel) => {
    const recorder = new Recorder();
    const first = await t.broker.subscribe(channel, recorder);
    await t.broker.subscribe(channel, recorder);
    assertEquals(await sender(t).publish(channel, "twice"), counted(t.broker, 2));
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
    // Nobody listens on these, though some of the names above would match them as patterns.
    for (const name of ["abc", "ax", "b", "anything"]) {
      assertEquals(await sender(t).publish(`${channel}${name}`, name), 0);
      assertEquals(await t.broker.counts([`${channel}${name}`]), [0]);
    }
  });

  // -------------------------------------------------------------------------------------------------------
  // Counting

  test("counts answers in the order asked, with zeros and repetitions", async (t, channel) => {
    const [two, none, one] = [`${channel}-two`, `${channel}-none`, `${channel}-one`];
    await t.broker.subscribe(two, new Recorder());
    await t.broker.subscribe(two, new Recorder());
    await sender(t).subscribe(one, new Recorder());
    const of = (own: number) => counted(t.broker, own);
    assertEquals(await t.broker.counts([two, none, one, two]), [of(2), 0, 1, of(2)]);
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
}
