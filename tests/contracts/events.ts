/**
 * What every store of events must do, see `src/events/events.ts`. Subscriptions are real ones of the broker beside it; a
 * moment that must come is waited for, by asking again until it has.
 */
import { assert, assertEquals, assertLess, assertNotEquals } from "@std/assert";
import type { Subscription } from "../../src/broker/broker.ts";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { type Entry, type EventStore, MAX_CHANGES, MOST_DUE } from "../../src/events/events.ts";
import { openEventStore } from "../../src/events/open.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";

export interface Change {
  readonly user: string;
  readonly online: boolean;
  readonly n: number;
}

export interface NodeOptions {
  readonly offlineAfterMs?: number;
  readonly holdMs?: number;
  /** What precedes usernames in channels: one of its own is a store of its own. */
  readonly prefix?: string;
}

/** A node, as far as events go. */
export class EventNode implements AsyncDisposable {
  readonly engine: Engine;
  readonly store: EventStore;
  readonly #prefix: string;

  constructor(
    redisUrl: string | undefined,
    name: string,
    { offlineAfterMs = 1, holdMs = 60_000, prefix = "" }: NodeOptions = {},
  ) {
    this.#prefix = prefix;
    this.engine = openEngine({ redisUrl });
    this.store = openEventStore(this.engine, { node: name, channelPrefix: prefix, offlineAfterMs, holdMs });
  }

  async ready(): Promise<this> {
    await connected(this.engine);
    await until(() => this.engine.unready() === undefined, "the engine to be ready");
    return this;
  }

  subscribe(user: string): Promise<Subscription> {
    return this.engine.broker.subscribe(this.#prefix + user, { message() {}, lost() {}, restored() {} });
  }

  /** Takes and forgets all there is. */
  async drain(): Promise<Entry[]> {
    const all: Entry[] = [];
    for (;;) {
      const { entries } = await this.store.take(100);
      if (entries.length === 0) return all;
      all.push(...entries);
      for (const { id } of entries) await this.store.done(id);
    }
  }

  /** What is told now. */
  async changes(): Promise<Change[]> {
    return changesOf(await this.drain());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close();
  }
}

export function changesOf(entries: readonly Entry[]): Change[] {
  return entries.filter(({ type }) => type === "users.changed")
    .flatMap(({ data }) => (JSON.parse(data) as { changes: Change[] }).changes);
}

const said = (changes: readonly Change[]) =>
  changes.map(({ user, online }) => `${user} ${online ? "online" : "offline"}`);

/** @param open Opens a node on a store that the others of the same test share, and no other test. */
export function eventsContract(
  test: (name: string, fn: () => Promise<void>) => void,
  open: (name: string, options?: NodeOptions) => Promise<EventNode>,
  newStore: () => Promise<void>,
): void {
  const it = (name: string, fn: () => Promise<void>) =>
    test(name, async () => {
      await newStore();
      await fn();
    });

  it("says at its start that nothing is known", async () => {
    await using node = await open("a");
    await node.store.note([], []);
    const entries = await node.drain();
    assertEquals(entries.map(({ type }) => type), ["users.unknown"]);
    assert(JSON.parse(entries[0]!.data).n > 0);
    await node.store.note([], []);
    assertEquals(await node.drain(), []);
  });

  it("tells the first socket of a user, and no second one", async () => {
    await using node = await open("a");
    assertEquals(await node.store.note(["alice", "bob"], []), true);
    assertEquals(said(await node.changes()), ["alice online", "bob online"]);
    assertEquals(await node.store.note(["alice"], []), false);
    assertEquals(await node.changes(), []);
  });

  it("tells who has gone when nobody listens any more, and not before", async () => {
    await using node = await open("a");
    const subscription = await node.subscribe("alice");
    await node.store.note(["alice"], []);
    await node.changes();
    await node.store.note([], ["alice"]);
    await until(() => node.store.settle(), "alice to be looked at");
    assertEquals(await node.changes(), []);
    await subscription.close();
    await node.store.note([], ["alice"]);
    await until(async () => await node.store.settle(), "alice to be looked at again");
    assertEquals(said(await node.changes()), ["alice offline"]);
    assertEquals(await node.store.settle(), false);
  });

  it("tells nothing of who is back in time, nor of who leaves without having been told", async () => {
    await using node = await open("a", { offlineAfterMs: 60_000 });
    await node.store.note(["alice"], ["alice", "carol"]);
    assertEquals(await node.store.settle(), false);
    await node.store.note(["alice"], []);
    assertEquals(await node.store.settle(), false);
    assertEquals(said(await node.changes()), ["alice online"]);
  });

  it("gives each change an n above all before it", async () => {
    await using node = await open("a");
    const users = Array.from({ length: MAX_CHANGES * 2 + 3 }, (_, i) => `user-${i}`);
    await node.store.note(users, users);
    const entries: Entry[] = [];
    await until(async () => {
      await node.store.settle();
      entries.push(...await node.drain());
      return changesOf(entries).length === users.length * 2;
    }, "all to be told online and offline");
    const changes = changesOf(entries);
    for (const { data, type } of entries) {
      if (type === "users.changed") assert(JSON.parse(data).changes.length <= MAX_CHANGES);
    }
    changes.reduce((before, { n }) => {
      assertLess(before, n);
      assert(Number.isSafeInteger(n));
      return n;
    }, 0);
  });

  it("looks at many who are due in several steps", async () => {
    await using node = await open("a");
    const users = Array.from({ length: MOST_DUE + 10 }, (_, i) => `user-${i}`);
    await node.store.note(users, users);
    const gone = new Set<string>();
    await until(async () => {
      await node.store.settle();
      for (const { user, online } of await node.changes()) if (!online) gone.add(user);
      return gone.size === users.length;
    }, "all to be told offline");
  });

  it("writes names of every letter", async () => {
    await using node = await open("a");
    const users = ['a"b\\c/d', "Zoë", "日本", "a:b:c", "😀"];
    await node.store.note(users, []);
    assertEquals((await node.changes()).map(({ user }) => user), users);
  });

  it("gives an entry to one of many, with the same id again when its hold is over", async () => {
    await using node = await open("a", { holdMs: 1 });
    await node.store.note(["alice"], []);
    const first = await node.store.take(10);
    assertEquals(first.entries.map(({ type }) => type), ["users.unknown", "users.changed"]);
    assertEquals(first.oldestMs, first.entries[0]!.atMs);
    let again: readonly Entry[] = [];
    await until(async () => (again = (await node.store.take(1)).entries).length > 0, "the hold to be over");
    assertEquals(again, first.entries.slice(0, 1));
  });

  it("gives nobody what is held, forgets what is done, and says how old the rest is", async () => {
    await using node = await open("a");
    await node.store.note(["alice"], []);
    const { entries } = await node.store.take(1);
    const rest = await node.store.take(10);
    assertNotEquals(rest.entries[0]!.id, entries[0]!.id);
    assertEquals((await node.store.take(10)).entries, []);
    for (const { id } of [...entries, ...rest.entries]) await node.store.done(id);
    assertEquals(await node.store.take(10), { entries: [], oldestMs: undefined, dropped: 0 });
  });

  it("puts off what is refused, and holds nobody else up", async () => {
    await using node = await open("a", { holdMs: 1 });
    await node.drain();
    await node.store.note(["alice"], []);
    const [entry] = (await node.store.take(1)).entries;
    await node.store.putOff(entry!.id);
    await node.store.note(["bob"], []);
    await until(
      async () => said(changesOf((await node.store.take(5)).entries)).includes("bob online"),
      "bob",
    );
    for (let i = 0; i < 5; i++) {
      assertEquals((await node.store.take(5)).entries.filter(({ id }) => id === entry!.id), []);
    }
  });
}
