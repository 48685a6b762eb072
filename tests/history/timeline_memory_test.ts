/** What a process remembers of appends for its next look at Redis: what it asks for, what it tells, and for how long. */
import { assertEquals } from "@std/assert";
import { Timeline } from "../../src/history/timeline.ts";
import { historyKey, positionKey } from "../../src/redis/commands.ts";
import { readInfo } from "../../src/redis/server_info.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const HOUR_MS = 3_600_000;
/** Where the script has these. */
const [PATIENCE, RECORD] = [4, 6];

interface Answer {
  readonly name?: string;
  readonly isWhole?: boolean;
  /** Of the others: process, and what it told. */
  readonly records?: readonly string[];
  /** Happens while Redis is asked. */
  meanwhile?(): void;
}

/** A timeline at a Redis that answers as the test says. */
function stage() {
  const timeline = new Timeline();
  const look = async (
    { name = "1.a", isWhole = true, records = [], meanwhile }: Answer = {},
    life = "first",
  ) => {
    let asked: readonly string[] = [], args: readonly string[] = [];
    const why = await timeline.look((_script, keys, given) => {
      [asked, args] = [keys.slice(2), given];
      meanwhile?.();
      return Promise.resolve(
        name === "" ? ["", ""] : [name, isWhole ? "1" : "0", "1", "", "", "", ...records],
      );
    }, readInfo(`run_id:${life}`));
    return { asked, told: args[RECORD], patience: args[PATIENCE], isDone: why === undefined };
  };
  return { timeline, look };
}

const keysOf = (...channels: string[]) =>
  channels.flatMap((channel) => [positionKey(channel), historyKey(channel)]);

Deno.test("Timeline tells of its last append once, and of one that comes during a look with the next", async () => {
  const { timeline, look } = stage();
  assertEquals((await look()).told, "");
  timeline.appended("alice", 1, "tag1");
  timeline.appended("bob", 7, "tag7");
  const { told, asked } = await look({ meanwhile: () => void timeline.appended("carol", 2, "tag2") });
  assertEquals([told, asked], ["7 tag7 bob", keysOf("bob")]);
  const next = await look();
  assertEquals([next.told, next.asked], ["2 tag2 carol", keysOf("carol")]);
  const last = await look();
  assertEquals([last.told, last.asked], ["", keysOf("carol")]);
});

Deno.test("Timeline looks no more for what was lost, but for what came since", async () => {
  const { timeline, look } = stage();
  timeline.appended("alice", 1, "tag1");
  await look({ records: ["other", "1000 5 tag5 bob"] });
  assertEquals((await look({ records: ["other", "1000 5 tag5 bob"] })).asked, keysOf("alice", "bob"));
  await look({ isWhole: false, meanwhile: () => void timeline.appended("carol", 2, "tag2") });
  assertEquals((await look({ isWhole: false })).asked, keysOf("carol"));
  assertEquals((await look()).asked, []);
});

Deno.test("Timeline knows of others what they told last, and of nobody who is gone", async () => {
  const { look } = stage();
  await look({ records: ["one", "1000 5 tag5 bob", "two", "1000 1 tag1 user with spaces"] });
  const { asked } = await look({ records: ["one", "2000 6 tag6 carol"] });
  assertEquals(asked, keysOf("bob", "user with spaces"));
  assertEquals((await look()).asked, keysOf("carol"));
  assertEquals((await look()).asked, []);
});

Deno.test("Timeline looks for an append for no longer than its counter lives", async () => {
  using clock = new TurnedClock();
  const { timeline, look } = stage();
  timeline.appended("alice", 1, "tag1");
  const records = ["other", "1000 5 tag5 bob"];
  assertEquals((await look({ records })).asked, keysOf("alice"));
  clock.pass(23 * HOUR_MS - 1);
  assertEquals((await look({ records })).asked, keysOf("alice", "bob"));
  clock.pass(1);
  assertEquals((await look({ records })).asked, []);
});

Deno.test("Timeline waits for others with each life of Redis anew", async () => {
  using clock = new TurnedClock();
  const { look } = stage();
  const patience = async (ms: number, life: string) => {
    clock.pass(ms);
    return (await look({ name: "" }, life)).patience;
  };
  assertEquals([await patience(0, "first"), await patience(1_199, "first")], ["0", "0"]);
  assertEquals([await patience(1, "first"), await patience(1_299, "first")], ["1", "1"]);
  assertEquals([await patience(1, "first"), await patience(0, "second")], ["2", "0"]);
  assertEquals([await patience(1_200, "second"), await patience(0, "first")], ["1", "0"]);
  clock.pass(1_200);
  assertEquals([(await look()).isDone, await patience(0, "first")], [true, "0"]);
});
