/**
 * Sending is one step that is done whole or not at all: whatever keeps it from its end, nobody has heard of the message,
 * nothing of it stays, and the answer says so. What is repaired goes on where it was.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import type { History } from "../../src/history/history.ts";
import { payloadOf } from "../../src/protocol/envelope.ts";
import { inList, outgoing, placeOf, seqsOf, textsOf } from "../contracts/history.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { numbers } from "../../testkit/nodes.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

type Commands = readonly (readonly string[])[];

interface Failure {
  readonly fail: Commands;
  readonly repair: Commands;
  /** Whether the first send of all fails, too. */
  readonly newcomer?: boolean;
}

const without = (...rights: string[]): Failure => ({
  fail: [["ACL", "SETUSER", "default", ...rights.map((right) => `-${right}`)]],
  repair: [["ACL", "SETUSER", "default", ...rights.map((right) => `+${right}`)]],
});

const FAILURES: Record<string, Failure> = {
  "without the right to add": without("xadd"),
  "without the right to publish": without("publish"),
  "without the right to set": without("hset"),
  "without the right to let keys end": without("pexpire"),
  "with something else in the place of the history": {
    fail: [["RENAME", "userwire:{alice}:inbox", "kept"], [
      "SET",
      "userwire:{alice}:inbox",
      "oops",
      "PX",
      "60000",
    ]],
    repair: [["DEL", "userwire:{alice}:inbox"], ["RENAME", "kept", "userwire:{alice}:inbox"]],
  },
  "with something else in the place of the counter": {
    fail: [["RENAME", "userwire:{alice}:position", "kept"], [
      "SET",
      "userwire:{alice}:position",
      "oops",
      "PX",
      "60000",
    ]],
    repair: [["DEL", "userwire:{alice}:position"], ["RENAME", "kept", "userwire:{alice}:position"]],
  },
  "with something else in the place of the idempotency key": {
    fail: [["SET", "userwire:{alice}:key:k", "oops", "PX", "60000"]],
    repair: [["DEL", "userwire:{alice}:key:k"]],
  },
};

async function open(redis: RedisServer, history = 5): Promise<Engine> {
  const engine = openEngine({ redisUrl: redis.url, history });
  await connected(engine);
  return engine;
}

async function run(redis: RedisServer, commands: Commands): Promise<void> {
  for (const command of commands) await redis.cli(...command);
}

/** The looks at Redis, which go on by themselves, may have been refused like the appends. */
async function isServed({ broker }: Engine): Promise<void> {
  await until(() => broker.unavailable() === undefined, "Redis to be used again");
}

async function assertEnds(redis: RedisServer): Promise<void> {
  for (const key of await redis.cli("KEYS", "*") as string[]) {
    assert(Number(await redis.cli("PTTL", key)) !== -1, `${key} stays for ever`);
  }
}

const WAYS = { "": (history: History) => history, "in a list ": inList };

for (const [why, { fail, repair }] of Object.entries(FAILURES)) {
  for (const [how, way] of Object.entries(WAYS)) {
    redisTest(`A send ${how}that fails ${why} is as if it had never been`, async () => {
      await using redis = await RedisServer.start();
      await using stack = new AsyncDisposableStack();
      const ours = await open(redis);
      stack.defer(() => ours.close());
      const recorder = new Recorder();
      const subscription = await ours.broker.subscribe("alice", recorder);
      stack.defer(() => subscription.close());
      const history = way(ours.history);
      const append = (text: string) =>
        history.append("alice", outgoing(text), { idempotency: { key: "k", fingerprint: "f" } });
      let place = { epoch: "", seq: 0 };
      for (const n of numbers(1, 5)) place = placeOf(await history.append("alice", outgoing(`${n}`)));

      await run(redis, fail);
      for (const _ of numbers(1, 7)) {
        const { outcome } = await assertRejects(() => append("6"), BrokerUnavailableError);
        assertEquals(outcome, "refused");
        await assertEnds(redis);
      }
      assertEquals(await redis.cli("HGET", "userwire:{alice}:key:k", "id").catch(() => null), null);
      await run(redis, repair);
      await isServed(ours);
      assertEquals(textsOf(await ours.history.since("alice", 0, 10)), ["1", "2", "3", "4", "5"]);
      const appended = await append("6");
      assertEquals([appended.outcome, placeOf(appended)], ["appended", { ...place, seq: 6 }]);
      await recorder.received(6);
      assertEquals(textsOf(await ours.history.since("alice", 0, 10)), ["2", "3", "4", "5", "6"]);
      await assertEnds(redis);
    });

    redisTest(`The first send of all ${how}to a user leaves nothing when it fails ${why}`, async () => {
      await using redis = await RedisServer.start();
      const ours = await open(redis);
      try {
        if (fail.some(([name]) => name === "RENAME")) return;
        await run(redis, fail);
        const idempotency = { key: "k", fingerprint: "f" };
        await assertRejects(
          () => way(ours.history).append("alice", outgoing("1"), { idempotency }),
          BrokerUnavailableError,
        );
        await run(redis, repair);
        await isServed(ours);
        assertEquals(await redis.cli("KEYS", "*{alice}*"), []);
        assertEquals(placeOf(await way(ours.history).append("alice", outgoing("1"), { idempotency })).seq, 1);
      } finally {
        await ours.close();
      }
    });
  }
}

for (const [how, way] of Object.entries(WAYS)) {
  redisTest(`A send ${how}that can't be undone says that it may have happened`, async () => {
    await using redis = await RedisServer.start();
    const ours = await open(redis);
    try {
      await ours.history.append("alice", outgoing("1"));
      await redis.cli("ACL", "SETUSER", "default", "-publish", "-xdel", "-del");
      const { outcome } = await assertRejects(
        () => way(ours.history).append("alice", outgoing("2")),
        BrokerUnavailableError,
      );
      assertEquals(outcome, "unknown");
      await assertEnds(redis);
      await redis.cli("ACL", "SETUSER", "default", "+publish", "+xdel", "+del");
      await isServed(ours);
      // What stayed has its number, or gave it back: either way the next ones come after it, each once.
      await ours.history.append("alice", outgoing("3"));
      const page = await ours.history.since("alice", 0, 10);
      assertEquals(new Set(seqsOf(page)).size, page.items.length);
      assertEquals([textsOf(page)[0], textsOf(page).at(-1)], ["1", "3"]);
    } finally {
      await ours.close();
    }
  });
}

redisTest(
  "What fails for one user of a list is as if it had never been, and the others have theirs",
  async () => {
    await using redis = await RedisServer.start();
    const ours = await open(redis);
    const users = ["alice", "bob", "carol", "dora", "eve", "fay"];
    const send = async (text: string) => {
      const results = await ours.history.appendToAll(users, outgoing(text), {
        idempotency: { key: text, fingerprint: "f" },
      });
      return results.map((result) =>
        result.status === "fulfilled"
          ? placeOf(result.value).seq
          : (result.reason as BrokerUnavailableError).outcome
      );
    };
    try {
      assertEquals(await send("1"), [1, 1, 1, 1, 1, 1]);
      const spoilt = ["userwire:{bob}:inbox", "userwire:{eve}:position"];
      for (const key of spoilt) {
        await run(redis, [["RENAME", key, `kept ${key}`], ["SET", key, "oops", "PX", "60000"]]);
      }
      const channels = users.filter((user) => user !== "dora").map((user) => `&${user}`);
      await redis.cli("ACL", "SETUSER", "default", "resetchannels", ...channels);
      assertEquals(await send("2"), [2, "refused", 2, "refused", "refused", 2]);
      for (const key of spoilt) await run(redis, [["DEL", key], ["RENAME", `kept ${key}`, key]]);
      await redis.cli("ACL", "SETUSER", "default", "allchannels");
      await isServed(ours);
      // With the same key: who had it has it once.
      assertEquals(await send("2"), [2, 2, 2, 2, 2, 2]);
      for (const user of users) assertEquals(textsOf(await ours.history.since(user, 0, 10)), ["1", "2"]);
      await assertEnds(redis);
    } finally {
      await ours.close();
    }
  },
);

redisTest(
  "Redis fills up under sends: each is done whole, or nothing of it and the answer says so",
  async () => {
    await using redis = await RedisServer.start({ args: ["--maxmemory-policy", "noeviction"] });
    await using stack = new AsyncDisposableStack();
    const ours = await open(redis, 100);
    stack.defer(() => ours.close());
    const recorder = new Recorder();
    const subscription = await ours.broker.subscribe("alice", recorder);
    stack.defer(() => subscription.close());
    const pad = "x".repeat(2_000);
    const append = (n: number, user = "alice") =>
      ours.history.append(user, outgoing(`${n} ${pad}`), { idempotency: { key: `${n}`, fingerprint: "f" } });
    const { epoch } = placeOf(await append(1));
    const used = Number(/used_memory:(\d+)/.exec(await redis.info("memory"))![1]);
    await redis.cli("CONFIG", "SET", "maxmemory", used + 200_000);

    const accepted = [1];
    const refused: number[] = [];
    // Many at one time, so that memory ends between the first and the last of them.
    for (let n = 2; refused.length < 50; n += 10) {
      await Promise.all(
        numbers(n, n + 9).map(async (n) => {
          try {
            const { seq } = placeOf(await append(n));
            accepted.push(n);
            assertEquals(seq, accepted.length);
          } catch (error) {
            assertEquals((error as BrokerUnavailableError).outcome, "refused");
            refused.push(n);
          }
        }),
      );
    }
    assert(accepted.length > 10, "It was full at once");
    // What Redis itself takes and gives back may have made room for a small one.
    await redis.cli("CONFIG", "SET", "maxmemory", used);
    await assertRejects(() => append(1, "newcomer"), BrokerUnavailableError);
    assertEquals(await redis.cli("KEYS", "*newcomer*"), []);
    await assertEnds(redis);

    await redis.cli("CONFIG", "SET", "maxmemory", 0);
    const take = () => ours.history.since("alice", 0, 1_000).catch(() => undefined);
    await until(async () => await take() !== undefined, "Redis to be there again");
    const nOf = (text: unknown) => Number(String(text).split(" ")[0]);
    const kept = await ours.history.since("alice", 0, 1_000);
    assertEquals([kept.epoch, kept.last], [epoch, accepted.length]);
    assertEquals(textsOf(kept).map(nOf), accepted.slice(-100));
    await recorder.received(accepted.length);
    assertEquals(recorder.payloads.map((envelope) => nOf(payloadOf(envelope as string))), accepted);
    // No key of a refused one was left behind, and those of the accepted are known.
    assertEquals((await append(accepted.at(-1)!)).outcome, "repeated");
    const again = await append(refused[0]!);
    assertEquals([again.outcome, placeOf(again)], ["appended", { epoch, seq: accepted.length + 1 }]);
    await recorder.received(accepted.length + 1);
    assertEquals(recorder.payloads.length, accepted.length + 1);
  },
);

redisTest("A list that meets a replica is refused, and the connection is left at once", async () => {
  await using redis = await RedisServer.start();
  await using other = await RedisServer.start();
  const ours = await open(redis);
  try {
    await ours.history.append("alice", outgoing("1"));
    // The first append lets the server be looked at, too: with that this connection might be left before the list is read.
    const marks = async () => await redis.cli("KEYS", "*:mark:*") as string[];
    await until(async () => (await marks()).length === 1, "the server to be looked at");
    await redis.cli("REPLICAOF", "127.0.0.1", `${other.port}`);
    // Refused one by one, or, once the replica has taken over the other's data, all at once.
    const reasons = await ours.history.appendToAll(["alice", "bob"], outgoing("2")).then(
      (results) => results.map((result) => result.status === "rejected" ? result.reason : undefined),
      (reason) => [reason],
    );
    for (const reason of reasons) {
      assert(reason instanceof BrokerUnavailableError);
      assertEquals(reason.outcome, "refused");
    }
    assertMatch(ours.broker.unavailable() ?? "", /replica/);
  } finally {
    await ours.close();
  }
});

redisTest("A key that can't be claimed is not claimed, and no key stays for ever", async () => {
  await using redis = await RedisServer.start();
  const ours = await open(redis);
  try {
    let refusals = 0;
    for (const right of ["get", "set", "hmget", "hset", "pexpire"]) {
      await redis.cli("ACL", "SETUSER", "default", `-${right}`);
      const outcome = await ours.history.claim("", { key: right, fingerprint: "first" })
        .catch((error) => error);
      await assertEnds(redis);
      await redis.cli("ACL", "SETUSER", "default", `+${right}`);
      await isServed(ours);
      if (outcome === true) continue;
      refusals++;
      assertEquals((outcome as BrokerUnavailableError).outcome, "refused");
      assertEquals(await ours.history.claim("", { key: right, fingerprint: "second" }), true);
    }
    assert(refusals > 0, "Redis refused nothing");
  } finally {
    await ours.close();
  }
});
