/** Groups over HTTP: who is in one, sends to one, and what is refused; on one node, on two, and with shared subscriptions. */
import { assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { call, names, post } from "../../testkit/group_calls.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { nodesTest } from "../../testkit/nodes.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { everywhere, onEveryBroker } = nodesTest("A group");

everywhere("is made, read, changed and deleted, on any node", async ({ here, there }) => {
  assertEquals((await call(here, "GET", "/v1/groups/team")).body.code, "group_not_found");
  const first = await call(here, "PUT", "/v1/groups/team/users/alice");
  assertEquals([first.status, first.body.added, first.body.users], [200, 1, 1]);
  const again = await call(there, "PUT", "/v1/groups/team/users/alice");
  assertEquals(again.body, { added: 0, users: 1, version: first.body.version });
  const patched = await call(there, "PATCH", "/v1/groups/team", {
    add: ["bob", "bob", "carol"],
    remove: ["dave"],
  });
  assertEquals([patched.body.added, patched.body.removed, patched.body.users], [2, 0, 3]);
  const gone = await call(here, "DELETE", "/v1/groups/team/users/bob");
  assertEquals([gone.body.removed, gone.body.users], [1, 2]);
  await using alice = await openClient(there.socketUrl("alice"));
  const read = await call(here, "GET", "/v1/groups/team");
  assertEquals([read.body.users, read.body.online, read.body.sockets], [2, 1, 1]);
  assertEquals(read.headers.get("etag"), `"${read.body.version}"`);
  const page = await call(there, "GET", "/v1/groups/team/users?limit=1");
  assertEquals(page.body, { items: [{ user: "alice", sockets: 1 }], next: "alice" });
  const last = await call(there, "GET", "/v1/groups/team/users?after=alice&limit=1");
  assertEquals(last.body, { items: [{ user: "carol", sockets: 0 }] });
  assertEquals((await call(here, "GET", "/v1/users/carol/groups")).body, { groups: ["team"] });
  assertEquals((await call(here, "DELETE", "/v1/users/carol/groups")).body, { removed: 1, groups: ["team"] });
  assertEquals((await call(there, "DELETE", "/v1/groups/team")).body, { users: 1 });
  assertEquals((await call(there, "DELETE", "/v1/groups/team")).status, 404);
  assertEquals((await call(there, "GET", "/v1/groups/team/users")).status, 404);
  await alice.close();
});

everywhere("is replaced by who has seen it last, and by nobody else", async ({ here, there }) => {
  const { body: { version } } = await call(here, "PUT", "/v1/groups/team", { users: ["alice", "bob"] });
  const replaced = await call(there, "PUT", "/v1/groups/team", { users: ["bob", "carol"] }, {
    "if-match": `"${version}"`,
  });
  assertEquals([replaced.status, replaced.body.added, replaced.body.removed], [200, 1, 1]);
  // That of yesterday; that of a group which was deleted and made anew; of one that is not there.
  const stale = await call(here, "PUT", "/v1/groups/team", { users: [] }, { "if-match": `"${version}"` });
  assertEquals([stale.status, stale.body.code], [412, "group_changed"]);
  await call(here, "DELETE", "/v1/groups/team");
  const lost = await call(here, "PUT", "/v1/groups/team", { users: ["a"] }, {
    "if-match": `"${replaced.body.version}"`,
  });
  assertEquals(lost.status, 412);
  assertEquals(
    (await call(here, "PUT", "/v1/groups/team", { users: ["a"] }, { "if-match": '"0"' })).status,
    200,
  );
  assertEquals(
    (await call(here, "PUT", "/v1/groups/team", { users: ["a"] }, { "if-match": '"0"' })).status,
    412,
  );
  for (const bad of ["17", "*", 'W/"1"', '"a"', '"1", "2"']) {
    const answer = await call(here, "PUT", "/v1/groups/team", { users: ["a"] }, { "if-match": bad });
    assertEquals([answer.status, answer.body.code], [400, "invalid_request"]);
  }
});

onEveryBroker(
  "gives each user a message once, in one order with all others, and says how many",
  async ({ here, there }) => {
    const isShared = here.server.app.publisher.counted === "nodes";
    await using alice = await Follower.open(here.socketUrl("alice"));
    await using other = await Follower.open(there.socketUrl("alice"));
    await using raw = await openClient(there.socketUrl("rick"));
    const bob = await Follower.open(here.socketUrl("bob"));
    await bob.disconnect();
    await until(
      async () => (await call(there, "GET", "/v1/users/bob")).body.online === false,
      "bob to be gone",
    );
    await call(here, "PUT", "/v1/groups/team", { users: ["alice", "bob", "rick", "nobody"] });
    await here.send("alice", { n: 1 });
    const sent = await post(there);
    const reached = isShared ? { nodes: 2 + (here === there ? 0 : 1) } : { sockets: 3 };
    const { id, ...counts } = sent.body;
    if (!isShared) assertEquals(counts, { users: 3, online: 2, ...reached, stored: 1, unknown: 1 });
    else {assertEquals([counts.users, counts.online, counts.stored, counts.unknown, counts.nodes], [
        3,
        2,
        1,
        1,
        3,
      ]);}
    await there.send("alice", { n: 3 });
    for (const one of [alice, other]) {
      await one.reaches(3);
      assertEquals(one.messages.map(({ seq, g }) => [seq, g]), [[1, undefined], [2, "team"], [3, undefined]]);
      assertEquals(one.messages[1]!.id, id);
      one.assertNoFault();
    }
    assertEquals(await raw.next(), '{"order":7}');
    await bob.connect(there.socketUrl("bob"));
    await bob.reaches(1);
    assertEquals([bob.messages[0]!.g, bob.messages[0]!.r], ["team", 1]);
    await bob.disconnect();
  },
);

everywhere("answers 202 when nobody is online, and 404 when there is no group", async ({ here, there }) => {
  await call(here, "PUT", "/v1/groups/team", { users: ["alice", "bob"] });
  const nobody = await post(there);
  assertEquals([nobody.status, nobody.body.users, nobody.body.unknown], [202, 0, 2]);
  await here.send("alice", 1);
  const offline = await post(there);
  assertEquals([offline.status, offline.body.users, offline.body.stored, offline.body.unknown], [
    202,
    1,
    1,
    1,
  ]);
  const none = await post(here, { group: "tem", key: "k" });
  assertEquals([none.status, none.body.code], [404, "group_not_found"]);
  assertMatch(none.body.detail, /never made, has no users left, or was lost/);
  // The key is free: it was never sent.
  await call(here, "PUT", "/v1/groups/tem", { users: ["alice"] });
  assertEquals((await post(here, { group: "tem", key: "k", data: "another" })).status, 202);
});

everywhere("takes expect, store, except, ttl and wait", async ({ here, there }) => {
  await using alice = await Follower.open(here.socketUrl("alice"));
  for (const user of ["bob", "carol"]) await here.send(user, 0);
  await call(here, "PUT", "/v1/groups/team", { users: ["alice", "bob", "carol"] });
  const expecting = await post(there, { query: "?expect=online" });
  assertEquals([expecting.body.users, expecting.body.offline, expecting.body.stored], [1, 2, 0]);
  const except = await post(there, { query: "?except=carol" });
  assertEquals([except.body.users, except.body.online, except.body.stored], [2, 1, 1]);
  const numbered = await post(there, { query: "?store=online" });
  assertEquals([numbered.body.users, numbered.body.online, numbered.body.stored], [3, 1, 0]);
  const history = async (user: string) => (await call(here, "GET", `/v1/users/${user}/messages`)).body;
  // Bob and Carol have a number without a message: a gap that they are told of.
  assertEquals((await history("bob")).items.map(({ seq }: { seq: number }) => seq), [1, 2]);
  assertEquals((await history("bob")).last, 3);
  assertEquals((await history("carol")).last, 2);
  const position = `${(await history("carol")).epoch}.1`;
  await using carol = await Follower.open(there.socketUrl("carol"), position);
  await until(() => carol.gaps.length === 1, "the gap");
  assertEquals([carol.gaps[0]!.from, carol.gaps[0]!.to, carol.gaps[0]!.why], [2, 2, "trimmed"]);
  alice.onMessage = ({ ack, seq }) => ack && alice.send({ t: "ack", seq: seq! });
  const acked = await post(there, { query: "?except=carol&wait=ack&timeout=20000&ttl=60" });
  assertEquals([acked.body.sockets, acked.body.acked], [1, 1]);
});

onEveryBroker(
  "waits for the receipts of all its sockets, and says how many there are",
  async ({ here, there }) => {
    const members = names(12);
    const followers = [];
    for (const [i, name] of members.entries()) {
      const follower = await Follower.open((i % 2 ? here : there).socketUrl(name));
      follower.onMessage = ({ ack, seq }) => ack && follower.send({ t: "ack", seq: seq! });
      followers.push(follower);
    }
    await call(here, "PUT", "/v1/groups/team", { users: members });
    const sent = await post(there, { query: "?wait=ack&timeout=20000" });
    assertEquals([sent.status, sent.body.sockets, sent.body.acked], [200, 12, 12]);
    // Raw ones never acknowledge: the answer comes when the time is up, and says so.
    await using raw = await openClient(here.socketUrl(members[0]!));
    for (let timeoutMs = 200;; timeoutMs *= 3) {
      const { body } = await post(there, { query: `?wait=ack&timeout=${timeoutMs}` });
      // The others may need more than a moment on a busy machine.
      if (body.acked < 12 && timeoutMs < 10_000) continue;
      assertEquals([body.sockets, body.acked], [13, 12]);
      break;
    }
    await raw.close();
    for (const follower of followers) await follower.disconnect();
  },
);

everywhere("gets a message once, however often it is sent with one key", async ({ here, there }) => {
  await using alice = await Follower.open(here.socketUrl("alice"));
  await call(here, "PUT", "/v1/groups/team", { users: ["alice", "bob"] });
  const sends = await Promise.all([here, there].map((service) => post(service, { key: "k1" })));
  const later = await post(here, { key: "k1" });
  assertEquals(new Set([...sends, later].map(({ body }) => JSON.stringify(body))).size, 1);
  assertEquals(later.headers.get("idempotent-replayed"), "true");
  const other = await post(there, { key: "k1", data: { order: 8 } });
  assertEquals([other.status, other.body.code], [422, "idempotency_conflict"]);
  assertEquals((await post(there, { key: "k 1" })).status, 400);
  await call(here, "DELETE", "/v1/groups/team");
  assertEquals((await post(there, { key: "k1" })).body, later.body);
  await alice.reaches(1);
  assertEquals(alice.messages.length, 1);
});

Deno.test("A group refuses what can't be, and says what and why", async (t) => {
  await using service = await Service.start({
    USERWIRE_MAX_GROUP_USERS: "3",
    USERWIRE_MAX_FANOUT_BYTES: "1000",
  });
  const refused = async (status: number, says: RegExp, method: string, path: string, body?: unknown) => {
    const answer = await call(service, method, path, body);
    assertEquals(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}`);
    assertMatch(answer.body.detail, says);
  };
  await t.step("names that are none", async () => {
    for (const bad of ["a%20b", "userwire:x", "%7Bx%7D", "a".repeat(129), "%ff", "%00"]) {
      await refused(400, /group's name|name of a group/, "GET", `/v1/groups/${bad}`);
      await refused(400, /group's name|name of a group/, "POST", `/v1/groups/${bad}/messages`, 1);
      await refused(400, /username/, "PUT", `/v1/groups/team/users/${bad}`);
    }
    await refused(400, /username/, "PATCH", "/v1/groups/team", { add: ["alice", ""] });
    // What is a name of a user's own is one of a group's, and both meet nowhere.
    assertEquals((await call(service, "PUT", "/v1/groups/__x/users/__x")).status, 200);
    const longest = encodeURIComponent("€".repeat(42));
    assertEquals((await call(service, "PUT", `/v1/groups/${longest}/users/${longest}`)).status, 200);
  });
  await t.step("bodies and queries that are none", async () => {
    await refused(400, /users/, "PUT", "/v1/groups/team", {});
    await refused(400, /Unrecognized key/, "PUT", "/v1/groups/team", { users: [], user: "x" });
    await refused(400, /remove: must have no name/, "PATCH", "/v1/groups/team", {
      add: ["a"],
      remove: ["a"],
    });
    await refused(400, /add/, "PATCH", "/v1/groups/team", { add: names(10_001) });
    await refused(400, /10000 names together/, "PATCH", "/v1/groups/team", {
      add: names(6_000),
      remove: names(6_000, "x"),
    });
    await refused(400, /timeout: needs wait=ack/, "POST", "/v1/groups/team/messages?timeout=5", 1);
    await refused(400, /store/, "POST", "/v1/groups/team/messages?store=none", 1);
    await refused(400, /Unrecognized key/, "POST", "/v1/groups/team/messages?exept=bob", 1);
    await refused(400, /username/, "POST", "/v1/groups/__x/messages?except=a%20b", 1);
  });
  await t.step("groups that are too large, and nothing of them is changed", async () => {
    await refused(413, /would have 4 users, and may have 3/, "PUT", "/v1/groups/team", { users: names(4) });
    await refused(404, /no group/, "GET", "/v1/groups/team");
    await refused(413, /may have 3: nothing was changed/, "PUT", "/v1/groups/team", { users: names(10_001) });
    await call(service, "PUT", "/v1/groups/team", { users: names(3) });
    await refused(413, /would have 4/, "PUT", "/v1/groups/team/users/late");
    const long = "x".repeat(70_000);
    await refused(
      413,
      /65536 bytes: it has 70002; .*_MAX_BODY_BYTES/,
      "POST",
      "/v1/groups/team/messages",
      long,
    );
    await refused(413, /4194304 bytes: it has \d+; send less/, "PUT", "/v1/groups/team", {
      users: [long.repeat(60)],
    });
    await refused(413, /counted once for each user/, "POST", "/v1/groups/team/messages", "x".repeat(300));
    assertEquals((await call(service, "GET", "/v1/groups/team")).body.users, 3);
  });
  await t.step("a payload that can't be read, before anything else", async () => {
    const answer = await service.fetch("/v1/groups/team/messages", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{",
    });
    assertEquals((await answer.json()).code, "invalid_message");
    await refused(405, /takes/, "PATCH", "/v1/groups/team/messages", 1);
  });
  await t.step("what happened is counted", async () => {
    await post(service);
    const metrics = parseMetrics(await (await service.fetch("/metrics")).text());
    assertEquals(metrics.get('userwire_group_sends_total{outcome="sent"}'), 1);
    assertEquals(metrics.get('userwire_group_sends_total{outcome="refused"}'), 1);
    assertEquals(metrics.get('userwire_group_members_total{what="unknown"}'), 3);
    assertEquals(metrics.get("userwire_group_send_duration_seconds_count"), 1);
  });
});

Deno.test("A key addresses the groups that its patterns say, and no others", async () => {
  const key = (name: string, scopes: string[], users: string) => ({
    name,
    ...newKey(name, { scopes, users }),
  });
  const keys = [
    key("all", ["groups", "send", "read"], "*|@*"),
    key("team", ["groups", "send", "read"], "user-*|@team-*"),
    key("none", ["groups", "send", "read"], "*"),
    key("reader", ["read"], "*|@*"),
  ];
  await using service = await Service.start({ USERWIRE_API_KEYS: keys.map(({ line }) => line).join(",") });
  const status = async (name: string, method: string, path: string, body?: unknown) => {
    const { key } = keys.find((one) => one.name === name)!;
    return (await call(service, method, path, body, { authorization: `Bearer ${key}` })).status;
  };
  const cases: [key: string, method: string, path: string, status: number, body?: unknown][] = [
    ["team", "PUT", "/v1/groups/team-1/users/user-1", 200],
    ["team", "PUT", "/v1/groups/other/users/user-1", 403],
    ["team", "PUT", "/v1/groups/team-1/users/bob", 403],
    ["team", "PUT", "/v1/groups/team-1", 403, { users: ["user-1", "bob"] }],
    ["team", "PATCH", "/v1/groups/team-1", 403, { remove: ["bob"] }],
    ["team", "POST", "/v1/groups/team-1/messages", 202, 1],
    ["team", "POST", "/v1/groups/other/messages", 403, 1],
    ["team", "GET", "/v1/groups/other", 403],
    ["team", "GET", "/v1/groups/other/users", 403],
    ["team", "DELETE", "/v1/groups/other", 403],
    ["none", "POST", "/v1/groups/team-1/messages", 403, 1],
    ["none", "PUT", "/v1/groups/team-1/users/user-1", 403],
    ["reader", "GET", "/v1/groups/team-1", 200],
    ["reader", "POST", "/v1/groups/team-1/messages", 403, 1],
    ["reader", "PUT", "/v1/groups/team-1/users/user-1", 403],
    ["all", "PUT", "/v1/groups/other/users/user-1", 200],
    ["none", "GET", "/v1/users/user-1/groups", 200],
    ["reader", "DELETE", "/v1/users/user-1/groups", 403],
    ["team", "DELETE", "/v1/users/bob/groups", 403],
  ];
  for (const [name, method, path, expected, body] of cases) {
    assertEquals(await status(name, method, path, body), expected, `${name}: ${method} ${path}`);
  }
  const groupsOf = async (name: string) => {
    const { key } = keys.find((one) => one.name === name)!;
    return (await call(service, "GET", "/v1/users/user-1/groups", undefined, {
      authorization: `Bearer ${key}`,
    })).body.groups;
  };
  assertEquals(await groupsOf("all"), ["other", "team-1"]);
  assertEquals(await groupsOf("team"), ["team-1"]);
  assertEquals(await groupsOf("none"), []);
  assertEquals(await status("team", "DELETE", "/v1/users/user-1/groups"), 200);
  assertEquals(await groupsOf("all"), ["other"]);
});

Deno.test("A service sends as many messages to groups at one time as it is told to, and refuses more", async () => {
  await using service = await Service.start({ USERWIRE_MAX_GROUP_SENDS: "2" });
  await call(service, "PUT", "/v1/groups/team", { users: ["alice"] });
  await using alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  // Both last until she acknowledges.
  const waiting = [1, 2].map(() => post(service, { query: "?wait=ack&timeout=30000" }));
  await until(async () => (await post(service)).status === 429, "both to be under way");
  const third = await post(service);
  assertEquals([third.body.code, third.headers.get("retry-after")], ["too_many_requests", "1"]);
  assertMatch(third.body.detail, /USERWIRE_MAX_GROUP_SENDS/);
  // Higher than the number of any that she was sent.
  alice.send(JSON.stringify({ t: "ack", seq: 1_000 }));
  for (const answer of await Promise.all(waiting)) assertEquals([answer.status, answer.body.acked], [200, 1]);
  assertEquals((await post(service)).status, 200);
});

Deno.test("A body that comes slowly takes no turn of a group's send", async () => {
  await using service = await Service.start({ USERWIRE_MAX_GROUP_SENDS: "1" });
  await call(service, "PUT", "/v1/groups/team", { users: ["alice"] });
  const begun = Promise.withResolvers<void>();
  const rest = Promise.withResolvers<void>();
  const slow = service.fetch("/v1/groups/team/messages", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: new ReadableStream({
      async pull(controller) {
        controller.enqueue(new TextEncoder().encode("1"));
        begun.resolve();
        await rest.promise;
        controller.close();
      },
    }),
  });
  await begun.promise;
  for (let i = 0; i < 20; i++) assertEquals((await post(service)).status, 202);
  rest.resolve();
  assertEquals((await slow).status, 202);
  await (await slow).body?.cancel();
});
