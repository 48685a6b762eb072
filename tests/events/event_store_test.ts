/** The contract of events in memory and in one Redis, and what only Redis can meet: two nodes, lost and set back data. */
import { assertEquals, assertGreater, assertLess, assertNotEquals } from "@std/assert";
import { MAX_EVENTS } from "../../src/events/events.ts";
import { until } from "../../testkit/deadline.ts";
import { RedisServer } from "../../testkit/redis_server.ts";
import { RedisEventStore } from "../../src/events/redis_store.ts";
import { changesOf, EventNode, eventsContract } from "../contracts/events.ts";
import { asSteps } from "../contracts/steps.ts";
import { unackedContract } from "../contracts/unacked.ts";

Deno.test("Events in memory keep their contract", async (t) => {
  await asSteps(t, (test) =>
    eventsContract(
      test,
      (name, options) => Promise.resolve(new EventNode(undefined, name, options)),
      () => Promise.resolve(),
    ));
});

Deno.test("Messages that are watched in memory keep their contract", async (t) => {
  await asSteps(t, (test) =>
    unackedContract(
      test,
      (name, options) => Promise.resolve(new EventNode(undefined, name, options)),
      () => Promise.resolve(),
    ));
});

Deno.test("Messages that are watched in Redis keep their contract", async (t) => {
  await using redis = await RedisServer.start();
  await asSteps(t, (test) =>
    unackedContract(
      test,
      (name, options) => new EventNode(redis.url, name, options).ready(),
      async () => void await redis.cli("FLUSHALL"),
    ));
  for (const keys of [["unacked"], ["watched"], ["unacked", "watched"]]) {
    await t.step(`With ${keys.join(" and ")} evicted it is said that something is unknown`, async () => {
      await redis.cli("FLUSHALL");
      await using node = await new EventNode(redis.url, "a").ready();
      await node.store.tellUnacked();
      await node.store.watch({ token: "t", id: "m", ts: 1, afterMs: 3_600_000 }, ["alice", "bob"]);
      await node.store.unwatch("t", ["bob"]);
      assertEquals(await node.store.tellUnacked(), false);
      assertEquals((await node.drain()).map(({ type }) => type), ["users.unknown"], "the one of the start");
      await redis.cli("DEL", ...keys.map((key) => `userwire:{userwire:events}:${key}`));
      await node.store.watch({ token: "u", id: "m", ts: 1, afterMs: 1 }, ["carol"]);
      const told: string[] = [];
      await until(async () => {
        await node.store.tellUnacked();
        for (const { type, data } of await node.drain()) told.push(JSON.parse(data).user ?? type);
        return told.includes("carol");
      }, "what came later to be told");
      // Whose time alone was lost is told early.
      const expected = keys.includes("watched") ? [] : ["alice"];
      assertEquals(told.toSorted(), [...expected, "carol", "users.unknown"]);
      assertEquals(await node.store.tellUnacked(), false);
      assertEquals(await node.drain(), []);
    });
  }
  for (const isLost of [true, false]) {
    const name = isLost ? "is not there is said to be unknown" : "is there is no news";
    await t.step(`What a node noted at a master that others had left already, and ${name}`, async () => {
      await redis.cli("FLUSHALL");
      await using node = await new EventNode(redis.url, "a").ready();
      const { redis: scripts } = node.engine;
      const storeIn = (life: () => string) =>
        new RedisEventStore(
          {
            lifeAt: life,
            prepare: (...all) => scripts!.prepare(...all),
            evaluate: (...call) => scripts!.evaluate(...call),
          },
          {
            ...{ node: "a", channelPrefix: "", offlineAfterMs: 1, holdMs: 60_000, counted: "sockets" },
            counts: () => Promise.reject(new Error("Redis counts")),
          },
        );
      let life = "old";
      const late = storeIn(() => life);
      const other = storeIn(() => "new");
      await late.note([], []);
      const watch = () => late.watch({ token: "t", id: "m", ts: 1, afterMs: 3_600_000 }, ["zoe"]);
      if (!isLost) await watch();
      await other.note([], []);
      assertEquals((await other.take(10)).entries.map(({ type }) => type), [
        "users.unknown",
        "users.unknown",
      ]);
      if (isLost) {
        await watch();
        const keys = ["meta", "unacked", "watched"].map((key) => `userwire:{userwire:events}:${key}`);
        await redis.cli("DEL", ...keys.slice(1));
        await redis.cli("HSET", keys[0]!, "watched", "0");
      }
      life = "new";
      await late.tellUnacked();
      await late.tellUnacked();
      assertEquals((await other.take(10)).entries.map(({ type }) => type), isLost ? ["users.unknown"] : []);
    });
  }
  await t.step("What a node that died was to tell another tells, and nothing is left of it", async () => {
    await redis.cli("FLUSHALL");
    await using other = await new EventNode(redis.url, "b").ready();
    {
      await using dead = await new EventNode(redis.url, "a").ready();
      await dead.store.watch({ token: "t", id: "m", ts: 1, afterMs: 1 }, ["alice"]);
    }
    await until(() => other.store.tellUnacked(), "it to be told");
    assertEquals((await other.drain()).at(-1)!.data, '{"user":"alice","id":"m","ts":1,"sockets":0}');
    const keys = ["unacked", "watched"].map((name) => `userwire:{userwire:events}:${name}`);
    assertEquals(await redis.cli("EXISTS", ...keys), 0);
  });
});

Deno.test("Events in Redis keep their contract", async (t) => {
  await using redis = await RedisServer.start({ args: ["--enable-debug-command", "yes"] });
  await asSteps(t, (test) =>
    eventsContract(
      test,
      (name, options) => new EventNode(redis.url, name, options).ready(),
      async () => void await redis.cli("FLUSHALL"),
    ));
  await t.step("A user on two nodes is told once", async () => {
    await redis.cli("FLUSHALL");
    await using a = await new EventNode(redis.url, "a").ready();
    await using b = await new EventNode(redis.url, "b").ready();
    const there = await b.subscribe("alice");
    await a.store.note(["alice"], []);
    assertEquals(await b.store.note(["alice"], []), false);
    await a.store.note([], ["alice"]);
    await until(() => b.store.settle(), "alice to be looked at");
    assertEquals((await b.changes()).map(({ online }) => online), [true]);
    await there.close();
  });
  await t.step(
    "Users of a node that died are found, and those that are still there are not told",
    async () => {
      await redis.cli("FLUSHALL");
      await using node = await new EventNode(redis.url, "a").ready();
      await using other = await new EventNode(redis.url, "b").ready();
      const here = await other.subscribe("user-1");
      const users = Array.from({ length: 1_500 }, (_, i) => `user-${i}`);
      for (let i = 0; i < users.length; i += 250) await node.store.note(users.slice(i, i + 250), []);
      await node.changes();
      const gone = new Set<string>();
      await until(async () => {
        await other.store.sweep();
        await other.store.settle();
        for (const { user, online } of await other.changes()) if (!online) gone.add(user);
        return gone.size === users.length - 1;
      }, "all but one to be told offline");
      assertEquals(gone.has("user-1"), false);
      await here.close();
    },
  );
  await t.step("What a node took and did not carry goes to another", async () => {
    await redis.cli("FLUSHALL");
    await using dead = await new EventNode(redis.url, "a", { holdMs: 1 }).ready();
    await using other = await new EventNode(redis.url, "b", { holdMs: 1 }).ready();
    await dead.store.note(["alice"], []);
    const { entries } = await dead.store.take(10);
    await until(async () => (await other.store.take(10)).entries.length === entries.length, "the entries");
    assertEquals(await redis.cli("XLEN", "userwire:{userwire:events}:outbox"), 2);
  });
  await t.step("Data that was lost is said to be unknown, and n goes on above", async () => {
    await redis.cli("FLUSHALL");
    await using node = await new EventNode(redis.url, "a").ready();
    await node.store.note(["alice"], []);
    const [before] = await node.changes();
    // As if the clock of what comes now was far behind: the last n that was seen is ahead of it.
    await redis.cli("FLUSHALL");
    await node.store.note(["alice"], []);
    const entries = await node.drain();
    assertEquals(entries.map(({ type }) => type), ["users.unknown", "users.changed"]);
    assertGreater(changesOf(entries)[0]!.n, before!.n);
  });
  for (const key of ["told", "meta", "outbox"]) {
    await t.step(
      `With ${key} evicted all is unknown, who is here is told again, and who goes too`,
      async () => {
        await redis.cli("FLUSHALL");
        await using node = await new EventNode(redis.url, "a").ready();
        const here = await node.subscribe("alice");
        await node.store.note(["alice", "bob"], []);
        await node.changes();
        const life = node.store.life();
        await redis.cli("DEL", `userwire:{userwire:events}:${key}`);
        await node.store.settle();
        assertNotEquals(node.store.life(), life, "nodes hear that they must say again who is here");
        await node.store.note(["alice"], ["bob"]);
        await until(async () => await node.store.settle() || key === "told", "bob to be looked at");
        const entries = await node.drain();
        assertEquals(entries[0]!.type, "users.unknown");
        assertEquals(
          changesOf(entries).map(({ user, online }) => [user, online]),
          // Of whom nothing is known any more, nothing is said: the receiver has him offline already.
          [["alice", true], ...(key === "told" ? [] : [["bob", false]])],
        );
        await node.store.settle();
        assertEquals(await node.drain(), [], "it is said once");
        await here.close();
      },
    );
  }
  await t.step("Older data that is put back makes all unknown again, though it was said in it", async () => {
    await redis.cli("FLUSHALL");
    await using node = await new EventNode(redis.url, "a").ready();
    await node.store.note([], []);
    await redis.cli("HSET", "userwire:{userwire:events}:meta", "life", "another");
    await node.store.note([], []);
    const entries = await node.drain();
    assertEquals(entries.map(({ type }) => type), ["users.unknown", "users.unknown"]);
    assertLess(JSON.parse(entries[0]!.data).n, JSON.parse(entries[1]!.data).n);
  });
  await t.step("So does older data that is loaded into a Redis that goes on", async () => {
    await redis.cli("FLUSHALL");
    await using node = await new EventNode(redis.url, "a").ready();
    await node.store.note(["alice"], []);
    await redis.cli("SAVE");
    await node.store.note(["bob"], []);
    const before = await node.drain();
    await redis.cli("DEBUG", "RELOAD", "NOSAVE");
    await node.store.note(["bob"], []);
    const after = (await node.drain()).filter(({ id }) => !before.some((one) => one.id === id));
    assertEquals(after.map(({ type }) => type), ["users.unknown", "users.changed"]);
    assertGreater(changesOf(after)[0]!.n, changesOf(before).at(-1)!.n);
    await node.store.settle();
    assertEquals(await node.drain(), [], "it is said once");
  });
  await t.step("Data that lost all but the outbox goes on above its entries", async () => {
    await redis.cli("FLUSHALL");
    await redis.cli(
      "XADD",
      "userwire:{userwire:events}:outbox",
      "2000000000000-5",
      "type",
      "x",
      "data",
      "{}",
    );
    await using node = await new EventNode(redis.url, "a").ready();
    await node.store.note(["alice"], []);
    const changes = changesOf((await node.store.take(10)).entries);
    assertEquals(changes.map(({ n }) => n), [2_000_000_000_000 * 4096 + 7]);
  });
  await t.step(
    "An outbox that is full drops the oldest, says how many, and that something is unknown",
    async () => {
      await redis.cli("FLUSHALL");
      await using node = await new EventNode(redis.url, "a").ready();
      await redis.cli(
        "EVAL",
        `for i = 1, ${MAX_EVENTS} do redis.call('XADD', KEYS[1], '1-' .. i, 'type', 'x', 'data', '{}') end`,
        "1",
        "userwire:{userwire:events}:outbox",
      );
      await redis.cli("HSET", "userwire:{userwire:events}:meta", "n", "5000", "epoch", "1");
      await node.store.note(["alice"], []);
      const { entries, dropped } = await node.store.take(10);
      // Full by one, and those of 1970 are too old besides.
      assertEquals(dropped, MAX_EVENTS);
      assertEquals(entries.map(({ type }) => type), ["users.unknown", "users.changed"]);
    },
  );
});
