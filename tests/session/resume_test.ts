/**
 * Resume over real sockets: with Redis and two nodes, and with one in memory. Each client keeps its own books
 * (`support/follower.ts`). What happens while messages flow is in `resume_flow_test.ts`, what happens when things break
 * in `faults_test.ts`.
 */
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { parsePosition } from "../../src/protocol/position.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { HeldSubscriptions } from "../../testkit/held_subscriptions.ts";
import { nodesTest, numbers, send, sendAll } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onRedis } = nodesTest("Resume");

function url(service: Service): string {
  return service.socketUrl("alice");
}

// ---------------------------------------------------------------------------------------------------------
// The greeting

everywhere("greets with a position, also when nothing was ever sent", async ({ here, there }) => {
  await using first = await Follower.open(url(here));
  const [hi] = first.greetings;
  assertMatch(hi!.pos!, /^[\w-]{1,32}\.0$/);
  assertEquals([hi!.resumed, hi!.replay], [false, 0]);
  await sendAll(there, 1, 2);
  await using second = await Follower.open(url(there));
  assertEquals(second.position, hi!.pos!.replace(/0$/, "2"));
  assertEquals([second.messages, second.gaps], [[], []]);
});

Deno.test("Resume greets without a position when no history is kept", async () => {
  await using service = await Service.start({ USERWIRE_HISTORY: "0" });
  await using alice = await openClient(`${url(service)}&resume=abc.5`, ["userwire.v1"]);
  const { pos, resumed, replay } = await alice.nextJson();
  assertEquals([pos, resumed, replay], [undefined, false, 0]);
  await service.send("alice", 1);
  const { seq, data } = await alice.nextJson();
  assertEquals([seq, data], [undefined, 1]);
});

everywhere("is refused with 400 when the position is none", async ({ here }) => {
  for (
    const position of [
      "",
      "7",
      "abc",
      "abc.",
      ".7",
      "abc.-1",
      "abc.1.5x",
      "a b.1",
      `${"a".repeat(33)}.1`,
      "abc.1e3",
    ]
  ) {
    const target = `${url(here)}&resume=${encodeURIComponent(position)}`;
    await using raw = await RawSocket.open(target, { headers: { "Sec-WebSocket-Protocol": "userwire.v1" } });
    assertEquals([position, raw.answer.status], [position, 400]);
    assertMatch(JSON.parse(raw.answer.body).detail, /"resume" must be a position/);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Coming back

everywhere("works right after the greeting, with nothing ever received", async ({ here, there }) => {
  await using alice = await Follower.open(url(here));
  await alice.disconnect();
  await here.isEmpty();
  assertEquals((await there.send("alice", 1)).body.stored, true);
  await sendAll(there, 2, 3);
  await alice.connect(url(there));
  await alice.reaches(3);
  assertEquals([alice.greetings[1]!.resumed, alice.greetings[1]!.replay], [true, 3]);
  assertEquals([alice.data, alice.messages.map(({ r }) => r)], [[1, 2, 3], [1, 1, 1]]);
  await send(here, 4);
  await alice.reaches(4);
  assertEquals(alice.messages[3]!.r, undefined);
  alice.assertNoFault();
});

Deno.test("Resume brings at once what is sent while the subscription is being confirmed, heard or not", async () => {
  for (const hear of [false, true]) {
    await using service = await Service.start();
    await using alice = await Follower.open(url(service));
    await send(service, 1);
    await alice.reaches(1);
    await alice.disconnect();
    using subscriptions = new HeldSubscriptions({ hear });
    const connecting = alice.connect(url(service));
    await subscriptions.come(1);
    await send(service, 2);
    subscriptions.release();
    await connecting;
    // Else it would come only when a later message, or a ping into the silence, shows the hole.
    assertEquals([alice.greetings[1]!.resumed, alice.greetings[1]!.replay], [true, 1]);
    await alice.reaches(2);
    assertEquals(alice.data, [1, 2]);
    alice.assertNoFault();
  }
});

everywhere(
  "works twice in a row, on another node each time, also from the same position",
  async (place) => {
    const { here, there } = place;
    await using alice = await Follower.open(url(here));
    await send(there, 1);
    await alice.reaches(1);
    const { position } = alice;
    await alice.disconnect();
    await sendAll(there, 2, 3);
    for (const service of [there, here, there]) {
      await using again = await Follower.open(url(service), position);
      await again.reaches(3);
      assertEquals(again.data, [2, 3]);
      again.assertNoFault();
      await alice.connect(url(service));
      await alice.reaches(3);
      await alice.disconnect();
    }
    assertEquals([alice.data, alice.greetings.slice(1).map(({ replay }) => replay)], [[1, 2, 3], [2, 0, 0]]);
    alice.assertNoFault();
  },
);

everywhere("replays in batches, up to what the history holds", async ({ here, there }) => {
  await using alice = await Follower.open(url(here));
  await alice.disconnect();
  await sendAll(there, 1, 300);
  await alice.connect(url(there));
  await alice.reaches(300);
  assertEquals([alice.data, alice.gaps], [numbers(1, 300), []]);
  alice.assertNoFault();
}, { USERWIRE_HISTORY: "1000" });

everywhere("states exactly what the history has no more", async ({ here, there }) => {
  await using alice = await Follower.open(url(here));
  await sendAll(there, 1, 2);
  await alice.reaches(2);
  await alice.disconnect();
  await sendAll(there, 3, 12);
  await alice.connect(url(there));
  await alice.reaches(12);
  const { epoch } = parsePosition(alice.position!)!;
  assertEquals(alice.gaps, [{ t: "gap", from: 3, to: 7, count: 5, why: "trimmed", pos: `${epoch}.7` }]);
  assertEquals([alice.data, alice.greetings[1]!.resumed], [[1, 2, 8, 9, 10, 11, 12], true]);
  alice.assertNoFault();
}, { USERWIRE_HISTORY: "5" });

everywhere("states what was too old, also in the middle and at the end", async ({ here, there }) => {
  await using alice = await Follower.open(url(here));
  await alice.disconnect();
  const json = { "content-type": "application/json" };
  for (const n of numbers(1, 6)) {
    const ttl = n === 1 || n === 3 || n === 6 ? "?ttl=1" : "";
    const init = { method: "POST", headers: json, body: `${n}` };
    await (await there.fetch(`/v1/users/alice/messages${ttl}`, init)).body?.cancel();
  }
  await until(async () => {
    const response = await there.fetch("/v1/users/alice/messages");
    return (await response.json()).items.length === 3;
  }, "three messages to leave");
  await alice.connect(url(here));
  await alice.reaches(6);
  const { epoch } = parsePosition(alice.position!)!;
  assertEquals(alice.gaps.map(({ from, to, count, why, pos }) => [from, to, count, why, pos]), [
    [1, 1, 1, "trimmed", `${epoch}.1`],
    [3, 3, 1, "trimmed", `${epoch}.3`],
    [6, 6, 1, "trimmed", `${epoch}.6`],
  ]);
  assertEquals(alice.data, [2, 4, 5]);
  alice.assertNoFault();
});

everywhere("replays no more than USERWIRE_MAX_REPLAY, and states the rest", async ({ here, there }) => {
  await using alice = await Follower.open(url(here));
  await alice.disconnect();
  await sendAll(there, 1, 20);
  await alice.connect(url(there));
  await alice.reaches(20);
  assertEquals(alice.greetings[1]!.replay, 4);
  assertEquals([alice.gaps.map(({ from, to }) => [from, to]), alice.data], [[[1, 16]], numbers(17, 20)]);
  alice.assertNoFault();
}, { USERWIRE_MAX_REPLAY: "4" });

everywhere("refuses a position of an epoch it does not know, and one that is ahead", async ({ here }) => {
  await sendAll(here, 1, 3);
  await using stranger = await Follower.open(url(here), "nobody.7");
  await stranger.reaches(3);
  const { epoch } = parsePosition(stranger.position!)!;
  const { tag } = stranger.messages.at(-1)!;
  const gap = { t: "gap", to: null, count: null, why: "epoch" };
  assertEquals([stranger.greetings[0]!.resumed, stranger.gaps], [
    false,
    [{ ...gap, from: 8, pos: `${epoch}.0` }] as typeof stranger.gaps,
  ]);
  assertEquals(stranger.data, [1, 2, 3]);
  await using dreamer = await Follower.open(url(here), `${epoch}.9`);
  await dreamer.until(() => dreamer.gaps.length > 0, "a gap");
  assertEquals(dreamer.gaps, [{ ...gap, from: 10, pos: `${epoch}.3`, tag }] as typeof dreamer.gaps);
  await send(here, 4);
  await dreamer.reaches(4);
  assertEquals(dreamer.data, [4]);
});

onRedis(
  "announces that the history was set back at once, also when nothing is sent",
  async ({ here, redis }) => {
    await using alice = await Follower.open(url(here));
    await sendAll(here, 1, 3);
    await alice.reaches(3);
    await redis.cli("FLUSHALL");
    await alice.until(() => alice.gaps.length > 0, "a gap");
    assertEquals(alice.gaps.map(({ from, to, why }) => [from, to, why]), [[4, null, "epoch"]]);
  },
  { USERWIRE_PING_S: "3600" },
);

onRedis("announces a new epoch to those who were away and to those who were there", async (place) => {
  const { here, there, redis } = place;
  await using present = await Follower.open(url(here));
  await using absent = await Follower.open(url(there));
  await using fresh = await Follower.open(here.socketUrl("bob"));
  await sendAll(here, 1, 3);
  await Promise.all([present.reaches(3), absent.reaches(3)]);
  const before = parsePosition(present.position!)!;
  await absent.disconnect();
  await redis.cli("FLUSHALL");
  await sendAll(there, 4, 8);
  await there.send("bob", "first ever");
  await absent.connect(url(here));
  for (const alice of [present, absent]) {
    await alice.reaches(5);
    await alice.until(() => alice.data.length === 8, "eight messages");
    const after = parsePosition(alice.position!)!;
    assertNotEquals(after.epoch, before.epoch);
    assertEquals(alice.gaps, [{
      t: "gap",
      from: 4,
      to: null,
      count: null,
      why: "epoch",
      pos: `${after.epoch}.0`,
    }]);
    assertEquals(alice.data, numbers(1, 8));
    alice.assertNoFault();
  }
  await fresh.until(() => fresh.data.length > 0, "the first message");
  assertEquals(fresh.gaps.map(({ from, why }) => [from, why]), [[1, "epoch"]]);
  fresh.assertNoFault();
});
