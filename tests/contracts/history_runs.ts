/**
 * What every history must do with runs: one message to many users, page after page, that another may go on with. Declared
 * as `historyContract` is.
 */
import { assert, assertEquals } from "@std/assert";
import {
  doneIn,
  type History,
  type HistoryLimits,
  NOTHING_DONE,
  type PageOptions,
  type Run,
  type RunName,
  type Tally,
} from "../../src/history/history.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { Recorder } from "../../testkit/recorder.ts";
import {
  type ContractOptions,
  type HistoryUnderTest,
  numbers,
  outgoing,
  placeOf,
  seqsOf,
} from "./history.ts";

const TEST_MS = 30_000;
const LIMITS: HistoryLimits = { count: 100, ttlMs: 60_000 };

interface Bench extends HistoryUnderTest {
  readonly name: RunName;
  /** Names of users that have a counter. */
  known(count: number): Promise<string[]>;
  open(history?: History, fingerprint?: string): Promise<Run>;
  send(run: Run, pages: readonly (readonly string[])[], options?: PageOptions): Promise<Tally>;
  subscribe(channel: string): Promise<Recorder>;
}

export function runContract(
  name: string,
  openHistory: (limits: HistoryLimits) => Promise<HistoryUnderTest>,
  options: ContractOptions = {},
): void {
  const declare = options.test ?? Deno.test;
  function test(
    claim: string,
    body: (t: Bench) => Promise<void>,
    limits: Partial<HistoryLimits> = {},
  ): void {
    declare(`${name} ${claim}`, async () => {
      const under = await openHistory({ ...LIMITS, ...limits });
      const id = crypto.randomUUID();
      const name: RunName = { channel: `group-${id}`, key: "k", isKept: true };
      const bench: Bench = {
        ...under,
        name,
        known: async (count) => {
          const channels = numbers(1, count).map((n) => `member-${n}-${id}`);
          await Promise.all(channels.map((channel) => under.history.since(channel, undefined, 1)));
          return channels;
        },
        async open(history = under.history, fingerprint = "f") {
          const opened = await history.openRun(name, { id: "m1", fingerprint });
          assert(opened.outcome === "open", `It is ${opened.outcome}`);
          return opened.run;
        },
        async send(run, pages, options) {
          let tally = run.tally;
          const from = Number(run.cursor);
          for (const [i, channels] of pages.entries()) {
            if (i < from) continue;
            const page = {
              channels,
              from: i === 0 ? "" : `${i}`,
              to: `${i + 1}`,
              isLast: i === pages.length - 1,
            };
            const done = await under.history.appendPage(run, page, outgoing("m", run.id), options);
            assert(done.outcome === "noted" && done.left.length === 0, JSON.stringify(done));
            tally = done.tally;
          }
          return tally;
        },
        async subscribe(channel) {
          const recorder = new Recorder();
          await under.broker.subscribe(channel, recorder);
          return recorder;
        },
      };
      try {
        await withDeadline(body(bench), TEST_MS, "the test to end");
      } finally {
        await under.dispose();
      }
    });
  }

  const seqOf = async ({ history }: Bench, channel: string) => (await history.since(channel, 0, 100)).last;

  test("adds up what became of a run, over all its pages", async (t) => {
    const members = await t.known(7);
    const [alice, bob] = [await t.subscribe(members[0]!), await t.subscribe(members[4]!)];
    await t.subscribe(members[4]!);
    const pages = [members.slice(0, 3), [...members.slice(3), "nobody"]];
    assertEquals(await t.send(await t.open(), pages), {
      ...{ ...NOTHING_DONE, users: 7, online: 2, reached: 3, stored: 5, unknown: 1 },
    });
    for (const one of [alice, bob]) await one.received(1);
    for (const channel of members) assertEquals(seqsOf(await t.history.since(channel, 0, 10)), [1]);
    assertEquals((await t.history.since("nobody", 0, 10, { peek: true })).epoch, "");
  });

  test("gives a member without a counter a message of a run if somebody listens", async (t) => {
    const recorder = await t.subscribe(`raw-${t.name.channel}`);
    const tally = await t.send(await t.open(), [[`raw-${t.name.channel}`]]);
    assertEquals(tally, { ...NOTHING_DONE, users: 1, online: 1, reached: 1 });
    await recorder.received(1);
  });

  test("remembers a run that has ended, and for which message its key was", async (t) => {
    const pages = [await t.known(3)];
    const tally = await t.send(await t.open(), pages);
    for (const history of [t.history, t.peer ?? t.history]) {
      const again = await history.openRun(t.name, { id: "m2", fingerprint: "f" });
      assertEquals(again, { outcome: "done", id: "m1", tally });
      const other = await history.openRun(t.name, { id: "m2", fingerprint: "g" });
      assertEquals(other.outcome, "conflict");
    }
  });

  test("goes on with a run after the last page that was done", async (t) => {
    const members = await t.known(6);
    const pages = [members.slice(0, 2), members.slice(2, 4), members.slice(4)];
    const run = await t.open();
    const page = { channels: pages[0]!, from: "", to: "1", isLast: false };
    await t.history.appendPage(run, page, outgoing("m", run.id));
    await t.history.leaveRun(run);
    const later = await t.open();
    assertEquals([later.id, later.cursor, doneIn(later.tally)], ["m1", "1", 2]);
    assertEquals((await t.send(later, pages)).users, 6);
    for (const channel of members) assertEquals(await seqOf(t, channel), 1);
  });

  test("does a page of a run once, however many are at it", async (t) => {
    const members = await t.known(5);
    const runs = [await t.open(), await t.open().catch(() => undefined)];
    const page = { channels: members, from: "", to: "1", isLast: false };
    const done = await Promise.all(
      runs.flatMap((run) => run ? [t.history.appendPage(run, page, outgoing("m", run.id))] : []),
    );
    assertEquals(done.filter(({ outcome }) => outcome === "noted").length, 1);
    for (const channel of members) assertEquals(await seqOf(t, channel), 1);
  });

  test("forgets a run that has done nothing, once it is left, and one that is not kept, at its end", async (t) => {
    await t.history.leaveRun(await t.open());
    await t.history.leaveRun(await t.open(t.history, "g"));
    const name = { ...t.name, key: "run 1", isKept: false };
    const opened = await t.history.openRun(name, { id: "m1", fingerprint: "" });
    assert(opened.outcome === "open");
    await t.send(opened.run, [await t.known(1)]);
    const again = await t.history.openRun(name, { id: "m1", fingerprint: "" }, { isAgain: true });
    assertEquals(again.outcome, "lost");
  });

  test("in a run keeps numbers without holes beside messages to one user", async (t) => {
    const members = await t.known(3);
    const sends = numbers(1, 30).map(async (n) => {
      if (n % 2 === 0) return await t.history.append(members[n % 3]!, outgoing("single"));
      const opened = await t.history.openRun({ ...t.name, key: `${n}` }, { id: `${n}`, fingerprint: "" });
      assert(opened.outcome === "open");
      await t.send(opened.run, [members]);
    });
    await Promise.all(sends);
    for (const channel of members) {
      assertEquals(seqsOf(await t.history.since(channel, 0, 100)), numbers(1, 20));
    }
  });

  test("passes over who is offline in a run with expectOnline, and keeps nothing for them with keepFor", async (t) => {
    const [alice, bob] = await t.known(2) as [string, string];
    await t.subscribe(alice);
    const expecting = await t.send(await t.open(), [[alice, bob, "nobody"]], { expectOnline: true });
    assertEquals(expecting, { ...NOTHING_DONE, users: 1, online: 1, reached: 1, offline: 2 });
    assertEquals(await seqOf(t, bob), 0);
    const opened = await t.history.openRun({ ...t.name, key: "other" }, { id: "m2", fingerprint: "" });
    assert(opened.outcome === "open");
    const numbered = await t.send(opened.run, [[alice, bob]], { keepFor: "online" });
    assertEquals(numbered, { ...NOTHING_DONE, users: 2, online: 1, reached: 1 });
    const { last, items, upTo } = await t.history.since(bob, 0, 10);
    assertEquals([last, items.length, upTo], [1, 0, 1]);
    assertEquals(placeOf(await t.history.append(bob, outgoing("m"))).seq, 2);
    assertEquals(seqsOf(await t.history.since(bob, 0, 10)), [2]);
    assertEquals(seqsOf(await t.history.since(alice, 0, 10)), [1, 2]);
  });

  test("hands a run to who listens also where nothing is kept", async (t) => {
    const recorder = await t.subscribe(`alice-${t.name.channel}`);
    const tally = await t.send(await t.open(), [[`alice-${t.name.channel}`, "nobody"]]);
    assertEquals(tally, { ...NOTHING_DONE, users: 1, online: 1, reached: 1, unknown: 1 });
    await recorder.received(1);
  }, { count: 0 });
}
