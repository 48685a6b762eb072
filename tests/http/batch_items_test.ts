/** What an item of a batch may say beside its payload, and batches that are tried again with an `Idempotency-Key`. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { nodesTest, numbers } from "../../testkit/nodes.ts";
import type { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onRedis } = nodesTest("A batch");

interface Answer {
  readonly status: number;
  readonly replayed: string | null;
  // deno-lint-ignore no-explicit-any -- tests look at whatever comes
  readonly body: any;
}

async function post(service: Service, items: unknown, key?: string): Promise<Answer> {
  const response = await service.fetch("/v1/messages", {
    method: "POST",
    headers: { "content-type": "application/json", ...(key !== undefined && { "idempotency-key": key }) },
    body: typeof items === "string" ? items : JSON.stringify({ items }),
  });
  return {
    status: response.status,
    replayed: response.headers.get("idempotent-replayed"),
    body: await response.json(),
  };
}

const ITEMS = [
  { to: "alice", data: { order: 7 } },
  { to: ["alice", "bob"], data: 2 },
  { to: "alice", text: "three" },
];

everywhere("sends JSON as it stands, text and bytes", async ({ here, there }) => {
  await using raw = await openClient(there.socketUrl("alice"));
  await using framed = await openClient(there.socketUrl("alice"), ["userwire.v1"]);
  await framed.nextJson();
  const { status } = await post(
    here,
    `{"items":[{"to":"alice","data": { "n" : 1.0, "e":1e0 } },{"to":"alice","text":"say \\"hi\\""},` +
      `{"base64":"AID/","to":["alice"]},{"to":"alice","data":null}]}`,
  );
  assertEquals(status, 200);
  assertEquals(
    [await raw.next(), await raw.next(), await raw.next(), await raw.next()],
    ['{ "n" : 1.0, "e":1e0 }', 'say "hi"', Uint8Array.of(0, 128, 255), "null"],
  );
  const data = [];
  for (const _ of numbers(1, 4)) data.push((await framed.nextJson()).data);
  assertEquals(data, [{ n: 1, e: 1 }, 'say "hi"', "AID/", null]);
});

everywhere("keeps an item for its own ttl", async ({ here, there }) => {
  const { body } = await post(
    here,
    '{"items":[{"to":"bob","data":"short","ttl":1e0},{"to":"bob","data":"long"}]}',
  );
  assertEquals(body.results.map(({ seq }: { seq: number }) => seq), [1, 2]);
  const { publisher } = there.server.app;
  await until(
    async () => (await publisher.history("bob")).frames.length === 1,
    "the short message to leave",
  );
  assertMatch((await publisher.history("bob")).frames[0]!, /"data":"long"/);
});

everywhere(
  "sends what expects its user online to nobody else, and stores nothing",
  async ({ here, there }) => {
    await using alice = await openClient(there.socketUrl("alice"));
    const { status, body } = await post(here, [
      { to: "alice", data: 1, expect: "online" },
      { to: "bob", data: 2, expect: "online" },
      { to: ["bob", "alice"], data: 3, expect: "online" },
      { to: ["bob", "carol"], data: 4, expect: "online" },
      { to: "bob", data: 5 },
    ]);
    assertEquals(status, 200);
    const [first, second, third, fourth, fifth] = body.results;
    assertEquals([first.sockets, first.error], [1, undefined]);
    assertEquals([second.sockets, second.seq, second.error.code], [0, undefined, "user_offline"]);
    assertEquals([third.sockets, third.users, third.error], [1, { bob: 0, alice: 1 }, undefined]);
    assertEquals([fourth.users, fourth.error.code], [{ bob: 0, carol: 0 }, "user_offline"]);
    assertEquals([fifth.sockets, fifth.seq], [0, 1], "bob's first");
    assertEquals([await alice.next(), await alice.next()], ["1", "3"]);
  },
);

everywhere("with a key is sent once, and a repetition gets the same answer", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  const first = await post(here, ITEMS, "k1");
  assertEquals([first.status, first.replayed], [200, null]);
  for (const service of [here, there]) {
    const again = await post(service, ITEMS, "k1");
    assertEquals(again, { ...first, replayed: "true" });
  }
  await post(there, [{ to: "alice", data: "end" }], "k2");
  await alice.reaches(4);
  assertEquals(alice.messages.length, 4);
  alice.assertNoFault();
});

everywhere("with the key of another body is refused, and nothing of it is sent", async ({ here, there }) => {
  const first = await post(here, ITEMS, "k1");
  for (
    const items of [
      // Of users who had none of the first, too.
      [{ to: "dora", data: 1 }],
      [...ITEMS, { to: "dora", data: 1 }],
      ITEMS.slice(1),
    ]
  ) {
    const { status, body } = await post(there, items, "k1");
    assertEquals([status, body.code], [422, "idempotency_conflict"]);
  }
  assertEquals((await there.server.app.publisher.history("dora")).last, 0);
  assertEquals(await post(there, ITEMS, "k1"), { ...first, replayed: "true" });
  // A key of a batch is not one of a single send.
  const single = await here.fetch("/v1/users/alice/messages", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": "k1" },
    body: "1",
  });
  assertEquals([single.status, single.headers.get("idempotent-replayed")], [202, null]);
  await single.body?.cancel();
});

everywhere(
  "one of whose items is refused is refused as one, however long the others take",
  async ({ here }) => {
    // What is left of an earlier call with this key, whose claim has ended.
    await here.server.app.publisher.sendToAll(["first"], 1, {
      idempotency: { key: "call  k1 0", fingerprint: "another" },
    });
    const others = numbers(1, 999).map((i) => ({ to: numbers(0, 9).map((n) => `user-${i}-${n}`), data: i }));
    const { status, body } = await post(here, [{ to: "first", data: 0 }, ...others], "k1");
    assertEquals([status, body.code], [422, "idempotency_conflict"]);
  },
);

everywhere("with one key that meets itself on two nodes is sent once", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  for (const round of numbers(1, 5)) {
    const answers = await Promise.all(
      numbers(0, 5).map((i) => post(i % 2 ? here : there, ITEMS, `k${round}`)),
    );
    assertEquals(answers.map(({ status }) => status), Array(6).fill(200));
    assertEquals(new Set(answers.map(({ body }) => JSON.stringify(body))).size, 1);
  }
  await alice.reaches(15);
  assertEquals(alice.messages.length, 15);
  alice.assertNoFault();
});

everywhere("refuses a key that is none", async ({ here }) => {
  for (const key of ["a b", "x".repeat(129)]) {
    const { status, body } = await post(here, ITEMS, key);
    assertEquals([status, body.code], [400, "invalid_message"]);
    assertMatch(body.detail, /idempotency key/i);
  }
  assertEquals((await here.server.app.publisher.history("alice")).last, 0);
});

everywhere("with a key is sent once without a history, too", async ({ here, there }) => {
  await using bob = await openClient(there.socketUrl("bob"));
  const first = await post(here, ITEMS, "k1");
  assertEquals(await post(there, ITEMS, "k1"), { ...first, replayed: "true" });
  await post(here, [{ to: "bob", data: "end" }]);
  assertEquals([await bob.next(), await bob.next()], ["2", '"end"']);
}, { USERWIRE_HISTORY: "0" });

everywhere("of which nothing was accepted leaves its key to another", async ({ here, there }) => {
  const unheard = [{ to: "alice", data: 1, expect: "online" }, {
    to: ["bob", "carol"],
    data: 2,
    expect: "online",
  }];
  const first = await post(here, unheard, "k1");
  assertEquals(first.body.results.map((result: { error: { code: string } }) => result.error.code), [
    "user_offline",
    "user_offline",
  ]);
  const second = await post(there, ITEMS, "k1");
  assertEquals([second.status, second.replayed], [200, null]);
  // Of this one all was accepted: the key is its own now, whatever became of calls that meet it.
  assertEquals((await post(here, unheard, "k1")).status, 422);
  assertEquals(await post(here, ITEMS, "k1"), { ...second, replayed: "true" });
  assertEquals((await there.server.app.publisher.history("alice")).last, 3);
});

everywhere("of which something was accepted keeps its key, and its answer", async ({ here, there }) => {
  await using alice = await openClient(there.socketUrl("alice"));
  const items = [{ to: "alice", data: 1, expect: "online" }, {
    to: "bob",
    data: 2,
    id: "o2",
    expect: "online",
  }];
  const first = await post(here, items, "k1");
  assertEquals([first.status, first.body.results[0].sockets, first.body.results[1].error.code], [
    200,
    1,
    "user_offline",
  ]);
  assertEquals((await post(there, ITEMS, "k1")).status, 422);
  const { body } = await post(there, items, "k1");
  assertEquals(body, first.body);
  await post(there, [{ to: "alice", data: "end" }]);
  assertEquals([await alice.next(), await alice.next()], ["1", '"end"']);
});

onRedis("that Redis refused altogether leaves its key to another", async ({ here, there, redis }) => {
  await redis.cli("ACL", "SETUSER", "default", "-xadd");
  const refused = await post(here, [{ to: ["alice", "bob"], data: 1 }, { to: "alice", data: 2 }], "k1");
  assertEquals([refused.status, refused.body.code], [503, "broker_unavailable"]);
  assertMatch(refused.body.detail, /; nothing was sent$/);
  await redis.cli("ACL", "SETUSER", "default", "+xadd");
  const { status, replayed } = await post(there, ITEMS, "k1");
  assertEquals([status, replayed], [200, null]);
});

onRedis("says of each item of a list what became of it", async ({ here, redis }) => {
  const users = numbers(1, 450).map((n) => `user-${n}`);
  const spoilt = ["user-7", "user-300"];
  for (const user of spoilt) await redis.cli("SET", `userwire:{${user}}:position`, "oops", "PX", "60000");
  const first = await post(here, [{ to: users, data: 1 }, { to: "user-1", data: 2 }], "k1");
  assertEquals([first.status, first.body.results.length], [200, 2]);
  assertEquals(first.body.results[0].error.code, "broker_unavailable");
  assertEquals(Object.keys(first.body.results[0].users), users);
  for (const user of spoilt) await redis.cli("DEL", `userwire:{${user}}:position`);
  const again = await post(here, [{ to: users, data: 1 }, { to: "user-1", data: 2 }], "k1");
  assertEquals([again.status, again.body.results[0].error, again.body.results[1]], [
    200,
    undefined,
    first.body.results[1],
  ]);
  const { publisher } = here.server.app;
  const last = await Promise.all(users.map(async (user) => (await publisher.history(user)).last));
  assertEquals(last, users.map((user) => user === "user-1" ? 2 : 1));
});

onRedis("with a key goes on where it broke off", async ({ here, there, redis }) => {
  const key = "k1";
  // As if the node had died after the first item.
  assert((await post(here, ITEMS, key)).status === 200);
  for (const name of await redis.cli("KEYS", "*{bob}:key:*") as string[]) await redis.cli("DEL", name);
  const again = await post(there, ITEMS, key);
  assertEquals([again.status, again.replayed], [200, null]);
  assertEquals((await there.server.app.publisher.history("alice")).last, 3);
  assertEquals((await there.server.app.publisher.history("bob")).last, 2);
});

onRedis("whose key Redis does not answer for says that nothing was sent", async ({ here, redis }) => {
  await redis.pause();
  try {
    const { status, body } = await post(here, ITEMS, "k1");
    assertEquals([status, body.code], [503, "broker_unavailable"]);
    assertMatch(body.detail, /; nothing was sent$/);
  } finally {
    redis.resume();
  }
  await until(async () => (await post(here, ITEMS, "k1")).status === 200, "the batch to be sent");
  assertEquals((await here.server.app.publisher.history("alice")).last, 3);
});
