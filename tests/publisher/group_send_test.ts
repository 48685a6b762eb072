/** Sends to groups in Redis: what breaks off in the middle, what several do at one time, and what is left of it. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  BrokerUnavailableError,
  GroupNotFoundError,
  GroupSendBrokenError,
} from "../../src/protocol/errors.ts";
import { until } from "../../testkit/deadline.ts";
import { GroupPublisher, names } from "../../testkit/group_calls.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

const KEY = { idempotencyKey: "k1" };
/** Five pages. */
const MEMBERS = names(450);

/** A send that got no further: as of a process that was killed. */
function killed(): Promise<never> {
  return new Promise(() => {});
}

redisTest(
  "A send to a group that was killed after page 3 of 5 is gone on with: each user has it once",
  async () => {
    await using redis = await RedisServer.start();
    await using first = await GroupPublisher.open(redis.url);
    await using second = await GroupPublisher.open(redis.url);
    await first.group("team", MEMBERS, ["a-user-never-seen"]);
    const reached = Promise.withResolvers<void>();
    // Its answer never comes: it is done all the same.
    first.afterPage = (page) => page === 3 ? (reached.resolve(), killed()) : undefined;
    void first.publisher.sendToGroup("team", { order: 7 }, KEY);
    await reached.promise;
    const middle = await second.histories(MEMBERS);
    assertEquals(middle.filter(({ last }) => last === 1).length, 299);
    const result = await second.publisher.sendToGroup("team", { order: 7 }, KEY);
    assertEquals([result.users, result.stored, result.unknown, result.repeated], [450, 450, 1, undefined]);
    const histories = await second.histories(MEMBERS);
    assertEquals(new Set(histories.map(({ ids }) => ids.join())), new Set([result.id]));
    assertEquals(await second.publisher.sendToGroup("team", { order: 7 }, KEY), {
      ...result,
      repeated: true,
    });
  },
);

redisTest("Two senders with one key, and more beside them, send to each user of a group once", async () => {
  await using redis = await RedisServer.start();
  await using first = await GroupPublisher.open(redis.url);
  await using second = await GroupPublisher.open(redis.url);
  await first.group("team", MEMBERS);
  const results = await Promise.all(
    [first, second, first, second].map(({ publisher }) => publisher.sendToGroup("team", 1, KEY)),
  );
  assertEquals(new Set(results.map(({ id, users, stored }) => `${id} ${users} ${stored}`)).size, 1);
  for (const { last, ids } of await first.histories(MEMBERS)) {
    assertEquals([last, ids], [1, [results[0]!.id]]);
  }
  await assertRejects(() => second.publisher.sendToGroup("team", 2, KEY), Error, "another message");
});

for (
  const [why, refuse, allow] of [
    ["is full", ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]],
    ["misses its replicas", ["CONFIG", "SET", "min-replicas-to-write", "1"], [
      "CONFIG",
      "SET",
      "min-replicas-to-write",
      "0",
    ]],
  ] as const
) {
  redisTest(
    `A send to a group breaks off between two pages when Redis ${why}, and a retry goes on after them`,
    async () => {
      await using redis = await RedisServer.start();
      await using t = await GroupPublisher.open(redis.url);
      await t.group("team", MEMBERS);
      t.beforePage = async (page) => void (page === 3 && await redis.cli(...refuse));
      const broken = await t.publisher.sendToGroup("team", 1, KEY).catch((error) => error);
      assert(broken instanceof GroupSendBrokenError, String(broken));
      assertEquals([broken.done, broken.of, broken.outcome], [200, 450, "unknown"]);
      assertMatch(
        broken.message,
        /; 200 of 450 members are done with, a retry with the same idempotency key goes on/,
      );
      await redis.cli(...allow);
      assertEquals((await t.histories(MEMBERS)).filter(({ last }) => last === 1).length, 200);
      const result = await t.publisher.sendToGroup("team", 1, KEY);
      assertEquals([result.users, result.stored], [450, 450]);
      for (const { ids } of await t.histories(MEMBERS)) assertEquals(ids, [result.id]);
      // Without a key nobody can go on with it, and nothing stays.
      await t.publisher.sendToGroup("team", 2);
      const keys = await redis.cli("KEYS", "userwire:{userwire:group:team}:key:*") as string[];
      assertEquals(keys, ["userwire:{userwire:group:team}:key:k1"]);
    },
  );
}

redisTest(
  "A send to a group that meets a replica in the middle breaks off, and is gone on with",
  async () => {
    await using redis = await RedisServer.start();
    await using t = await GroupPublisher.open(redis.url);
    await t.group("team", MEMBERS);
    t.beforePage = async (page) => void (page === 2 && await redis.cli("REPLICAOF", "127.0.0.1", "1"));
    const broken = await t.publisher.sendToGroup("team", 1, KEY).catch((error) => error);
    assert(broken instanceof GroupSendBrokenError, String(broken));
    assertEquals([broken.done, broken.of], [100, 450]);
    await redis.cli("REPLICAOF", "NO", "ONE");
    await until(() => t.engine.broker.unavailable() === undefined, "Redis to be used again");
    const result = await t.publisher.sendToGroup("team", 1, KEY);
    assertEquals(result.users, 450);
    for (const { last } of await t.histories(MEMBERS)) assertEquals(last, 1);
  },
);

redisTest(
  "A send to a group that Redis loses in the middle says so, and then there is no such group",
  async () => {
    await using redis = await RedisServer.start();
    await using t = await GroupPublisher.open(redis.url);
    await t.group("team", MEMBERS);
    t.beforePage = async (page) => void (page === 2 && await redis.cli("FLUSHALL"));
    const broken = await t.publisher.sendToGroup("team", 1, KEY).catch((error) => error);
    assert(broken instanceof GroupSendBrokenError, String(broken));
    assertMatch(broken.message, /^Redis has .*; 100 of 450 members/);
    await assertRejects(() => t.publisher.sendToGroup("team", 1, KEY), GroupNotFoundError);
  },
);

redisTest(
  "A group that goes away in the middle of a send has not been sent to, and is gone on with when it is put again",
  async () => {
    await using redis = await RedisServer.start();
    await using t = await GroupPublisher.open(redis.url);
    await t.group("team", MEMBERS);
    const members = "userwire:{userwire:group:team}:members";
    t.afterPage = async (page) => void (page === 2 && await redis.cli("DEL", members));
    const broken = await t.publisher.sendToGroup("team", 1, KEY).catch((error) => error);
    assert(broken instanceof GroupSendBrokenError, String(broken));
    assertEquals([broken.done, broken.of], [200, 450]);
    assertMatch(broken.message, /^The group was deleted, or lost .*; 200 of 450 members/);
    await assertRejects(() => t.publisher.sendToGroup("team", 1, KEY), GroupNotFoundError);
    await t.publisher.groups.put("team", MEMBERS);
    const result = await t.publisher.sendToGroup("team", 1, KEY);
    assertEquals([result.users, result.stored], [450, 450]);
    for (const { last } of await t.histories(MEMBERS)) assertEquals(last, 1);
  },
);

redisTest("A member whose keys another program holds is counted, and the others have theirs", async () => {
  await using redis = await RedisServer.start();
  await using t = await GroupPublisher.open(redis.url);
  await t.group("team", names(5));
  await redis.cli("SET", `userwire:{${names(5)[1]}}:inbox`, "theirs");
  const { id: _, ...result } = await t.publisher.sendToGroup("team", 1);
  assertEquals(result, { users: 4, online: 0, sockets: 0, stored: 4, unknown: 0, failed: 1 });
  assertEquals((await t.histories([names(5)[4]!]))[0]!.last, 1);
});

redisTest("Sends to groups on a cluster", async (t) => {
  await using cluster = await ClusterSet.start();
  await t.step("with one key at one time from two nodes send to each user once", async () => {
    await using first = await GroupPublisher.open(cluster.url);
    await using second = await GroupPublisher.open(cluster.url);
    const members = names(650, "twice");
    await first.group("twice", members);
    const both = [first, second].map(({ publisher }) => publisher.sendToGroup("twice", 1, KEY));
    const [one, other] = await Promise.all(both);
    assertEquals([one!.id, one!.users, other!.id, other!.users], [one!.id, 650, one!.id, 650]);
    for (const { last } of await first.histories(members)) assertEquals(last, 1);
  });

  await t.step(
    "go on after a master that took nothing for a moment, with those of the page it had not reached",
    async () => {
      await using first = await GroupPublisher.open(cluster.url);
      const members = names(650, "full");
      await first.group("full", members);
      const [, full] = await cluster.masters();
      first.beforePage = async (page) =>
        void (page === 2 && await full!.server.cli("CONFIG", "SET", "maxmemory", "1"));
      first.afterPage = async (page) =>
        void (page === 2 && await full!.server.cli("CONFIG", "SET", "maxmemory", "0"));
      const result = await first.publisher.sendToGroup("full", 1, KEY);
      assertEquals([result.users, result.stored], [650, 650]);
      for (const { last } of await first.histories(members)) assertEquals(last, 1);
    },
  );

  await t.step("that were broken off go on with those of the page that were not reached", async () => {
    await using first = await GroupPublisher.open(cluster.url);
    const members = names(650, "broken");
    await first.group("broken", members);
    const [, full] = await cluster.masters();
    let failed = 0;
    first.beforePage = async (page) => {
      if (page === 2) await full!.server.cli("CONFIG", "SET", "maxmemory", "1");
      // It is tried again with those whose master is full, until its sender has no more time.
      if (page > 2 && ++failed === 2) {
        throw new BrokerUnavailableError("No more time", { outcome: "unknown" });
      }
    };
    const broken = await first.publisher.sendToGroup("broken", 1, KEY).catch((error) => error);
    assert(
      broken instanceof GroupSendBrokenError && broken.done > 300 && broken.done < 600,
      String(broken.message),
    );
    await full!.server.cli("CONFIG", "SET", "maxmemory", "0");
    await using second = await GroupPublisher.open(cluster.url);
    const result = await second.publisher.sendToGroup("broken", 1, KEY);
    assertEquals([result.users, result.stored], [650, 650]);
    for (const { last } of await second.histories(members)) assertEquals(last, 1);
  });

  await t.step(
    "whose slots move meanwhile reach each user once, and a killed one is gone on with",
    async () => {
      await using first = await GroupPublisher.open(cluster.url);
      await using second = await GroupPublisher.open(cluster.url);
      const members = names(650, "moved");
      await first.group("moved", members);
      const [from, to] = await cluster.masters() as [
        Awaited<ReturnType<typeof cluster.masters>>[0],
        Awaited<ReturnType<typeof cluster.masters>>[0],
      ];
      const slots: number[] = [];
      for (const member of members.filter((_, i) => i % 25 === 0)) {
        const slot = await cluster.slotOf(member);
        if ((await cluster.keeperOf(slot)).id === from.id && !slots.includes(slot)) slots.push(slot);
      }
      const reached = Promise.withResolvers<void>();
      const sender = first;
      sender.beforePage = async (page) => {
        if (page === 2) await cluster.move(slots, from, to);
        if (page >= 3 && page < 1_000) {
          reached.resolve();
          await killed();
        }
      };
      void sender.publisher.sendToGroup("moved", 1, KEY).catch(() => {});
      await reached.promise;
      const result = await second.publisher.sendToGroup("moved", 1, KEY);
      assertEquals([result.users, result.stored], [650, 650]);
      for (const { last, ids } of await second.histories(members)) {
        assertEquals([last, ids], [1, [result.id]]);
      }
    },
  );
});
