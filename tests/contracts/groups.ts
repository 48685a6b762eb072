/** What every keeper of groups must do: the guarantees of `src/groups/groups.ts`. Declared as `historyContract` is. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { GroupChange, GroupChanged, Groups } from "../../src/groups/groups.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { Chance } from "../../testkit/random.ts";
import { type ContractOptions, numbers } from "./history.ts";

export interface GroupsUnderTest {
  readonly groups: Groups;
  /** Others on the same store; left out where there can be none. */
  readonly peer?: Groups;
  dispose(): Promise<void>;
}

const TEST_MS = 30_000;

export function groupsContract(
  name: string,
  open: () => Promise<GroupsUnderTest>,
  options: ContractOptions = {},
): void {
  const declare = options.test ?? Deno.test;

  interface Bench extends Required<GroupsUnderTest> {
    readonly g: string;
    change(change: Partial<GroupChange>, group?: string): Promise<GroupChanged>;
    members(pageSize?: number): Promise<string[]>;
  }

  function test(claim: string, body: (t: Bench) => Promise<void>): void {
    declare(`${name} ${claim}`, async () => {
      const under = await open();
      const g = `team-${crypto.randomUUID()}`;
      const { groups } = under;
      const bench: Bench = {
        peer: groups,
        ...under,
        g,
        change: (change, group = g) => groups.change(group, { maxUsers: 100, ...change }),
        async members(pageSize = 100) {
          const names: string[] = [];
          for (let after = "";;) {
            const page = await groups.page(g, after, pageSize);
            names.push(...page?.names ?? []);
            if (!page?.hasMore) return names;
            after = page.names.at(-1)!;
          }
        },
      };
      try {
        await withDeadline(body(bench), TEST_MS, "the test to end");
      } finally {
        await under.dispose();
      }
    });
  }

  test("counts who was added and removed, once each", async (t) => {
    const first = await t.change({ add: ["alice", "bob"] });
    assert(first.outcome === "changed");
    assertEquals([first.added, first.removed, first.users], [2, 0, 2]);
    const same = await t.change({ add: ["bob"], remove: ["nobody"] });
    assertEquals(same, { outcome: "changed", added: 0, removed: 0, users: 2, version: first.version });
    const both = await t.change({ add: ["carol"], remove: ["alice"] });
    assert(both.outcome === "changed" && both.version > first.version);
    assertEquals([both.added, both.removed, both.users], [1, 1, 2]);
    assertEquals(await t.members(), ["bob", "carol"]);
    const state = await t.peer.page(t.g, "", 0);
    assertEquals([state?.users, state?.version, state?.names, state?.hasMore], [2, both.version, [], true]);
  });

  test("knows no group that has no users, and makes it anew in another epoch", async (t) => {
    assertEquals(await t.groups.page(t.g, "", 10), undefined);
    const removed = await t.change({ remove: ["alice"] });
    assertEquals(removed, { outcome: "changed", added: 0, removed: 0, users: 0, version: 0 });
    await t.change({ add: ["alice"] });
    const before = await t.groups.page(t.g, "", 10);
    assertEquals((await t.change({ remove: ["alice"] }) as { version: number }).version, 0);
    assertEquals(await t.groups.page(t.g, "", 10), undefined);
    await t.change({ add: ["alice"] });
    const after = await t.groups.page(t.g, "", 10);
    assertNotEquals(after!.epoch, before!.epoch);
    assert(after!.version > before!.version);
    assertEquals(await t.groups.delete(t.g), 1);
    assertEquals(await t.groups.delete(t.g), 0);
    assertEquals(await t.groups.page(t.g, "", 10), undefined);
  });

  test("replaces all users in one step, in the version that is expected", async (t) => {
    const { version } = await t.change({ add: ["alice", "bob"] }) as { version: number };
    assertEquals(await t.change({ replace: ["carol"], ifVersion: version - 1 }), {
      outcome: "stale",
      version,
    });
    assertEquals(await t.change({ replace: ["carol"], ifVersion: 0 }), { outcome: "stale", version });
    const replaced = await t.change({ replace: ["bob", "carol"], ifVersion: version });
    assert(replaced.outcome === "changed");
    assertEquals([replaced.added, replaced.removed, replaced.users], [1, 1, 2]);
    assertEquals((await t.change({ replace: ["dave"], ifVersion: version })).outcome, "stale");
    assertEquals(await t.members(), ["bob", "carol"]);
    assertEquals((await t.change({ replace: [] }) as { users: number }).users, 0);
    assertEquals(await t.groups.page(t.g, "", 10), undefined);
    assertEquals((await t.change({ replace: ["erin"], ifVersion: 0 })).outcome, "changed");
  });

  test("lets no group become larger than it may, and a smaller limit take users out", async (t) => {
    assertEquals(await t.change({ replace: ["a", "b", "c"], maxUsers: 2 }), { outcome: "full", users: 3 });
    assertEquals(await t.groups.page(t.g, "", 10), undefined);
    await t.change({ add: ["a", "b"], maxUsers: 2 });
    assertEquals(await t.change({ add: ["b", "c"], maxUsers: 2 }), { outcome: "full", users: 3 });
    assertEquals((await t.change({ add: ["c"], remove: ["a"], maxUsers: 2 })).outcome, "changed");
    assertEquals((await t.change({ remove: ["b"], maxUsers: 0 }) as { users: number }).users, 1);
    assertEquals(await t.members(), ["c"]);
  });

  test("pages through all users, each once, whoever joins or leaves meanwhile", async (t) => {
    const names = numbers(1, 25).map((n) => `user-${100 + n}`);
    await t.change({ add: [...names, "ümit", "日本", "@at", '","data":"'] });
    for (const size of [1, 7, 28, 29, 30]) {
      assertEquals(
        (await t.members(size)).toSorted(),
        [...names, "ümit", "日本", "@at", '","data":"'].sort(),
      );
    }
    const first = (await t.groups.page(t.g, "", 10))!;
    await t.change({ remove: [first.names.at(-1)!, first.names[0]!], add: ["a-new-one"] });
    const second = (await t.groups.page(t.g, first.names.at(-1)!, 100))!;
    assertEquals(new Set([...first.names, ...second.names]).size, first.names.length + second.names.length);
    assertEquals([...first.names, ...second.names].filter((one) => names.includes(one)).length, 25);
  });

  test("says in which groups a user is, and in no other", async (t) => {
    const user = `user-${t.g}`;
    assertEquals(await t.groups.of(user), []);
    await Promise.all(numbers(1, 70).map((n) => t.change({ add: [user, "bob"] }, `${t.g}-${100 + n}`)));
    assertEquals(await t.peer.of(user), numbers(1, 70).map((n) => `${t.g}-${100 + n}`));
    for (const n of numbers(2, 69)) await t.change({ remove: [user] }, `${t.g}-${100 + n}`);
    await t.groups.delete(`${t.g}-101`);
    assertEquals(await t.groups.of(user), [`${t.g}-170`]);
    await t.change({ replace: ["bob"] }, `${t.g}-170`);
    assertEquals(await t.groups.of(user), []);
  });

  test("is as a set of names under any changes, whoever makes them", (t) =>
    Chance.run(async (chance) => {
      const pick = () => numbers(1, 12).filter(() => chance.below(10) < 3).map((n) => `u${n}`);
      const model = new Set<string>();
      let version = 0;
      for (const n of numbers(1, 60)) {
        const groups = n % 2 ? t.groups : t.peer;
        const add = pick(), remove = pick().filter((name) => !add.includes(name));
        const isReplacement = chance.below(10) < 3;
        const change = isReplacement ? { replace: add } : { add, remove };
        const wanted = isReplacement
          ? new Set(add)
          : new Set([...model, ...add].filter((name) => !remove.includes(name)));
        const added = [...wanted].filter((name) => !model.has(name)).length;
        const removed = [...model].filter((name) => !wanted.has(name)).length;
        model.clear();
        for (const name of wanted) model.add(name);
        const changed = await groups.change(t.g, { ...change, maxUsers: 100 });
        assert(changed.outcome === "changed");
        assertEquals([changed.added, changed.removed, changed.users], [added, removed, wanted.size]);
        assert(changed.version > version || changed.version === 0 || added + removed === 0);
        version = Math.max(version, changed.version);
        assertEquals((await t.members(5)).toSorted(), [...wanted].sort());
      }
    }));
}
