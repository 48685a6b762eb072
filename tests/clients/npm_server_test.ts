/** `userwire/server`, from its source, against a real service: what each call comes to, and how often it is repeated. */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { createServer, InvalidMessageError, UserwireError } from "../../clients/npm/server.ts";
import { newKey } from "../../src/auth/keys.ts";
import { SECRET } from "../../testkit/closed.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const KEY = newKey("backend", { scopes: ["send", "read", "groups", "broadcast", "admin"], users: "*|@*" });

/** The error that a call ends with. */
function failure(call: Promise<unknown>): Promise<UserwireError> {
  return assertRejects(() => call, UserwireError);
}

Deno.test("A backend sends, asks, lets in and ends by userwire/server", async (t) => {
  await using service = await Service.start({ USERWIRE_JWT_SECRET: SECRET, USERWIRE_API_KEYS: KEY.line });
  // Read from a file, it ends with a new line.
  const userwire = createServer({ url: `${service.server.url}/`, key: `${KEY.key}\n` });

  await t.step("to nobody, and by a ticket to somebody", async () => {
    const { sockets, stored, seq } = await userwire.send("Zoë/&?#", { order: 6 });
    assertEquals([sockets, stored, seq], [0, true, 1]);
    const { ticket, url } = await userwire.ticket("alice", { ttlS: 60 });
    assertMatch(url, new RegExp(`ticket=${ticket}$`));
    await using alice = await openClient(url);
    assertEquals((await userwire.send("alice", { order: 7 })).sockets, 1);
    assertEquals((await userwire.send("alice", "text", { ttlS: 60, expectOnline: true })).sockets, 1);
    assertEquals((await userwire.send("alice", Uint8Array.of(0, 255))).seq, 3);
    assertEquals(await alice.next(), '{"order":7}');
    assertEquals(await alice.next(), "text");
    assertEquals(await alice.next(), Uint8Array.of(0, 255));
    assertEquals((await userwire.send("alice", 1, { waitAckMs: 1 })).acked, 0);
    assertEquals([await userwire.online("alice"), await userwire.online("bob")], [true, false]);
    assertEquals(await userwire.online(["alice", "bob"]), { alice: 1, bob: 0 });
    const { items, unanswered } = await userwire.connections("alice");
    assertEquals([items.map(({ mode }) => mode), unanswered], [["raw"], 0]);
    const gone = await assertRejects(() => userwire.closeConnection("alice", "a/b?"), UserwireError);
    assertEquals([gone.code, gone.status], ["connection_not_found", 404]);
    assertEquals(await userwire.kick("alice", { code: 4403, why: "a & b" }), { closed: 1 });
    assertEquals(await alice.next(), "1");
    assertEquals(await alice.closed, { code: 4403, reason: "a & b" });
  });

  await t.step("to everybody, and reads what is kept", async () => {
    await using alice = await openClient((await userwire.ticket("alice")).url, "userwire.v1");
    assertEquals((await alice.nextJson()).t, "hi");
    const options = { ttlS: 60, idempotencyKey: "all-1" };
    const sent = await userwire.broadcast({ sale: true }, options);
    assertEquals([sent.nodes, sent.sockets, sent.seq], [1, 1, 1]);
    const { sockets: _, ...known } = sent;
    assertEquals(await userwire.broadcast({ sale: true }, options), known);
    const got = await alice.nextJson();
    assertEquals([got.t, got.seq, got.data], ["b", 1, { sale: true }]);

    await userwire.send("kay", { order: 1 });
    const second = await userwire.send("kay", Uint8Array.of(0, 255));
    const all = await userwire.history("kay");
    assertEquals([all.first, all.last, all.items.map(({ data }) => data)], [1, 2, [
      { order: 1 },
      Uint8Array.of(0, 255),
    ]]);
    assertEquals([all.epoch, all.items[1]!.id], [second.epoch!, second.id]);
    const { tag } = all.items[0]!;
    for (const after of [1, `${all.epoch}.1.${tag}`]) {
      assertEquals((await userwire.history("kay", { after, limit: 5 })).items, all.items.slice(1));
    }
    assertEquals((await failure(userwire.history("kay", { after: "other.1" }))).code, "epoch_changed");
    assertEquals(await userwire.history("nobody"), { epoch: "", first: 0, last: 0, items: [] });
  });

  await t.step("lets in more than once where that is asked for", async () => {
    const { url, events, ticket } = await userwire.ticket("lea", { ttlS: 60, reuse: true });
    assertMatch(events, new RegExp(`^http://.*/v1/events\\?ticket=${ticket}$`));
    await using _first = await openClient(url);
    await using _second = await openClient(url);
    const { items } = await userwire.connections("lea");
    assertEquals(items.length, 2);
    // None of them may end them all.
    for (const conn of ["", ".", ".."]) {
      await assertRejects(() => userwire.closeConnection("lea", conn), InvalidMessageError, "connection");
    }
    await userwire.closeConnection("lea", items[0]!.conn);
    assertEquals((await userwire.connections("lea")).items.length, 1);
  });

  await t.step("many at once, of every kind, numbers as they are", async () => {
    await using bob = await openClient((await userwire.ticket("bob")).url);
    const results = await userwire.sendBatch([
      { to: "bob", message: { kind: "json", text: '{"n":12345678901234567890}' }, id: "x" },
      { to: ["bob", "eve"], message: "text", ttlS: 60 },
      { to: "bob", message: Uint8Array.of(1) },
      { to: "eve", message: null, expectOnline: true },
    ]);
    assertEquals(results.map(({ sockets }) => sockets), [1, 1, 1, 0]);
    assertEquals([results[0]!.id, results[1]!.users], ["x", { bob: 1, eve: 0 }]);
    assertEquals(results[3]!.error?.code, "user_offline");
    assertEquals(await bob.next(), '{"n":12345678901234567890}');
    assertEquals(await bob.next(), "text");
    assertEquals(await bob.next(), Uint8Array.of(1));
    assertMatch(JSON.stringify(await userwire.revoke("bob")), /^\{"issued_before":\d{10}\}$/);
    assertEquals((await bob.closed).code, 4401);
    assertEquals(await userwire.revoke("bob", { jti: "j" }), { jti: "j" });
  });

  await t.step("a group that it keeps, by every call", async () => {
    const { groups } = userwire;
    const made = await groups.put("team/7é", ["gina", "hal", "ida"]);
    assertEquals([made.added, made.removed, made.users], [3, 0, 3]);
    assertEquals((await groups.add("team/7é", ["jo", "ida"])).added, 1);
    const { version, removed } = await groups.remove("team/7é", ["hal"]);
    assertEquals(removed, 1);
    const late = await failure(groups.put("team/7é", [], { ifVersion: made.version }));
    assertEquals([late.code, late.status, late.outcome], ["group_changed", 412, "refused"]);
    assertEquals((await groups.put("team/7é", ["gina", "ida", "jo"], { ifVersion: version })).users, 3);

    await using gina = await openClient((await userwire.ticket("gina")).url, "userwire.v1");
    assertEquals((await gina.nextJson()).t, "hi");
    await userwire.send("ida", "seen");
    const options = { idempotencyKey: "group-1", except: "jo" };
    const sent = await userwire.sendToGroup("team/7é", { order: 7 }, options);
    assertEquals([sent.users, sent.online, sent.sockets, sent.stored, sent.unknown], [2, 1, 1, 1, 0]);
    assertEquals(await userwire.sendToGroup("team/7é", { order: 7 }, options), sent);
    assertEquals((await gina.nextJson()).g, "team/7é");
    assertEquals((await userwire.sendToGroup("team/7é", "now", { expectOnline: true })).offline, 2);
    assertEquals((await userwire.sendToGroup("team/7é", Uint8Array.of(1), { store: "online" })).stored, 0);
    const got = [await gina.nextJson(), await gina.nextJson()];
    assertEquals(got.map(({ seq, data }) => [seq, data]), [[2, "now"], [3, "AQ=="]]);

    const info = await groups.get("team/7é");
    assertEquals([info.users, info.online, info.sockets], [3, 1, 1]);
    assertEquals(await groups.members("team/7é", { limit: 1 }), {
      items: [{ user: "gina", sockets: 1 }],
      next: "gina",
    });
    const rest = await groups.members("team/7é", { after: "gina" });
    assertEquals([rest.items.map(({ user }) => user), rest.next], [["ida", "jo"], undefined]);
    assertEquals(await groups.of("ida"), ["team/7é"]);
    assertEquals([await groups.leaveAll("ida"), await groups.of("ida")], [["team/7é"], []]);
    assertEquals(await groups.delete("team/7é"), 2);
    for (
      const call of [
        userwire.sendToGroup("team/7é", 1),
        groups.get("team/7é"),
        groups.members("team/7é"),
        groups.delete("team/7é"),
      ]
    ) {
      const { code, status } = await failure(call);
      assertEquals([code, status], ["group_not_found", 404]);
    }
    assertEquals((await failure(groups.put("two\nwords", ["a"]))).code, "invalid_group");
    assertEquals((await failure(groups.add("team", ["two words"]))).code, "invalid_username");
    for (const name of ["", ".", "..", undefined as unknown as string]) {
      await assertRejects(() => groups.put(name, ["a"]), InvalidMessageError, "group");
      await assertRejects(() => userwire.sendToGroup(name, 1), InvalidMessageError, "group");
    }
  });

  await t.step("what is refused is told in the service's words, and not repeated", async () => {
    const offline = await failure(userwire.send("nobody", 1, { expectOnline: true }));
    assertEquals([offline.code, offline.status, offline.outcome], ["user_offline", 404, "refused"]);
    assertEquals((await failure(userwire.send("two words", 1))).code, "invalid_username");
    assertEquals((await failure(userwire.send("a", 1, { ttlS: 0 }))).code, "invalid_request");
    assertEquals((await failure(userwire.send("a", 1, { idempotencyKey: "a b" }))).code, "invalid_message");
    await userwire.send("a", 1, { idempotencyKey: "k" });
    assertEquals(
      (await failure(userwire.send("a", 2, { idempotencyKey: "k" }))).code,
      "idempotency_conflict",
    );
    for (const user of ["", ".", ".."]) {
      await assertRejects(() => userwire.send(user, 1), InvalidMessageError);
    }
    await assertRejects(
      () => userwire.send("a", undefined as never),
      InvalidMessageError,
      "Undefined is no payload",
    );
    const stranger = createServer({ url: service.server.url, key: newKey("x", { scopes: ["send"] }).key });
    const unauthorized = await failure(stranger.send("a", 1));
    assertEquals([unauthorized.code, unauthorized.status], ["unauthorized", 401]);
    const nameless = createServer({ url: service.server.url });
    assertEquals((await failure(nameless.online("a"))).status, 401);
  });
});

Deno.test("createServer refuses at once what could never work, and shows no key", () => {
  for (
    const url of ["", "push.example.com", "ws://host", "https://u:p@host", "https://host/?a=1", undefined]
  ) {
    assertThrows(() => createServer({ url: url as string }), TypeError, `"url" must`);
  }
  for (const key of ["", " ", "two words", "kéy", "a\r\nb"]) {
    const { message } = assertThrows(
      () => createServer({ url: "https://host", key }),
      TypeError,
      "The key must be",
    );
    assertEquals(message.includes("words"), false);
  }
});

/** A server that gives these answers, one after the other, and counts. */
function answering(...answers: (() => Response)[]) {
  const seen: { key: string | null; body: string }[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    seen.push({ key: request.headers.get("idempotency-key"), body: await request.text() });
    return (answers.shift() ?? (() => Response.json({ id: "i", sockets: 1 })))();
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  return { seen, url, [Symbol.asyncDispose]: () => server.shutdown() };
}

const busy = (code: string, status: number, detail: string) => () =>
  Response.json({ code, detail }, { status, headers: { "content-type": "application/problem+json" } });

Deno.test("A send is repeated with the same key until the service takes it", async () => {
  await using server = answering(
    busy("broker_unavailable", 503, "Redis is away; nothing was sent"),
    () => new Response("<html>", { status: 502 }),
    busy("too_many_requests", 429, "Slow down"),
  );
  const userwire = createServer({ url: server.url, maxWaitMs: 5 });
  assertEquals((await userwire.send("alice", { order: 7 })).sockets, 1);
  assertEquals(server.seen.length, 4);
  assertEquals(new Set(server.seen.map(({ key }) => key)).size, 1);
  assertMatch(server.seen[0]!.key!, /^[\da-f-]{36}$/);
  await userwire.send("alice", 1);
  assertEquals(new Set(server.seen.map(({ key }) => key)).size, 2, "another send has another key");
});

Deno.test("A send that is given up says what came last, and whether it may have been done", async () => {
  const away = busy("broker_unavailable", 503, "Redis is away; nothing was sent");
  await using refusing = answering(away, away, away);
  const options = { maxWaitMs: 5, retries: 2 };
  const refused = await failure(createServer({ url: refusing.url, ...options }).send("a", 1));
  assertEquals([refused.message, refused.outcome], ["Redis is away; nothing was sent", "refused"]);
  assertEquals(refusing.seen.length, 3);
  await using unsure = answering(
    busy("broker_unavailable", 503, "Redis is away; the message may or may not have been delivered"),
    away,
    away,
  );
  assertEquals(
    (await failure(createServer({ url: unsure.url, ...options }).send("a", 1))).outcome,
    "unknown",
  );
  using port = OwnPort.take();
  const nowhere = await failure(createServer({ url: `http://127.0.0.1:${port}`, ...options }).send("a", 1));
  assertEquals([nowhere.code, nowhere.status, nowhere.outcome], ["unreachable", undefined, "refused"]);
  await using silent = answering(...Array(3).fill(() => new Response(new ReadableStream({}))));
  const late = await failure(
    createServer({ url: silent.url, timeoutMs: 50, maxWaitMs: 1, retries: 0 }).send("a", 1),
  );
  assertEquals(late.outcome, "unknown");
  assertMatch(late.message, /can't be reached: no answer came for 0.05 s/);
});

Deno.test("What is no Userwire is told from one", async () => {
  const html = () => new Response("<html>Log in</html>", { headers: { "content-type": "text/html" } });
  await using page = answering(html);
  const login = await failure(createServer({ url: page.url }).send("a", 1));
  assertEquals([login.code, page.seen.length], ["not_userwire", 1]);
  assertMatch(login.message, /answers with 200 and text\/html/);
  await using moved = answering(() => Response.redirect("https://push.example/v1", 301));
  const redirected = await failure(createServer({ url: moved.url }).send("a", 1));
  assertMatch(redirected.message, /it sends to https:\/\/push.example\/v1: give that as the address/);
});
