/**
 * Resume and repair while messages flow, and what is found although nothing came after it. Raw clients, which can't be
 * told, are in the log.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import { formatEnvelope } from "../../src/protocol/envelope.ts";
import { until } from "../../testkit/deadline.ts";
import { type Accepted, Follower } from "../../testkit/follower.ts";
import { HeldSeconds } from "../../testkit/held_timers.ts";
import { nodesTest, numbers, send } from "../../testkit/nodes.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onRedis } = nodesTest("Resume");

/** A client that is further behind than a replay holds, which is 300 messages, rightly gets a gap. */
const MAX_BEHIND = 200;

function url(service: Service): string {
  return service.socketUrl("alice");
}

everywhere(
  "loses, repeats and reorders nothing over 50 reconnects while messages flow",
  async ({ here, there }) => {
    await using alice = await Follower.open(url(here));
    const accepted: Accepted[] = [];
    let isDone = false;
    const sending = (async () => {
      for (let n = 1; !isDone; n++) {
        await alice.until(() => n - alice.messages.length < MAX_BEHIND, "alice to catch up");
        accepted.push(await send(n % 2 === 0 ? here : there, n));
        // Some hundred a second, in bursts.
        if (n % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 8));
      }
    })();
    for (let i = 0; i < 50; i++) {
      const { length } = alice.messages;
      if (i % 3 > 0) await alice.until(() => alice.messages.length >= length + i % 15, "some messages");
      await alice.disconnect();
      const count = accepted.length;
      if (i % 2 === 0) await until(() => accepted.length > count, "messages to flow while she is away");
      await alice.connect(url(i % 4 < 2 ? there : here));
    }
    isDone = true;
    await sending;
    await alice.reaches(accepted.length);
    alice.assertNoFault();
    assert(accepted.length > 200, `Only ${accepted.length} messages flowed`);
    assertEquals([alice.gaps, alice.data], [[], numbers(1, accepted.length)]);
    assert(alice.messages.some(({ r }) => r === 1), "Nothing was replayed");
  },
  { USERWIRE_HISTORY: "1000" },
);

onRedis("fills the hole when a subscription breaks while messages flow", async ({ here, there, redis }) => {
  await using alice = await Follower.open(url(here));
  const accepted: Accepted[] = [];
  let isDone = false;
  const sending = (async () => {
    while (!isDone) {
      await alice.until(() => accepted.length - alice.messages.length < MAX_BEHIND, "alice to catch up");
      accepted.push(...await Promise.all(numbers(1, 10).map((n) => send(there, n))));
    }
  })();
  for (let kill = 1; kill <= 10; kill++) {
    const { length } = alice.messages;
    await alice.until(() => alice.messages.length > length, "messages to flow");
    assertNotEquals(await redis.cli("CLIENT", "KILL", "TYPE", "pubsub"), 0);
    await until(
      () => here.logged("subscription restored").length === kill,
      "the subscription to be restored",
    );
  }
  isDone = true;
  await sending;
  await alice.reaches(accepted.length);
  alice.assertNoFault();
  assertEquals([alice.gaps, alice.messages.length], [[], accepted.length]);
  assert(alice.messages.some(({ r }) => r === 1), "No kill came between store and delivery");
  await alice.disconnect();
  await here.isEmpty();
  const [closed] = here.logged("connection closed");
  assertEquals([closed!.fields.interruptions, closed!.fields.missed], [10, undefined]);
}, { USERWIRE_HISTORY: "2000" });

// ---------------------------------------------------------------------------------------------------------
// What was lost unseen

onRedis("finds a lost tail when it pings an idle client", async ({ here, redis }) => {
  await using alice = await Follower.open(url(here));
  await send(here, 1);
  await alice.reaches(1);
  // As if the message had been stored and then lost on its way.
  const { head, tail } = formatEnvelope({ kind: "json", text: "2" }, { id: "lost", ts: Date.now() });
  const field = ["x", String(Date.now() + 60_000)];
  await redis.cli("XADD", "userwire:{alice}:inbox", "2-0", "m", `${head}"seq":2,${tail}`, ...field);
  // Last: she may be pinged at any moment, and what is counted and not there would be a gap.
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 2);
  await alice.reaches(2);
  assertEquals([alice.data, alice.messages[1]!.r], [[1, 2], 1]);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 4);
  await alice.reaches(4);
  assertEquals(alice.gaps.map(({ from, to, why }) => [from, to, why]), [[3, 4, "trimmed"]]);
  alice.assertNoFault();
}, { USERWIRE_PING_S: "1" });

Deno.test("Resume goes on a second after the history could not be read, with all that came meanwhile", async () => {
  using seconds = new HeldSeconds();
  await using service = await Service.start();
  await using alice = await Follower.open(url(service));
  await send(service, 1);
  await alice.reaches(1);
  const { since } = MemoryHistory.prototype;
  let reads = 0;
  MemoryHistory.prototype.since = () => {
    reads++;
    return Promise.reject(new BrokerUnavailableError("away"));
  };
  try {
    service.server.app.connections.verify();
    await until(() => reads === 1, "the history to be read");
    await send(service, 2);
    seconds.run();
    assertEquals(reads, 2, "no more often than once a second");
  } finally {
    MemoryHistory.prototype.since = since;
  }
  // The answer to the second read is no later than this one.
  await send(service, 3);
  assertEquals(alice.data, [1]);
  seconds.run();
  await alice.reaches(3);
  assertEquals([alice.data, alice.gaps], [[1, 2, 3], []]);
  alice.assertNoFault();
});

onRedis("logs what a raw client missed, and repeats nothing to it", async ({ here, there, redis }) => {
  await using alice = await openClient(url(here));
  await send(there, 1);
  assertEquals(await alice.next(), "1");
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 4);
  await send(there, 5);
  await redis.cli("HSET", "userwire:{alice}:position", "seq", 6);
  await send(there, 7);
  assertEquals([await alice.next(), await alice.next()], ["5", "7"]);
  await alice.close();
  await here.isEmpty();
  const [closed] = here.logged("connection closed");
  assertEquals([closed!.fields.missed, closed!.fields.messages], [4, 3]);
});

onRedis(
  "passes foreign payloads through, without a number and in between",
  async ({ here, there, redis }) => {
    await using alice = await Follower.open(url(here));
    await send(there, 1);
    await alice.reaches(1);
    await redis.cli("PUBLISH", "alice", '{"from":"outside"}');
    await send(there, 2);
    await alice.reaches(2);
    assertEquals(alice.messages.map(({ seq, data }) => [seq, data]), [[1, 1], [undefined, {
      from: "outside",
    }], [2, 2]]);
    await alice.disconnect();
    await redis.cli("PUBLISH", "alice", "nobody hears this");
    await send(there, 3);
    await alice.connect(url(there));
    await alice.reaches(3);
    assertEquals(alice.data, [1, { from: "outside" }, 2, 3]);
    alice.assertNoFault();
  },
);
