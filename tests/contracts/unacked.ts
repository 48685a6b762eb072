/** What every store of events must do with messages that are watched, see `src/events/unacked.ts`. */
import { assertEquals } from "@std/assert";
import { MOST_DUE } from "../../src/events/events.ts";
import type { WatchedMessage } from "../../src/events/unacked.ts";
import { until } from "../../testkit/deadline.ts";
import { SAMPLED } from "../../testkit/trace_parents.ts";
import type { EventNode, NodeOptions } from "./events.ts";

/** Longer than any test takes. */
const LATER_MS = 3_600_000;

function message(token: string, afterMs: number, more: Partial<WatchedMessage> = {}): WatchedMessage {
  return { token, id: `id-${token}`, ts: 1_700_000_000_000, afterMs, ...more };
}

/** What is told now, in the order of the users. */
async function told(node: EventNode): Promise<Record<string, unknown>[]> {
  const entries = await node.drain();
  return entries.filter(({ type }) => type === "message.unacked").map(({ data }) => JSON.parse(data))
    .sort((one, other) => one.user < other.user ? -1 : 1);
}

/** Resolves when somebody was looked at. */
function due(node: EventNode): Promise<void> {
  return until(() => node.store.tellUnacked(), "a message to be due");
}

/** @param open Opens a node on a store that the others of the same test share, and no other test. */
export function unackedContract(
  test: (name: string, fn: () => Promise<void>) => void,
  open: (name: string, options?: NodeOptions) => Promise<EventNode>,
  newStore: () => Promise<void>,
): void {
  const it = (name: string, fn: (node: EventNode) => Promise<void>) =>
    test(name, async () => {
      await newStore();
      await using node = await open("a");
      await fn(node);
    });

  it("tells a message that nobody has confirmed in time, once, with what is known of it", async (node) => {
    const there = await node.subscribe("bob");
    const watched = message("t1", 1, { group: 'te"am', traceparent: SAMPLED });
    await node.store.watch(message("t2", LATER_MS), ["alice", "carol"]);
    await node.store.watch(watched, ["alice", "bob"]);
    await node.store.sent(watched, ["alice"], 7);
    const found: Record<string, unknown>[] = [];
    await until(async () => {
      await node.store.tellUnacked();
      found.push(...await told(node));
      return found.length === 2;
    }, "both to be told");
    const common = { id: "id-t1", ts: 1_700_000_000_000, group: 'te"am', traceparent: SAMPLED };
    assertEquals(found.sort((a, b) => String(a.user) < String(b.user) ? -1 : 1), [
      { user: "alice", ...common, seq: 7, sockets: 0 },
      { user: "bob", ...common, sockets: 1 },
    ]);
    assertEquals(await node.store.tellUnacked(), false);
    await there.close();
  });

  it("tells nothing of who has confirmed it, or was not sent it, and each user of it alone", async (node) => {
    const watched = message("t", 0);
    await node.store.watch(watched, ["alice", "bob", "carol"]);
    await node.store.unwatch("t", ["alice", "nobody"]);
    await node.store.unwatch("other", ["bob"]);
    // Who is late brings nobody back.
    await node.store.sent(watched, ["alice", "bob"], 3);
    await due(node);
    assertEquals((await told(node)).map(({ user }) => user), ["bob"]);
    await node.store.unwatch("t", ["carol"]);
    assertEquals(await node.store.tellUnacked(), false);
  });

  it("tells with 0 who is offline, as soon as it is sent, and nobody else", async (node) => {
    const there = await node.subscribe("bob");
    const watched = message("t", 0);
    await node.store.watch(watched, ["alice", "bob"]);
    assertEquals(await node.store.tellUnacked(), false, "it is still being sent");
    await node.store.sent(watched, ["alice", "bob"]);
    await due(node);
    await node.store.tellUnacked();
    assertEquals((await told(node)).map(({ user }) => user), ["alice"]);
    assertEquals(await node.store.tellUnacked(), false);
    await there.close();
  });

  it("tells of many, some at a time, and of names of every letter", async (node) => {
    const users = Array.from({ length: MOST_DUE + 3 }, (_, i) => `user-${i}`);
    const names = ['a"b\\c/d', "Zoë", "日本", "a:b:c", "😀"];
    const watched = message("t", 0);
    await node.store.watch(watched, [...users, ...names]);
    await node.store.sent(watched, [...users, ...names]);
    const found = new Set<unknown>();
    await until(
      async () => {
        await node.store.tellUnacked();
        for (const { user } of await told(node)) found.add(user);
        return found.size === users.length + names.length;
      },
      "all to be told",
      undefined,
      () => found.size,
    );
    for (const name of names) assertEquals(found.has(name), true, name);
  });
}
