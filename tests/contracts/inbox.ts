/**
 * What every inbox must do: the guarantees of `src/history/history.ts`, each with at least one test. What holds only for
 * one implementation is in its own test file.
 *
 *     inboxContract("MemoryInbox", (limits) => {
 *       const broker = new MemoryBroker();
 *       const inbox = new MemoryInbox(broker, { limits });
 *       return Promise.resolve({ inbox, broker, elapse, dispose: () => broker.close() });
 *     });
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Broker } from "../../src/broker/broker.ts";
import type {
  Appended,
  AppendOptions,
  Draft,
  Inbox,
  InboxLimits,
  Stored,
  Stretch,
} from "../../src/history/history.ts";
import { formatEnvelope, type Payload, payloadOf, seqOf } from "../../src/protocol/envelope.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";

/** An inbox to be tested, and what surrounds it. */
export interface InboxUnderTest {
  readonly inbox: Inbox;
  /** The broker it publishes on. */
  readonly broker: Broker;
  /** Another inbox on the same store, as a second instance has; left out where there can be none. */
  readonly peer?: Inbox;
  /** Resolves when the clock that the inbox goes by is so many milliseconds ahead. */
  elapse(ms: number): Promise<void>;
  /** Ends all of it. */
  dispose(): Promise<void>;
}

export interface ContractOptions {
  /** How the tests are declared, such as `redisTest`. @default Deno.test */
  readonly test?: (name: string, fn: () => Promise<void>) => void;
}

/** What a test gets: the inbox, a channel of its own, and short forms of what every test does. */
interface Bench extends InboxUnderTest {
  readonly channel: string;
  append(text: string, options?: AppendOptions): Promise<Appended>;
  since(after: number | undefined, limit?: number): Promise<Stretch>;
  subscribe(channel?: string): Promise<Recorder>;
}

const TEST_MS = 30_000;
const LIMITS: InboxLimits = { count: 100, ttlMs: 60_000 };

/** A message as a publisher writes it. */
export function draftOf(payload: string | Payload, id: string = crypto.randomUUID()): Draft {
  const whole: Payload = typeof payload === "string" ? { kind: "text", text: payload } : payload;
  return { id, ...formatEnvelope(whole, { id, ts: Date.now() }) };
}

/** The texts in a stretch. */
export function textsOf(stretch: Stretch): unknown[] {
  return stretch.items.map(({ envelope }) => payloadOf(envelope));
}

/** The sequence numbers in a stretch. */
export function seqsOf(stretch: Stretch): number[] {
  return stretch.items.map(({ seq }) => seq);
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
export function inboxContract(
  name: string,
  open: (limits: InboxLimits) => Promise<InboxUnderTest>,
  options: ContractOptions = {},
): void {
  const declare = options.test ?? Deno.test;

  /** Declares a test twice: for messages to one user, and for those to a list of users. */
  function test(
    claim: string,
    body: (t: Bench) => Promise<void>,
    limits: Partial<InboxLimits> = {},
  ): void {
    testOn(claim, body, limits);
    testOn(`in a list ${claim}`, body, limits, inList);
  }

  function testOn(
    claim: string,
    body: (t: Bench) => Promise<void>,
    limits: Partial<InboxLimits> = {},
    way = (inbox: Inbox) => inbox,
  ): void {
    declare(`${name} ${claim}`, async () => {
      const under = await open({ ...LIMITS, ...limits });
      const opened = { ...under, inbox: way(under.inbox), ...(under.peer && { peer: way(under.peer) }) };
      const channel = `test-${crypto.randomUUID()}`;
      const bench: Bench = {
        ...opened,
        channel,
        append: (text, options) => opened.inbox.append(channel, draftOf(text), options),
        since: (after, limit = 1_000) => opened.inbox.since(channel, after, limit),
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
  // Numbers, epochs and stretches

  test("numbers messages from 1 without holes, within one epoch", async (t) => {
    const appended = [];
    for (const n of numbers(1, 20)) appended.push(await t.append(`m${n}`));
    assertEquals(appended.map((one) => placeOf(one).seq), numbers(1, 20));
    const { epoch, former, last, items, through } = await t.since(0);
    assertEquals(new Set(appended.map((one) => placeOf(one).epoch)), new Set([epoch]));
    assertEquals([former, last, through], [[], 20, 20]);
    assertEquals(items.map(({ seq }) => seq), numbers(1, 20));
    assertEquals(items.map(({ envelope }) => seqOf(envelope)), numbers(1, 20));
  });

  test("counts each channel for itself", async (t) => {
    await t.append("one");
    await t.append("two");
    const other = await t.inbox.append(`${t.channel}-other`, draftOf("elsewhere"));
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
    assertEquals([before.former, before.last, before.items, before.through], [[], 0, [], 0]);
    assertEquals(placeOf(await t.append("first")), { epoch: before.epoch, seq: 1 });
    const after = await t.since(undefined);
    assertEquals([after.epoch, after.last, after.items, after.through], [before.epoch, 1, [], 1]);
    assertEquals(seqsOf(await t.since(0)), [1]);
  });

  test("since begins after a number and stops at the limit", async (t) => {
    for (const n of numbers(1, 10)) await t.append(`m${n}`);
    const cases: [after: number, limit: number, seqs: number[], through: number][] = [
      [0, 100, numbers(1, 10), 10],
      [0, 10, numbers(1, 10), 10],
      [0, 4, numbers(1, 4), 4],
      [4, 4, numbers(5, 8), 8],
      [8, 4, [9, 10], 10],
      [10, 4, [], 10],
      [11, 4, [], 10],
      [999_999_999_999_999, 4, [], 10],
    ];
    for (const [after, limit, seqs, through] of cases) {
      const stretch = await t.since(after, limit);
      assertEquals([after, seqsOf(stretch), stretch.through, stretch.last], [after, seqs, through, 10]);
    }
  });

  test("since shows one moment, while others append", async (t) => {
    const sender = t.peer ?? t.inbox;
    const sending = Promise.all(numbers(1, 100).map((n) => sender.append(t.channel, draftOf(`m${n}`))));
    let last = 0;
    while (last < 100) {
      const stretch = await t.since(0);
      last = stretch.last;
      assertEquals(seqsOf(stretch), numbers(1, last));
      assertEquals(stretch.through, last);
    }
    await sending;
  });

  // -------------------------------------------------------------------------------------------------------
  // One step

  test("stores and publishes 200 messages of two senders in one order", async (t) => {
    const recorder = await t.subscribe();
    const senders = [t.inbox, t.peer ?? t.inbox];
    const texts = numbers(1, 200).map((n) => `m${n}`);
    const appended = await Promise.all(
      texts.map((text, i) => senders[i % 2]!.append(t.channel, draftOf(text))),
    );
    await recorder.received(200);
    const stretch = await t.since(0);
    assertEquals(seqsOf(stretch), numbers(1, 200));
    assertEquals(recorder.payloads, stretch.items.map(({ envelope }) => envelope));
    assertEquals(appended.map((one) => placeOf(one).seq).toSorted((a, b) => a - b), numbers(1, 200));
    assertEquals(textsOf(stretch).toSorted(), texts.toSorted());
    for (const [i, one] of appended.entries()) {
      assertEquals(payloadOf(stretch.items[placeOf(one).seq - 1]!.envelope), texts[i]);
    }
  }, { count: 200 });

  test("has stored what it publishes by the time a subscriber hears it", async (t) => {
    const found: Promise<Stretch>[] = [];
    const recorder = new Recorder((payload) => found.push(t.since(seqOf(payload as string) - 1)));
    await t.broker.subscribe(t.channel, recorder);
    await Promise.all(numbers(1, 50).map((n) => t.append(`m${n}`)));
    await recorder.received(50);
    for (const [i, stretch] of (await Promise.all(found)).entries()) {
      assertEquals(stretch.items[0]?.envelope, recorder.payloads[i]);
    }
  });

  // -------------------------------------------------------------------------------------------------------
  // Limits

  test("keeps exactly the newest messages that the limit allows", async (t) => {
    for (const n of numbers(1, 12)) {
      await t.append(`m${n}`);
      const stretch = await t.since(0);
      assertEquals(seqsOf(stretch), numbers(Math.max(1, n - 4), n));
      assertEquals([stretch.last, stretch.through], [n, n]);
    }
    assertEquals(seqsOf(await t.since(3, 2)), [8, 9]);
  }, { count: 5 });

  test("keeps one message when the limit is one", async (t) => {
    for (const n of numbers(1, 3)) await t.append(`m${n}`);
    assertEquals(textsOf(await t.since(0)), ["m3"]);
  }, { count: 1 });

  test("lets a message go when its time is over, and goes on counting", async (t) => {
    const before = placeOf(await t.append("old"));
    assertEquals(textsOf(await t.since(0)), ["old"]);
    await t.elapse(200);
    const empty = await t.since(0);
    assertEquals([empty.items, empty.last, empty.through], [[], 1, 1]);
    assertEquals(placeOf(await t.append("new")), { epoch: before.epoch, seq: 2 });
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
    assertEquals([later.last, later.through], [5, 5]);
    // What has left is passed over, and counts towards the limit of a look.
    assertEquals([seqsOf(await t.since(1, 2)), (await t.since(1, 2)).through], [[], 3]);
    assertEquals([seqsOf(await t.since(3, 2)), (await t.since(3, 2)).through], [[4], 5]);
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
    const draft = draftOf("once or never");
    assertEquals(await t.inbox.append(t.channel, draft), {
      outcome: "appended",
      id: draft.id,
      position: undefined,
      reached: 1,
    });
    await recorder.received(1);
    assertEquals(recorder.payloads, [draft.head + draft.tail]);
    const { last, items, through } = await t.since(0);
    assertEquals([last, items, through], [0, [], 0]);
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
      const again = await (t.peer ?? t.inbox).append(t.channel, draftOf("m"), {
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
        const inboxes = [t.inbox, t.peer ?? t.inbox];
        const results = await Promise.all(
          numbers(0, 19).map((n) =>
            inboxes[n % 2]!.append(`${t.channel}-${key}`, draftOf("m"), {
              expectOnline,
              idempotency: { key, fingerprint: "f" },
            })
          ),
        );
        const outcomes = results.map(({ outcome }) => outcome);
        assertEquals(outcomes.toSorted(), ["appended", ...Array(19).fill("repeated")]);
        assertEquals(new Set(results.map((one) => "id" in one && one.id)).size, 1);
        await t.inbox.append(`${t.channel}-${key}`, draftOf("end"));
        await recorder.received(2);
        assertEquals(recorder.payloads.map((payload) => payloadOf(payload as string)), ["m", "end"]);
      }
    }, { count });
  }

  test("a key belongs to one user", async (t) => {
    const idempotency = { key: "k", fingerprint: "f" };
    const here = await t.append("m", { idempotency });
    const there = await t.inbox.append(`${t.channel}-other`, draftOf("m"), { idempotency });
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
      await t.inbox.append(alice, draftOf("x"), { idempotency: { ...idempotency, fingerprint: "other" } });
      const first = await t.inbox.append(carol, draftOf("m"), { idempotency });
      const draft = draftOf("m");
      // Who is named twice gets it once, as with two calls.
      const list = [carol, bob, alice, `${t.channel}-4`, bob];
      const results = await t.inbox.appendToAll(list, draft, { idempotency });
      const [repeated, appended, conflict, other, again] = results.map(fulfilled);
      assertEquals(repeated, { ...first, outcome: "repeated" } as Appended);
      assertEquals(conflict, { outcome: "conflict" });
      assertEquals(again, { ...appended, outcome: "repeated" } as Appended);
      for (const one of [appended, other]) {
        assert(one!.outcome === "appended");
        assertEquals([one!.id, one!.reached, one!.position?.seq], [draft.id, 0, count === 0 ? undefined : 1]);
      }
      if (count > 0) assertNotEquals(placeOf(appended!).epoch, placeOf(other!).epoch);
      const online = await t.inbox.appendToAll([bob, carol, alice], draftOf("end"), { expectOnline: true });
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
      assertEquals(textsOf(await t.inbox.since(bob, 0, 10)), count === 0 ? [] : ["m"]);
    }, { count });
  }

  testOn("appends for lists of two senders in one order", async (t) => {
    const channels = numbers(1, 20).map((n) => `${t.channel}-${n}`);
    const senders = [t.inbox, t.peer ?? t.inbox];
    const texts = numbers(1, 30).map((n) => `m${n}`);
    await Promise.all(texts.map((text, i) => senders[i % 2]!.appendToAll(channels, draftOf(text))));
    for (const channel of channels) {
      const stretch = await t.inbox.since(channel, 0, 100);
      assertEquals(seqsOf(stretch), numbers(1, 30));
      const bySender = [0, 1].map((sender) =>
        textsOf(stretch).filter((text) => texts.indexOf(String(text)) % 2 === sender)
      );
      assertEquals(bySender, [0, 1].map((sender) => texts.filter((_, i) => i % 2 === sender)));
    }
  });

  testOn("appends for an empty list to nobody", async (t) => {
    assertEquals(await t.inbox.appendToAll([], draftOf("m")), []);
  });

  // -------------------------------------------------------------------------------------------------------
  // Claims

  testOn("a claim holds against another call, until all that made it have taken it back", async (t) => {
    const ours = { key: "k", fingerprint: "ours" };
    const theirs = { key: "k", fingerprint: "theirs" };
    const peer = t.peer ?? t.inbox;
    assertEquals([await t.inbox.claim("", ours), await peer.claim("", ours)], [true, true]);
    await t.inbox.release("", ours);
    assertEquals(await t.inbox.claim("", theirs), false);
    // Who has no claim takes none back.
    await t.inbox.release("", theirs);
    await t.inbox.release("another", ours);
    assertEquals(await peer.claim("", theirs), false);
    await peer.release("", ours);
    assertEquals([await peer.claim("", theirs), await t.inbox.claim("", ours)], [true, false]);
    await t.inbox.release("", { key: "never claimed", fingerprint: "ours" });
    assertEquals(await t.inbox.claim("", { key: "never claimed", fingerprint: "theirs" }), true);
  });

  // -------------------------------------------------------------------------------------------------------
  // Payloads

  test("stores payloads of every kind as they are published", async (t) => {
    const payloads: Payload[] = [
      { kind: "text", text: "" },
      { kind: "text", text: '"quotes", \\, \u0000, \r\n, \u2028, ünïcødé, 日本語, 🦊, \ufeff' },
      { kind: "json", text: '{ "spaced" : [1.0, 1e2, "\\u00e9", "é"], "seq":7,"data":{"t":"m"} }' },
      { kind: "json", text: "null" },
      { kind: "text", text: "🦊".repeat(1 << 18) },
      { kind: "json", text: JSON.stringify("x".repeat(1 << 20)) },
      { kind: "binary", bytes: Uint8Array.from({ length: 256 }, (_, i) => i) },
      { kind: "binary", bytes: new Uint8Array(1 << 20).fill(255) },
    ];
    const recorder = await t.subscribe();
    for (const payload of payloads) await t.inbox.append(t.channel, draftOf(payload));
    await recorder.received(payloads.length);
    const items: Stored[] = [];
    // Large ones come in several reads.
    for (let through = 0; through < payloads.length;) {
      const stretch = await t.since(through);
      assert(stretch.items.length > 0, "each read brings something");
      items.push(...stretch.items);
      through = stretch.through;
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

/** The same inbox, where each message goes to a list of three users: the one that is meant is the second. */
export function inList(inbox: Inbox): Inbox {
  return {
    limits: inbox.limits,
    async append(channel, draft, options) {
      const channels = [`${channel}-before`, channel, `${channel}-after`];
      const results = await inbox.appendToAll(channels, draft, options);
      assertEquals(results.length, 3);
      return fulfilled(results[1]!);
    },
    appendToAll: (...args) => inbox.appendToAll(...args),
    claim: (...args) => inbox.claim(...args),
    release: (...args) => inbox.release(...args),
    since: (...args) => inbox.since(...args),
    close: () => inbox.close(),
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
