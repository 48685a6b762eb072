/** Receipts: `?wait=ack`, with clients that acknowledge, on the sender's instance and on another. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { until } from "./support/deadline.ts";
import { Follower } from "./support/follower.ts";
import { instancesTest, numbers } from "./support/instances.ts";
import { type Sent, type Service, Truth } from "./support/service.ts";
import { openClient } from "./support/ws_client.ts";

const { everywhere, onRedis } = instancesTest("A receipt");

async function post(service: Service, query: string, headers: Record<string, string> = {}): Promise<Sent> {
  const response = await service.fetch(`/v1/users/alice/messages${query}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: '{"order":7}',
  });
  return { status: response.status, retryAfter: null, body: await response.json() };
}

/** A client that acknowledges each message when it comes. */
async function openAcking(service: Service): Promise<Follower> {
  const follower = await Follower.open(service.socketUrl("alice"));
  follower.onMessage = ({ seq }) => follower.send({ t: "ack", seq: seq! });
  return follower;
}

everywhere("comes from a client on another instance", async ({ here, there }) => {
  await using alice = await openAcking(there);
  for (const seq of numbers(1, 3)) {
    const { status, body } = await post(here, "?wait=ack&timeout=10000");
    assertEquals([status, body.seq, body.sockets, body.acked], [200, seq, 1, 1]);
  }
  assertEquals(alice.messages.map(({ ack }) => ack), [1, 1, 1]);
});

everywhere("is asked for in the message, and only when the sender waits", async ({ here, there }) => {
  await using alice = await openAcking(there);
  assertEquals((await post(here, "")).body.acked, undefined);
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
  assertEquals(alice.messages.map(({ ack }) => ack), [undefined, 1]);
});

everywhere(
  "counts the sockets that acknowledged, and time that is up is a result",
  async ({ here, there }) => {
    await using _first = await openAcking(here);
    await using _second = await openAcking(there);
    await using silent = await Follower.open(there.socketUrl("alice"));
    await using raw = await openClient(here.socketUrl("alice"));
    const startMs = performance.now();
    const { status, body } = await post(there, "?wait=ack&timeout=300");
    assertEquals([status, body.sockets, body.acked], [200, 4, 2]);
    assert(performance.now() - startMs >= 295, "It did not wait for the others");
    await silent.reaches(1);
    assertEquals(await raw.next(), '{"order":7}');
  },
);

everywhere("counts a socket once, however often it acknowledges", async ({ here, there }) => {
  await using eager = await Follower.open(here.socketUrl("alice"));
  eager.onMessage = ({ seq }) => {
    for (const wrong of [0, seq!, seq!, seq! + 100]) eager.send({ t: "ack", seq: wrong });
  };
  await using _silent = await Follower.open(here.socketUrl("alice"));
  const { body } = await post(there, "?wait=ack&timeout=300");
  assertEquals([body.sockets, body.acked], [2, 1]);
});

everywhere("of a later message covers the ones before", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  const waiting = numbers(1, 3).map(() => post(here, "?wait=ack&timeout=10000"));
  await alice.reaches(3);
  alice.send({ t: "ack", seq: 3 });
  const answers = await Promise.all(waiting);
  assertEquals(answers.map(({ body }) => [body.sockets, body.acked]), [[1, 1], [1, 1], [1, 1]]);
});

everywhere("is not waited for when the user is offline", async ({ here }) => {
  const startMs = performance.now();
  const { status, body } = await post(here, "?wait=ack&timeout=30000");
  assertEquals([status, body.sockets, body.acked, body.stored], [202, 0, 0, true]);
  assert(performance.now() - startMs < 10_000, "It waited for nobody");
  assertEquals((await post(here, "?wait=ack&expect=online")).status, 404);
});

everywhere("that comes too late harms nobody", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  assertEquals((await post(here, "?wait=ack&timeout=1")).body.acked, 0);
  await alice.reaches(1);
  alice.send({ t: "ack", seq: 1 });
  alice.onMessage = ({ seq }) => alice.send({ t: "ack", seq: seq! });
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
});

everywhere("is refused with 400 where no history is kept", async ({ here }) => {
  const { status, body } = await post(here, "?wait=ack");
  assertEquals([status, body.code], [400, "invalid_message"]);
  assertMatch(String(body.detail), /USERWIRE_HISTORY/);
}, { USERWIRE_HISTORY: "0" });

everywhere("is not waited for again when a send is repeated", async ({ here, there }) => {
  await using _alice = await openAcking(here);
  const key = { "idempotency-key": "k" };
  const first = await post(here, "?wait=ack&timeout=10000", key);
  assertEquals(first.body.acked, 1);
  const { acked: _, ...rest } = first.body;
  assertEquals((await post(there, "?wait=ack&timeout=10000", key)).body, rest);
});

everywhere("reaches the sender that waits when the client came back in between", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  const waiting = post(here, "?wait=ack&timeout=10000");
  await alice.reaches(1);
  const { position } = alice;
  await alice.disconnect();
  // She had the message, and did not say so before she left: now it comes again.
  await using again = new Follower();
  again.onMessage = ({ seq }) => again.send({ t: "ack", seq: seq! });
  await again.connect(`${there.socketUrl("alice")}&resume=${position!.replace(/1$/, "0")}`);
  assertEquals((await waiting).body.acked, 1);
  assertEquals(again.messages.map(({ r, ack }) => [r, ack]), [[1, 1]]);
});

onRedis("is waited for again after the receipts' own subscription broke", async ({ here, there, redis }) => {
  await using _alice = await openAcking(there);
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
  const truth = new Truth(redis);
  const before = await truth.subscribers();
  await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
  await until(async () => {
    const after = await truth.subscribers();
    return after.length === before.length && after.every((id) => !before.includes(id));
  }, "the subscriptions to be back");
  await until(async () => (await post(here, "?wait=ack&timeout=500")).body.acked === 1, "a receipt");
});
