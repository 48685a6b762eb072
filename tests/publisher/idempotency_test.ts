/** Sends that are tried again: `Idempotency-Key` over HTTP and through the publisher, on one node and on two. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { IdempotencyConflictError, InvalidMessageError } from "../../src/protocol/errors.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { nodesTest, numbers } from "../../testkit/nodes.ts";
import type { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onRedis } = nodesTest("Idempotency-Key");

interface Answer {
  readonly status: number;
  readonly replayed: string | null;
  readonly body: Record<string, unknown>;
}

async function post(
  service: Service,
  options: { key?: string; body?: string; type?: string; query?: string; username?: string } = {},
): Promise<Answer> {
  const { key = "k1", body = '{"order":7}', type = "application/json", query = "", username = "alice" } =
    options;
  const response = await service.fetch(`/v1/users/${username}/messages${query}`, {
    method: "POST",
    headers: { "content-type": type, "idempotency-key": key },
    body,
  });
  return {
    status: response.status,
    replayed: response.headers.get("idempotent-replayed"),
    body: await response.json(),
  };
}

everywhere("makes a repeated send return the first answer and deliver nothing", async ({ here, there }) => {
  await using alice = await Follower.open(here.socketUrl("alice"));
  const first = await post(here);
  assertEquals([first.status, first.replayed, first.body.seq, first.body.sockets], [200, null, 1, 1]);
  for (const service of [here, there]) {
    assertEquals(await post(service), { ...first, replayed: "true" });
  }
  await post(there, { key: "k2" });
  await alice.reaches(2);
  assertEquals(alice.messages.map(({ id, seq }) => [id, seq])[0], [first.body.id as string, 1]);
  assertEquals(alice.messages.length, 2);
  alice.assertNoFault();
});

everywhere("keeps the first answer although the user has come or gone since", async ({ here, there }) => {
  const offline = await post(here);
  assertEquals([offline.status, offline.body.sockets, offline.body.stored], [202, 0, true]);
  await using alice = await openClient(here.socketUrl("alice"));
  assertEquals(await post(there), { ...offline, replayed: "true" });
  const online = await post(there, { key: "k2" });
  assertEquals(online.status, 200);
  await alice.close();
  await here.isEmpty();
  assertEquals(await post(here, { key: "k2" }), { ...online, replayed: "true" });
});

everywhere("answers 422 for another message with the same key", async ({ here, there }) => {
  await post(here);
  for (const options of [{ body: '{"order":8}' }, { body: '{"order": 7}' }, { type: "text/plain" }]) {
    const { status, body } = await post(there, options);
    assertEquals([status, body.code], [422, "idempotency_conflict"]);
  }
  // The key is the user's, and the refusals have used up nothing.
  assertEquals((await post(there, { username: "bob", body: '{"order":8}' })).status, 202);
  assertEquals((await post(there)).replayed, "true");
});

everywhere("delivers once when requests with one key meet on two nodes", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  for (const round of numbers(1, 10)) {
    const answers = await Promise.all(
      numbers(0, 5).map((i) => post(i % 2 === 0 ? here : there, { key: `meet-${round}` })),
    );
    assertEquals(answers.map(({ status }) => status), Array(6).fill(200));
    assertEquals(new Set(answers.map(({ body }) => body.id)).size, 1);
    assertEquals(answers.filter(({ replayed }) => replayed === null).length, 1);
  }
  await alice.reaches(10);
  assertEquals(alice.messages.length, 10);
  alice.assertNoFault();
});

everywhere("works without a history", async ({ here, there }) => {
  await using alice = await openClient(here.socketUrl("alice"));
  const first = await post(here);
  assertEquals([first.status, first.body.seq], [200, undefined]);
  assertEquals(await post(there), { ...first, replayed: "true" });
  await post(there, { key: "k2", body: '"end"' });
  assertEquals([await alice.next(), await alice.next()], ['{"order":7}', '"end"']);
}, { USERWIRE_HISTORY: "0" });

everywhere("does not remember that nobody was there", async ({ here, there }) => {
  const offline = await post(here, { query: "?expect=online" });
  assertEquals([offline.status, offline.body.code], [404, "user_offline"]);
  await using alice = await openClient(here.socketUrl("alice"));
  const sent = await post(there, { query: "?expect=online" });
  assertEquals([sent.status, sent.replayed], [200, null]);
  assertEquals(await alice.next(), '{"order":7}');
});

everywhere("must be visible ASCII of 1 to 128 characters", async ({ here }) => {
  for (const key of ["a b", "x".repeat(129), "é"]) {
    const { status, body } = await post(here, { key });
    assertEquals([key.slice(0, 5), status, body.code], [key.slice(0, 5), 400, "invalid_message"]);
    assertMatch(String(body.detail), /idempotency key/i);
  }
  assertEquals((await post(here, { key: "x".repeat(128) })).status, 202);
  assertEquals((await post(here, { key: "!~'{}[]:;" })).status, 202);
});

everywhere("is an option of the publisher too", async ({ here, there }) => {
  const [mine, theirs] = [here.server.app.publisher, there.server.app.publisher];
  const payload = { kind: "text", text: "m" } as const;
  const first = await mine.send("alice", payload, { idempotencyKey: "k", id: "first" });
  const again = await theirs.send("alice", payload, { idempotencyKey: "k", id: "second" });
  assertEquals([first.id, again], ["first", { ...first, repeated: true }]);
  await assertRejects(
    () => theirs.send("alice", { kind: "text", text: "other" }, { idempotencyKey: "k" }),
    IdempotencyConflictError,
  );
  await assertRejects(() => mine.send("alice", payload, { idempotencyKey: "" }), InvalidMessageError);
});

onRedis("makes a retry after a timeout find out what became of the send", async ({ here, there, redis }) => {
  // Patiently: on a busy machine a Redis that is well may take longer than these services wait.
  await using alice = new Follower();
  await alice.returnsTo(here.socketUrl("alice"));
  await redis.pause();
  const lost = await post(there);
  assertEquals([lost.status, lost.body.code], [503, "broker_unavailable"]);
  assertMatch(String(lost.body.detail), /may or may not have been delivered/);
  redis.resume();
  let retry = await post(there);
  await until(async () => (retry = await post(there)).status !== 503, "Redis to be back");
  // The first was written before Redis stood still: it has been carried out, and once.
  assertEquals([retry.status, retry.replayed, retry.body.seq], [200, "true", 1]);
  await post(there, { key: "k2" });
  await alice.reaches(2);
  assertEquals(alice.messages.length, 2);
  assertEquals(alice.messages[0]!.id, retry.body.id as string);
  alice.assertNoFault();
}, { USERWIRE_REDIS_TIMEOUT_MS: "500" });

onRedis("is remembered for five minutes", async ({ here, redis }) => {
  await post(here);
  const life = Number(await redis.cli("PTTL", "userwire:{alice}:key:k1"));
  assert(life > 290_000 && life <= 300_000, `It ends in ${life} ms`);
});
