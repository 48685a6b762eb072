/**
 * What every history must do: the guarantees of `src/history/history.ts`, each with at least one test. What holds only for
 * one implementation is in its own test file.
 *
 *     historyContract("MemoryHistory", (limits) => {
 *       const broker = new MemoryBroker();
 *       const history = new MemoryHistory(broker, { limits });
 *       return Promise.resolve({ history, broker, elapse, dispose: () => broker.close() });
 *     });
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Broker } from "../../src/broker/broker.ts";
import type {
  Appended,
  AppendOptions,
  History,
  HistoryLimits,
  OutgoingMessage,
  Page,
  Stored,
} from "../../src/history/history.ts";
import { formatEnvelope, type Payload, payloadOf, seqOf } from "../../src/protocol/envelope.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";

/** A history to be tested, and what surrounds it. */
export interface HistoryUnderTest {
  readonly history: History;
  /** The broker it publishes on. */
  readonly broker: Broker;
  /** Another history on the same store, as a second node has; left out where there can be none. */
  readonly peer?: History;
  /** Resolves when the clock that the history goes by is so many milliseconds ahead. */
  elapse(ms: number): Promise<void>;
  /** Ends all of it. */
  dispose(): Promise<void>;
}

export interface ContractOptions {
  /** How the tests are declared, such as `redisTest`. @default Deno.test */
  readonly test?: (name: string, fn: () => Promise<void>) => void;
}

/** What a test gets: the history, a channel of its own, and short forms of what every test does. */
interface Bench extends HistoryUnderTest {
  readonly channel: string;
  append(text: string, options?: AppendOptions): Promise<Appended>;
  since(after: number | undefined, limit?: number): Promise<Page>;
  subscribe(channel?: string): Promise<Recorder>;
}

const TEST_MS = 30_000;
const LIMITS: HistoryLimits = { count: 100, ttlMs: 60_000 };

/** A message as a publisher writes it. */
export function outgoing(payload: string | Payload, id: string = crypto.randomUUID()): OutgoingMessage {
  const whole: Payload = typeof payload === "string" ? { kind: "text", text: payload } : payload;
  return { id, ...formatEnvelope(whole, { id, ts: Date.now() }) };
}

/** The texts in a page. */
export function textsOf(page: Page): unknown[] {
  return page.items.map(({ envelope }) => payloadOf(envelope));
}

/** The sequence numbers in a page. */
export function seqsOf(page: Page): number[] {
  return page.items.map(({ seq }) => seq);
}

/** The position of a message that was appended, or an error that says what became of it. */
export function placeOf(appended: Appended): { epoch: string; seq: number } {
  assert("position" in appended && appended.position, `No position in ${JSON.stringify(appended)}`);
  return appended.position;
}

/** Whole numbers from `first` to `last`. */
export function numbers(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/**
 * Declares the tests.
 * @param name Name of the implementation; each test's name begins with it.
 * @param open Called for each test.
 */
export function historyContract(
  name: string,
  open: (limits: HistoryLimits) => Promise<HistoryUnderTest>,
  options: ContractOptions = {},
): void {
  const declare = options.test ?? Deno.test;

  /** Declares a test twice: for messages to one user, and for those to a list of users. */
  function test(
    claim: string,
    body: (t: Bench) => Promise<void>,
    limits: Partial<HistoryLimits> = {},
  ): void {
    testOn(claim, body, limits);
    testOn(`in a list ${claim}`, body, limits, inList);
  }

  function testOn(
    claim: string,
    body: (t: Bench) => Promise<void>,
    limits: Partial<HistoryLimits> = {},
    way = (history: History) => history,
  ): void {
    declare(`${name} ${claim}`, async () => {
      const under = await open({ ...LIMITS, ...limits });
      const opened = { ...under, history: way(under.history), ...(under.peer && { peer: way(under.peer) }) };
      const channel = `test-${crypto.randomUUID()}`;
      const bench: Bench = {
        ...opened,
        channel,
        append: (text, options) => opened.history.append(channel, outgoing(text), options),
        since: (after, limit = 1_000) => opened.history.since(channel, after, limit),
        async subscribe(where = channel) {
          const recorder = new Recorder();
          await opened.broker.subscribe(where, recorder);
          return recorder;
        },
      };
      try {
        await withDeadline(body(bench), TEST_MS, "the test to end");
      } finally {
        await opened.dispose();
      }
    });
  }

  // -------------------------------------------------------------------------------------------------------
  // Numbers, epochs and pages

  test("numbers messages from 1 without holes, within one epoch", async (t) => {
    const appended = [];
    for (const n of numbers(1, 20)) appended.push(await t.append(`m${n}`));
    assertEquals(appended.map((one) => placeOf(one).seq), numbers(1, 20));
    const { epoch, previousEpochs, last, items, upTo } = await t.since(0);
    assertEquals(new Set(appended.map((one) => placeOf(one).epoch)), new Set([epoch]));
    assertEquals([previousEpochs, last, upTo], [[], 20, 20]);
    assertEquals(items.map(({ seq }) => seq), numbers(1, 20));
    assertEquals(items.map(({ envelope }) => seqOf(envelope)), numbers(1, 20));
  });

  test("counts each channel for itself", async (t) => {
    await t.append("one");
    await t.append("two");
    const other = await t.history.append(`${t.channel}-other`, outgoing("elsewhere"));
    assertEquals(placeOf(other).seq, 1);
    assertNotEquals(placeOf(other).epoch, (await t.since(0)).epoch);
  });

  test("says how many subscriptions got the message, and publishes what it stores", async (t) => {
    assertEquals(await reachedBy(t.append("nobody")), 0);
    const [first, second] = [await t.subscribe(), await t.subscribe()];
    assertEquals(await reachedBy(t.append("two")), 2);
    await Promise.all([first.received(1), second.received(1)]);
    const [stored] = (await t.since(1)).items;
    assertEquals([first.payloads, second.payloads], [[stored!.envelope], [stored!.envelope]]);
  });

  test("has a position before the first message, and keeps to it", async (t) => {
    const before = await t.since(undefined);
    assertEquals([before.previousEpochs, before.last, before.items, before.upTo], [[], 0, [], 0]);
    assertEquals(placeOf(await t.append("first")), { epoch: before.epoch, seq: 1 });
    const after = await t.since(undefined);
    assertEquals([after.epoch, after.last, after.items, after.upTo], [before.epoch, 1, [], 1]);
    assertEquals(seqsOf(await t.since(0)), [1]);
  });

  testOn("believes of a client that left what it had, as long as that is there", async (t) => {
    const { channel, history, peer = history } = t;
    for (const n of numbers(1, 3)) await peer.append(channel, outgoing(`m${n}`));
    const { epoch, last, lastTag } = await peer.since(channel, undefined, 1);
    history.left?.(channel, { epoch, seq: last, tag: lastTag });
    await peer.append(channel, outgoing("m4"));
    assertEquals(placeOf(await t.append("m5")), { epoch, seq: 5 });
    if (!history.left) return;
    history.left(channel, { epoch, seq: 7, tag: `${lastTag.slice(0, 4)}gone` });
    const place = placeOf(await t.append("m6"));
    assertNotEquals(place.epoch, epoch);
    assertEquals(place.seq, 6);
  });

  test("since begins after a number and stops at the limit", async (t) => {
    for (const n of numbers(1, 10)) await t.append(`m${n}`);
    const cases: [after: number, limit: number, seqs: number[], upTo: number][] = [
      [0, 100, numbers(1, 10), 10],
      [0, 10, numbers(1, 10), 10],
      [0, 4, numbers(1, 4), 4],
      [4, 4, numbers(5, 8), 8],
      [8, 4, [9, 10], 10],
      [10, 4, [], 10],
      [11, 4, [], 10],
      [999_999_999_999_999, 4, [], 10],
    ];
    for (const [after, limit, seqs, upTo] of cases) {
      const page = await t.since(after, limit);
      assertEquals([after, seqsOf(page), page.upTo, page.last], [after, seqs, upTo, 10]);
    }
  });

  test("since shows one moment, while others append", async (t) => {
    const sender = t.peer ?? t.history;
    const sending = Promise.all(numbers(1, 100).map((n) => sender.append(t.channel, outgoing(`m${n}`))));
    let last = 0;
    while (last < 100) {
      const page = await t.since(0);
      last = page.last;
      assertEquals(seqsOf(page), numbers(1, last));
      assertEquals(page.upTo, last);
    }
    await sending;
  });

  // -------------------------------------------------------------------------------------------------------
  // One step

  test("stores and publishes 200 messages of two senders in one order", async (t) => {
    const recorder = await t.subscribe();
    const senders = [t.history, t.peer ?? t.history];
    const texts = numbers(1, 200).map((n) => `m${n}`);
    const appended = await Promise.all(
      texts.map((text, i) => senders[i % 2]!.append(t.channel, outgoing(text))),
    );
    await recorder.received(200);
    const page = await t.since(0);
    assertEquals(seqsOf(page), numbers(1, 200));
    assertEquals(recorder.payloads, page.items.map(({ envelope }) => envelope));
    assertEquals(appended.map((one) => placeOf(one).seq).toSorted((a, b) => a - b), numbers(1, 200));
    assertEquals(textsOf(page).toSorted(), texts.toSorted());
    for (const [i, one] of appended.entries()) {
      assertEquals(payloadOf(page.items[placeOf(one).seq - 1]!.envelope), texts[i]);
    }
  }, { count: 200 });

  test("has stored what it publishes by the time a subscriber hears it", async (t) => {
    const found: Promise<Page>[] = [];
    const recorder = new Recorder((payload) => found.push(t.since(seqOf(payload as string) - 1)));
    await t.broker.subscribe(t.channel, recorder);
    await Promise.all(numbers(1, 50).map((n) => t.append(`m${n}`)));
    await recorder.received(50);
    for (const [i, page] of (await Promise.all(found)).entries()) {
      assertEquals(page.items[0]?.envelope, recorder.payloads[i]);
    }
  });

  // -------------------------------------------------------------------------------------------------------
  // Limits

  test("keeps exactly the newest messages that the limit allows", async (t) => {
    for (const n of numbers(1, 12)) {
      await t.append(`m${n}`);
      const page = await t.since(0);
      assertEquals(seqsOf(page), numbers(Math.max(1, n - 4), n));
      assertEquals([page.last, page.upTo], [n, n]);
    }
    assertEquals(seqsOf(await t.since(3, 2)), [8, 9]);
  }, { count: 5 });

  test("keeps one message when the limit is one", async (t) => {
    for (const n of numbers(1, 3)) await t.append(`m${n}`);
    assertEquals(textsOf(await t.since(0)), ["m3"]);
  }, { count: 1 });

  test("lets a message go when its time is over, and goes on counting", async (t) => {
    let before = placeOf(await t.append("old"));
    // A busy machine may look for it when its time is over.
    while (textsOf(await t.since(before.seq - 1))[0] !== "old") before = placeOf(await t.append("old"));
    await t.elapse(200);
    const empty = await t.since(0);
    assertEquals([empty.items, empty.last, empty.upTo], [[], before.seq, before.seq]);
    const after = placeOf(await t.append("new", { ttlMs: 60_000 }));
    assertEquals(after, { epoch: before.epoch, seq: before.seq + 1 });
    assertEquals(textsOf(await t.since(0)), ["new"]);
  }, { ttlMs: 200 });

  test("lets each message have a time of its own, longer or shorter than usual", async (t) => {
    await t.append("long", { ttlMs: 60_000 });
    await t.append("usual");
    await t.append("short", { ttlMs: 1 });
    await t.append("long too", { ttlMs: 60_000 });
    await t.append("usual too");
    await t.elapse(1);
    const soon = await t.since(0);
    // Too slow a machine would see the usual ones gone as well.
    assert(!textsOf(soon).includes("short"));
    await t.elapse(400);
    const later = await t.since(0);
    assertEquals([textsOf(later), seqsOf(later)], [["long", "long too"], [1, 4]]);
    assertEquals([later.last, later.upTo], [5, 5]);
    // What has left is passed over, and counts towards the limit of a look.
    assertEquals([seqsOf(await t.since(1, 2)), (await t.since(1, 2)).upTo], [[], 3]);
    assertEquals([seqsOf(await t.since(3, 2)), (await t.since(3, 2)).upTo], [[4], 5]);
  }, { ttlMs: 400 });

  test("keeps a message for its own long time although later ones are short", async (t) => {
    await t.append("long", { ttlMs: 60_000 });
    for (const n of numbers(2, 5)) await t.append(`m${n}`, { ttlMs: 100 });
    await t.elapse(200);
    assertEquals(textsOf(await t.since(0)), ["long"]);
  });

  // -------------------------------------------------------------------------------------------------------
  // Without history, and only for those who are there

  test("keeps nothing and numbers nothing when its limit is 0", async (t) => {
    const recorder = await t.subscribe();
    const message = outgoing("once or never");
    assertEquals(await t.history.append(t.channel, message), {
      outcome: "appended",
      id: message.id,
      position: undefined,
      reached: 1,
    });
    await recorder.received(1);
    const [payload] = recorder.payloads as [string];
    // Who writes the time of day into it is another matter.
    const withoutTime = (envelope: string) => envelope.replace(/"ts":\d+/, "");
    assertEquals(withoutTime(payload), withoutTime(message.head + message.tail));
    const { last, items, upTo } = await t.since(0);
    assertEquals([last, items, upTo], [0, [], 0]);
  }, { count: 0 });

  for (const count of [100, 0]) {
    const history = `with a limit of ${count}`;

    test(`expectOnline stores, counts and publishes nothing for nobody, ${history}`, async (t) => {
      const idempotency = { key: "k", fingerprint: "f" };
      assertEquals(await t.append("a", { expectOnline: true }), { outcome: "offline" });
      assertEquals(await t.append("b", { expectOnline: true, idempotency }), { outcome: "offline" });
      const recorder = await t.subscribe();
      const sent = await t.append("c", { expectOnline: true, idempotency });
      assert(sent.outcome === "appended", "An answer that nobody is there must not be remembered");
      assertEquals([sent.position?.seq, sent.reached], [count === 0 ? undefined : 1, 1]);
      await recorder.received(1);
      assertEquals(recorder.payloads.map((payload) => payloadOf(payload as string)), ["c"]);
      assertEquals(textsOf(await t.since(0)), count === 0 ? [] : ["c"]);
    }, { count });

    test(`a repeated key returns the first result and does nothing, ${history}`, async (t) => {
      const recorder = await t.subscribe();
      const first = await t.append("m", { idempotency: { key: "k", fingerprint: "f" } });
      await t.subscribe();
      const again = await (t.peer ?? t.history).append(t.channel, outgoing("m"), {
        idempotency: { key: "k", fingerprint: "f" },
      });
      assertEquals(again, { ...first, outcome: "repeated" } as Appended);
      const other = { idempotency: { key: "k", fingerprint: "another" } };
      assertEquals(await t.append("x", other), { outcome: "conflict" });
      await t.append("end");
      await recorder.received(2);
      assertEquals(recorder.payloads.map((payload) => payloadOf(payload as string)), ["m", "end"]);
    }, { count });

    test(`a key used at one moment by many is delivered once, ${history}`, async (t) => {
      for (const expectOnline of [false, true]) {
        const key = `k-${expectOnline}`;
        const recorder = await t.subscribe(`${t.channel}-${key}`);
        const histories = [t.history, t.peer ?? t.history];
        const results = await Promise.all(
          numbers(0, 19).map((n) =>
            histories[n % 2]!.append(`${t.channel}-${key}`, outgoing("m"), {
              expectOnline,
              idempotency: { key, fingerprint: "f" },
            })
          ),
        );
        const outcomes = results.map(({ outcome }) => outcome);
        assertEquals(outcomes.toSorted(), ["appended", ...Array(19).fill("repeated")]);
        assertEquals(new Set(results.map((one) => "id" in one && one.id)).size, 1);
        await t.history.append(`${t.channel}-${key}`, outgoing("end"));
        await recorder.received(2);
        assertEquals(recorder.payloads.map((payload) => payloadOf(payload as string)), ["m", "end"]);
      }
    }, { count });
  }

  test("a key belongs to one user", async (t) => {
    const idempotency = { key: "k", fingerprint: "f" };
    const here = await t.append("m", { idempotency });
    const there = await t.history.append(`${t.channel}-other`, outgoing("m"), { idempotency });
    assertEquals([here.outcome, there.outcome], ["appended", "appended"]);
  });

  test("a key is remembered although its message has left", async (t) => {
    const idempotency = { key: "k", fingerprint: "f" };
    const first = await t.append("m", { idempotency, ttlMs: 1 });
    await t.append("newer");
    await t.elapse(1);
    assertEquals(await t.append("m", { idempotency }), { ...first, outcome: "repeated" } as Appended);
    assertEquals((await t.since(0)).last, 2);
  }, { count: 1 });

  // -------------------------------------------------------------------------------------------------------
  // Lists

  for (const count of [100, 0]) {
    testOn(`appends for a list of users, each for itself, with a limit of ${count}`, async (t) => {
      const [alice, bob, carol] = numbers(1, 3).map((n) => `${t.channel}-${n}`) as [string, string, string];
      const heard = [await t.subscribe(alice), await t.subscribe(carol), await t.subscribe(carol)];
      const idempotency = { key: "k", fingerprint: "f" };
      await t.history.append(alice, outgoing("x"), { idempotency: { ...idempotency, fingerprint: "other" } });
      const first = await t.history.append(carol, outgoing("m"), { idempotency });
      const message = outgoing("m");
      // Who is named twice gets it once, as with two calls.
      const list = [carol, bob, alice, `${t.channel}-4`, bob];
      const results = await t.history.appendToAll(list, message, { idempotency });
      const [repeated, appended, conflict, other, again] = results.map(fulfilled);
      assertEquals(repeated, { ...first, outcome: "repeated" } as Appended);
      assertEquals(conflict, { outcome: "conflict" });
      assertEquals(again, { ...appended, outcome: "repeated" } as Appended);
      for (const one of [appended, other]) {
        assert(one!.outcome === "appended");
        assertEquals([one!.id, one!.reached, one!.position?.seq], [
          message.id,
          0,
          count === 0 ? undefined : 1,
        ]);
      }
      if (count > 0) assertNotEquals(placeOf(appended!).epoch, placeOf(other!).epoch);
      const online = await t.history.appendToAll([bob, carol, alice], outgoing("end"), {
        expectOnline: true,
      });
      assertEquals(online.map(fulfilled).map((one) => "reached" in one ? one.reached : one.outcome), [
        "offline",
        2,
        1,
      ]);
      for (const recorder of heard) await recorder.received(2);
      assertEquals(heard.map(({ payloads }) => payloads.map((payload) => payloadOf(payload as string))), [
        ["x", "end"],
        ["m", "end"],
        ["m", "end"],
      ]);
      assertEquals(textsOf(await t.history.since(bob, 0, 10)), count === 0 ? [] : ["m"]);
    }, { count });
  }

  testOn("appends for lists of two senders in one order", async (t) => {
    const channels = numbers(1, 20).map((n) => `${t.channel}-${n}`);
    const senders = [t.history, t.peer ?? t.history];
    const texts = numbers(1, 30).map((n) => `m${n}`);
    await Promise.all(texts.map((text, i) => senders[i % 2]!.appendToAll(channels, outgoing(text))));
    for (const channel of channels) {
      const page = await t.history.since(channel, 0, 100);
      assertEquals(seqsOf(page), numbers(1, 30));
      const bySender = [0, 1].map((sender) =>
        textsOf(page).filter((text) => texts.indexOf(String(text)) % 2 === sender)
      );
      assertEquals(bySender, [0, 1].map((sender) => texts.filter((_, i) => i % 2 === sender)));
    }
  });

  for (const count of [100, 0]) {
    testOn(`appends several messages, each for its user, with a limit of ${count}`, async (t) => {
      const { history } = t;
      const [alice, bob] = [`${t.channel}-1`, `${t.channel}-2`];
      const heard = await t.subscribe(alice);
      const idempotency = { key: "k", fingerprint: "of any\ntext" };
      const sends = [
        { channel: alice, message: outgoing("1"), options: {} },
        { channel: bob, message: outgoing("2"), options: { expectOnline: true } },
        { channel: alice, message: outgoing("3"), options: { idempotency, ttlMs: 50_000 } },
        { channel: alice, message: outgoing("4"), options: { idempotency: { key: "k", fingerprint: "g" } } },
        { channel: alice, message: outgoing("3"), options: { idempotency } },
        { channel: bob, message: outgoing("6"), options: {} },
      ];
      const one = async () => {
        const results = [];
        for (const { channel, message, options } of sends) {
          results.push(await history.append(channel, message, options));
        }
        return results;
      };
      const results = history.appendEach ? (await history.appendEach(sends)).map(fulfilled) : await one();
      assertEquals(results.map(({ outcome }) => outcome), [
        ...["appended", "offline", "appended", "conflict", "repeated", "appended"],
      ]);
      assertEquals(results[4], { ...results[2], outcome: "repeated" } as Appended);
      const told = results.flatMap((one) => one.outcome === "appended" ? [[one.id, one.reached]] : []);
      assertEquals(told, [0, 2, 5].map((i) => [sends[i]!.message.id, i === 5 ? 0 : 1]));
      await heard.received(2);
      assertEquals(heard.payloads.map((payload) => payloadOf(payload as string)), ["1", "3"]);
      const kept = [textsOf(await history.since(alice, 0, 10)), textsOf(await history.since(bob, 0, 10))];
      assertEquals(kept, count === 0 ? [[], []] : [["1", "3"], ["6"]]);
    }, { count });
  }

  testOn("appends for an empty list to nobody", async (t) => {
    assertEquals(await t.history.appendToAll([], outgoing("m")), []);
  });

  // -------------------------------------------------------------------------------------------------------
  // Claims

  testOn("a claim holds against another call, until all that made it have taken it back", async (t) => {
    const ours = { key: "k", fingerprint: "ours" };
    const theirs = { key: "k", fingerprint: "theirs" };
    const peer = t.peer ?? t.history;
    assertEquals([await t.history.claim("", ours), await peer.claim("", ours)], [true, true]);
    await t.history.release("", ours);
    assertEquals(await t.history.claim("", theirs), false);
    // Who has no claim takes none back.
    await t.history.release("", theirs);
    await t.history.release("another", ours);
    assertEquals(await peer.claim("", theirs), false);
    await peer.release("", ours);
    assertEquals([await peer.claim("", theirs), await t.history.claim("", ours)], [true, false]);
    await t.history.release("", { key: "never claimed", fingerprint: "ours" });
    assertEquals(await t.history.claim("", { key: "never claimed", fingerprint: "theirs" }), true);
  });

  // -------------------------------------------------------------------------------------------------------
  // Payloads

  test("stores payloads of every kind as they are published", async (t) => {
    const payloads: Payload[] = [
      { kind: "text", text: "" },
      { kind: "text", text: '"quotes", \\, \u0000, \r\n, \u2028, ünïcødé, 日本語, 🦊, \ufeff' },
      { kind: "json", text: '{ "spaced" : [1.0, 1e2, "\\u00e9", "é"], "seq":7,"data":{"t":"m"} }' },
      { kind: "json", text: "null" },
      { kind: "text", text: "🦊".repeat(1 << 16) },
      { kind: "json", text: JSON.stringify("x".repeat(300_000)) },
      { kind: "binary", bytes: Uint8Array.from({ length: 256 }, (_, i) => i) },
      { kind: "binary", bytes: new Uint8Array(300_000).fill(255) },
    ];
    const recorder = await t.subscribe();
    for (const payload of payloads) await t.history.append(t.channel, outgoing(payload));
    await recorder.received(payloads.length);
    const items: Stored[] = [];
    // Large ones, of more than 256 KiB, come in several reads.
    for (let upTo = 0; upTo < payloads.length;) {
      const page = await t.since(upTo);
      assert(page.items.length > 0, "each read brings something");
      items.push(...page.items);
      upTo = page.upTo;
    }
    assertEquals(items.length, payloads.length);
    for (const [i, payload] of payloads.entries()) {
      const { envelope, seq } = items[i]!;
      // Not assertEquals on the whole: it would print a megabyte.
      assert(envelope === recorder.payloads[i], `Payload ${i} was stored otherwise than published`);
      const got = payloadOf(envelope);
      const isSame = payload.kind === "binary"
        ? got instanceof Uint8Array && got.toBase64() === payload.bytes.toBase64()
        : got === payload.text;
      assert(isSame && seqOf(envelope) === seq, `Payload ${i} came back changed`);
    }
  });
}

/** The same history, where each message goes to a list of three users: the one that is meant is the second. */
export function inList(history: History): History {
  return {
    limits: history.limits,
    async append(channel, message, options) {
      const channels = [`${channel}-before`, channel, `${channel}-after`];
      const results = await history.appendToAll(channels, message, options);
      assertEquals(results.length, 3);
      return fulfilled(results[1]!);
    },
    appendToAll: (...args) => history.appendToAll(...args),
    openRun: (...args) => history.openRun(...args),
    appendPage: (...args) => history.appendPage(...args),
    leaveRun: (run) => history.leaveRun(run),
    claim: (...args) => history.claim(...args),
    release: (...args) => history.release(...args),
    since: (...args) => history.since(...args),
  };
}

/** @throws why it was not done. */
function fulfilled<T>(result: PromiseSettledResult<T>): T {
  if (result.status === "rejected") throw result.reason;
  return result.value;
}

async function reachedBy(appending: Promise<Appended>): Promise<number> {
  const appended = await appending;
  assert("reached" in appended, `Nothing was sent: ${JSON.stringify(appended)}`);
  return appended.reached;
}
