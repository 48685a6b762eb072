/**
 * TLS towards clients and towards Redis, and the least rights in Redis that work: the main path under the ACL that
 * `docs/security.md` names, read from there.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConfigError } from "../../src/protocol/errors.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { call, CLOSED, KEY, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

Deno.test("With a certificate the service speaks https and wss, and nothing else", async () => {
  await using certificates = await Certificates.make();
  const env = {
    USERWIRE_TLS_CERT: certificates.cert("server"),
    USERWIRE_TLS_KEY: certificates.key("server"),
  };
  await using service = await Service.start({ ...CLOSED, ...env });
  const { url, port } = service.server;
  assertMatch(url, /^https:\/\/127\.0\.0\.1:\d+\/$/);
  using client = Deno.createHttpClient({ caCerts: [certificates.ca] });
  const response = await fetch(`https://localhost:${port}/healthz`, { client });
  assertEquals(await response.json(), { status: "ok" });
  await assertRejects(
    () => fetch(`https://localhost:${port}/healthz`),
    TypeError,
    undefined,
    "it is not trusted",
  );
  await assertRejects(() => fetch(`http://localhost:${port}/healthz`), TypeError);

  await using alice = await openClient(`wss://localhost:${port}/ws`, {
    client,
    protocols: protocolsFor(await tokenFor("alice")),
  } as WebSocketOptions);
  assertEquals((await alice.nextJson()).user, "alice");
  const ticket = await fetch(`https://localhost:${port}/v1/tickets`, {
    client,
    method: "POST",
    headers: { authorization: `Bearer ${KEY.key}`, "content-type": "application/json" },
    body: '{"user":"bob"}',
  });
  assertMatch((await ticket.json()).url, /^wss:\/\/localhost:\d+\/ws\?ticket=/);
});

Deno.test("A new certificate is taken on SIGHUP, one that can't be used is not, and clients are told to come back", async () => {
  await using certificates = await Certificates.make();
  await using renewed = await Certificates.make();
  const cert = certificates.cert("server"), key = certificates.key("server");
  await using service = await Service.start({ ...CLOSED, USERWIRE_TLS_CERT: cert, USERWIRE_TLS_KEY: key });
  const { port } = service.server;
  using before = Deno.createHttpClient({ caCerts: [certificates.ca] });
  using after = Deno.createHttpClient({ caCerts: [renewed.ca] });
  const openAlice = async (client: Deno.HttpClient, query = "") =>
    await openClient(`wss://localhost:${port}/ws${query}`, {
      client,
      protocols: protocolsFor(await tokenFor("alice")),
    } as WebSocketOptions);
  await using alice = await openAlice(before);
  const { pos } = await alice.nextJson();

  const old = [await Deno.readTextFile(cert), await Deno.readTextFile(key)] as const;
  await Deno.writeTextFile(cert, "junk");
  service.server.reload();
  assertMatch(String(service.log.records.at(-2)!.fields.reason), /must hold a certificate/);
  await Deno.copyFile(renewed.cert("server"), cert);
  service.server.reload();
  assertMatch(String(service.log.records.at(-2)!.fields.reason), /is not the one of the certificate/);
  await Deno.writeTextFile(cert, old[0]);
  service.server.reload();
  assertEquals(alice.socket.readyState, WebSocket.OPEN, "keys were read again, nothing else has changed");

  await Deno.copyFile(renewed.cert("server"), cert);
  await Deno.copyFile(renewed.key("server"), key);
  service.server.reload();
  assertEquals(service.logged("certificate replaced: clients are told to come back").length, 1);
  const bye = await alice.nextJson();
  assertEquals([bye.t, bye.code, typeof bye.retry_ms], ["bye", 1012, "number"]);
  assertEquals((await alice.closed).code, 1012);
  await service.server.app.publisher.send("alice", { kind: "json", text: "7" });
  // For a moment both listeners are there, and either may take a connection; then nobody sees the old certificate any more.
  const isRefused = () => openAlice(before).then((client) => client.close().then(() => false), () => true);
  const isGone = async () => {
    for (let tries = 0; tries < 12; tries++) if (!await isRefused()) return false;
    return true;
  };
  await until(isGone, "the old certificate to be gone");
  await using back = await openAlice(after, `?resume=${pos}`);
  assertEquals((await back.nextJson()).replay, 1);
  assertEquals((await back.nextJson()).data, 7, "nothing was missed");
});

Deno.test("A certificate that was renewed for the same key is taken too", async () => {
  await using certificates = await Certificates.make();
  const cert = certificates.cert("server"), key = certificates.key("server");
  await using service = await Service.start({ ...CLOSED, USERWIRE_TLS_CERT: cert, USERWIRE_TLS_KEY: key });
  await Deno.writeTextFile(cert, `${await Deno.readTextFile(cert)}${certificates.ca}`);
  service.server.reload();
  assertEquals(service.logged("certificate replaced: clients are told to come back").length, 1);
});

/** Asks on a connection that stays open, and resolves with the whole answer. */
async function ask(conn: Deno.Conn, path: string, headers: Record<string, string> = {}): Promise<string> {
  const lines = Object.entries({ Host: "localhost", ...headers }).map((pair) => `${pair.join(": ")}\r\n`);
  await conn.write(new TextEncoder().encode(`GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`));
  const buffer = new Uint8Array(10_000);
  let text = "";
  const read = async () => {
    for (;;) {
      const end = text.indexOf("\r\n\r\n");
      const length = Number(/^content-length: (\d+)/im.exec(text)?.[1] ?? 0);
      if (end >= 0 && text.length >= end + 4 + length) return text;
      const count = await conn.read(buffer);
      if (count === null) return text;
      text += new TextDecoder().decode(buffer.subarray(0, count));
    }
  };
  return await withDeadline(read(), 20_000, `the answer to ${path}`, () => text);
}

Deno.test("A listener whose certificate was replaced takes no sockets on connections that it has from before", async () => {
  await using certificates = await Certificates.make();
  await using renewed = await Certificates.make();
  const cert = certificates.cert("server"), key = certificates.key("server");
  const env = { USERWIRE_TLS_CERT: cert, USERWIRE_TLS_KEY: key, USERWIRE_DRAIN_S: "60" };
  await using service = await Service.start(env);
  const { port } = service.server;
  const dial = () => Deno.connectTls({ hostname: "localhost", port, caCerts: [certificates.ca] });
  const handshake = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
  };
  // It answers no close, and as long as it is there the old listener goes on.
  using staying = await dial();
  assertMatch(await ask(staying, "/ws?username=alice", handshake), /^HTTP\/1\.1 101 /);
  using late = await dial();
  assertMatch(await ask(late, "/healthz"), /^HTTP\/1\.1 200 /);

  await Deno.copyFile(renewed.cert("server"), cert);
  await Deno.copyFile(renewed.key("server"), key);
  service.server.reload();
  const refused = await ask(late, "/ws?username=bob", handshake);
  assertMatch(refused, /^HTTP\/1\.1 503 [^]*"code":"draining"/);
  assertMatch(refused, /connect again/);
  assertMatch(await ask(late, "/healthz"), /^HTTP\/1\.1 200 /, "what is no socket is answered");
});

Deno.test("Certificates that can't be used are reported at the start, all at once, and not shown", async () => {
  await using certificates = await Certificates.make();
  const { dir } = certificates;
  await Deno.writeTextFile(`${dir}/junk.pem`, "hunter2");
  const faultsOf = async (env: Record<string, string>) => {
    const { faults } = await assertRejects(() => Service.start(env), ConfigError);
    assert(!faults.join().includes("hunter2"));
    return faults.join("\n");
  };
  const cert = certificates.cert("server"), key = certificates.key("server");
  assertMatch(await faultsOf({ USERWIRE_TLS_CERT: cert }), /USERWIRE_TLS_CERT needs USERWIRE_TLS_KEY/);
  assertMatch(
    await faultsOf({ USERWIRE_TLS_CERT: `${dir}/no`, USERWIRE_TLS_KEY: `${dir}/junk.pem` }),
    /no can't be read[^]*USERWIRE_TLS_KEY: .*must hold a private key/,
  );
  assertMatch(
    await faultsOf({ USERWIRE_TLS_CERT: key, USERWIRE_TLS_KEY: cert }),
    /must hold a certificate[^]*must hold a private key/,
  );
  assertMatch(
    await faultsOf({ USERWIRE_TLS_CERT: cert, USERWIRE_TLS_KEY: certificates.key("other") }),
    /is not the one of the certificate/,
  );
  assertMatch(
    await faultsOf({ REDIS_URL: "rediss://localhost", REDIS_CA: `${dir}/junk.pem` }),
    /REDIS_CA: .*must hold a certificate/,
  );
});

/** Both ways of subscribing: settings, and the word for what Redis counts. */
const MODES = [
  { env: { USERWIRE_SUBSCRIPTIONS: "dedicated" }, counted: "sockets" },
  { env: { USERWIRE_SUBSCRIPTIONS: "shared" }, counted: "nodes" },
] as const;

/** Sends, replays, asks, revokes and closes: everything that goes to Redis. */
async function walkMainPath(service: Service, counted: "sockets" | "nodes"): Promise<void> {
  const token = await tokenFor("alice", { jti: "one" });
  const alice = await openClient(service.socketUrl(), protocolsFor(token));
  const { pos } = await alice.nextJson();
  const sent = await call(service, "POST /v1/users/alice/messages", {
    body: { n: 1 },
    headers: { "idempotency-key": "k" },
  });
  assertEquals([sent.status, sent.body[counted]], [200, 1], JSON.stringify(sent.body));
  assertEquals((await alice.nextJson()).data, { n: 1 });
  const waited = call(service, "POST /v1/users/alice/messages?wait=ack", { body: 2 });
  const { seq } = await alice.nextJson();
  alice.send(JSON.stringify({ t: "ack", seq }));
  assertEquals((await waited).body.acked, 1);
  assertEquals((await call(service, "POST /v1/users/online", { body: { users: ["alice", "bob"] } })).body, {
    alice: 1,
    bob: 0,
  });
  await alice.close();
  await service.isEmpty();
  await until(async () => await service.server.app.publisher.count("alice") === 0, "Redis to know it");
  assertEquals((await call(service, "POST /v1/users/alice/messages?expect=online", { body: 3 })).status, 404);
  assertEquals((await call(service, "POST /v1/users/alice/messages", { body: 3 })).body.stored, true);
  assertEquals((await call(service, "GET /v1/users/alice/messages")).body.items.length, 3);
  const ticket = (await call(service, "POST /v1/tickets", { body: { user: "alice" } })).body.ticket;
  assertEquals((await call(service, "GET /v1/nodes")).body.items.length, 1);
  await using back = await openClient(`${service.socketUrl()}?ticket=${ticket}&resume=${pos}`, [
    "userwire.v1",
  ]);
  const { replay, conn } = await back.nextJson();
  assertEquals(replay, 3);
  assertEquals((await back.nextJson()).r, 1);
  const { items } = (await call(service, "GET /v1/users/alice/connections")).body;
  assertEquals(items.map((item: { conn: string }) => item.conn), [conn]);
  assertEquals((await call(service, "DELETE /v1/users/alice/connections/other")).status, 404);
  assertEquals((await call(service, "POST /v1/users/alice/revocations", { body: {} })).status, 201);
  assertEquals((await back.closed).code, 4401);
  const team = { users: ["alice", "bob", "carol"] };
  assertEquals((await call(service, "PUT /v1/groups/team", { body: team })).body.users, 3);
  assertEquals((await call(service, "DELETE /v1/groups/team/users/carol")).body.removed, 1);
  const { body } = await call(service, "POST /v1/groups/team/messages", {
    body: 4,
    headers: { "idempotency-key": "g" },
  });
  assertEquals([body.stored, body.unknown], [1, 1], JSON.stringify(body));
  assertEquals((await call(service, "GET /v1/groups/team/users")).body.items.length, 2);
  assertEquals((await call(service, "GET /v1/users/alice/groups")).body.groups, ["team"]);
  assertEquals((await call(service, "DELETE /v1/groups/team")).body.users, 2);
}

/** A Redis that wants to see client certificates on this port, too. */
function redisBehind(certificates: Certificates, tlsPort: OwnPort): Promise<RedisServer> {
  return RedisServer.start({
    args: [
      ...["--tls-port", `${tlsPort}`, "--tls-ca-cert-file", certificates.cert("ca")],
      ...["--tls-cert-file", certificates.cert("server"), "--tls-key-file", certificates.key("server")],
      ...["--tls-auth-clients", "yes"],
    ],
  });
}

redisTest(
  "rediss:// works with a private authority, a client certificate and an ACL user, for every connection",
  async () => {
    using port = OwnPort.take();
    await using certificates = await Certificates.make();
    await using redis = await redisBehind(certificates, port);
    await redis.cli("ACL", "SETUSER", "userwire", "on", ">s3cret", "~*", "&*", "+@all");
    await redis.cli(
      "ACL",
      "SETUSER",
      "default",
      "-@all",
      "+ping",
      "+info",
      "+client",
      "+pubsub",
      "+acl",
      "+config",
      "+flushall",
    );
    const good = {
      ...CLOSED,
      REDIS_URL: `rediss://userwire:s3cret@localhost:${port}`,
      REDIS_CA: certificates.cert("ca"),
      REDIS_CERT: certificates.cert("client"),
      REDIS_KEY: certificates.key("client"),
    };
    for (const { env, counted } of MODES) {
      await redis.cli("FLUSHALL");
      await using service = await Service.start({ ...good, ...env });
      await walkMainPath(service, counted);
    }
    // With an authority that did not sign the server's certificate nothing gets through. Not without our certificate
    // at the same time: Deno reports an alert about that where nobody can catch it.
    await redis.cli("CONFIG", "SET", "tls-auth-clients", "no");
    for (const { env } of MODES) {
      const { REDIS_CA: _ca, REDIS_CERT: _cert, REDIS_KEY: _key, ...untrusting } = good;
      await using service = await Service.start({ ...untrusting, ...env });
      const { status, body } = await call(service, "POST /v1/users/alice/messages", { body: 1 });
      assertEquals(status, 503);
      assert(!JSON.stringify([body, service.log.records]).includes("s3cret"));
    }
    const { faults } = await assertRejects(
      () => Service.start({ ...good, REDIS_URL: good.REDIS_URL.replace("s3cret", "wrong") }),
      ConfigError,
    );
    assertMatch(faults.join(), /refused the password or the user/);
    assert(!faults.join().includes("wrong@"));
  },
);

redisTest(
  "A Redis that refuses the client certificate is named in the log, and the process lives",
  async () => {
    using port = OwnPort.take();
    await using certificates = await Certificates.make();
    await using _redis = await redisBehind(certificates, port);
    const without = { REDIS_URL: `rediss://localhost:${port}`, REDIS_CA: certificates.cert("ca") };
    await using service = await ProcessService.start(without);
    await until(
      () => service.records.some(({ reason }) => /set REDIS_CERT and REDIS_KEY/.test(String(reason))),
      "the log to say what is missing",
      10_000,
    );
    const { status } = await fetch(new URL("/v1/users/alice/messages", service.url), {
      method: "POST",
      body: "1",
      headers: { "content-type": "application/json" },
    }).then(async (response) => ({ status: response.status, text: await response.text() }));
    assertEquals(status, 503);
  },
);

redisTest(
  "With a prefix the channels can be narrowed to it, and a database takes one right more",
  async (t) => {
    const page = await Deno.readTextFile(new URL("../../docs/redis.md", import.meta.url));
    const rule = /^ACL SETUSER userwire (.+)$/m.exec(page)![1]!.split(" ");
    await using redis = await RedisServer.start();
    const narrowed = rule.map((word) => word === ">PASSWORD" ? ">s3cret" : word === "&*" ? "&prod:*" : word);
    await redis.cli("ACL", "SETUSER", "userwire", ...narrowed, "+select");
    const url = `${redis.url.replace("redis://", "redis://userwire:s3cret@")}/3`;
    for (const { env, counted } of MODES) {
      await t.step(env.USERWIRE_SUBSCRIPTIONS, async () => {
        await redis.cli("FLUSHALL");
        await using service = await Service.start({
          ...CLOSED,
          ...env,
          REDIS_URL: url,
          USERWIRE_CHANNEL_PREFIX: "prod:",
        });
        await walkMainPath(service, counted);
        assertEquals(await redis.cli("ACL", "LOG"), [], "nothing was denied");
      });
    }
  },
);

redisTest("The main path works with no more rights in Redis than docs/security.md gives", async (t) => {
  const page = await Deno.readTextFile(new URL("../../docs/security.md", import.meta.url));
  const rule = /^ACL SETUSER userwire (.+)$/m.exec(page)?.[1];
  assert(rule, "docs/security.md has the rule");
  await using redis = await RedisServer.start();
  await redis.cli(
    "ACL",
    "SETUSER",
    "userwire",
    ...rule.split(" ").map((word) => word === ">PASSWORD" ? ">s3cret" : word),
  );
  const url = redis.url.replace("redis://", "redis://userwire:s3cret@");
  await redis.cli("CONFIG", "RESETSTAT");
  for (const { env, counted } of MODES) {
    await t.step(`it is enough, ${env.USERWIRE_SUBSCRIPTIONS}`, async () => {
      await redis.cli("FLUSHALL");
      await redis.cli("ACL", "LOG", "RESET");
      await using service = await Service.start({ ...CLOSED, ...env, REDIS_URL: url });
      await walkMainPath(service, counted);
      if (counted === "nodes") {
        // The shared connection is pinged when it has been quiet for a while.
        const isPinged = async () => /^cmdstat_ping:/m.test(String(await redis.cli("INFO", "commandstats")));
        await until(isPinged, "a ping", 20_000);
      }
      assertEquals(service.log.records.filter(({ level }) => level === "error"), []);
      assertEquals(await redis.cli("ACL", "LOG"), [], "nothing was denied");
    });
  }
  await t.step("docs/redis.md has the same rule", async () => {
    const other = await Deno.readTextFile(new URL("../../docs/redis.md", import.meta.url));
    assertEquals(/^ACL SETUSER userwire (.+)$/m.exec(other)?.[1], rule);
  });
  await t.step("nothing in it can be left out", async () => {
    const allowed = rule.split(" ").filter((word) => word.startsWith("+")).map((word) => word.slice(1));
    assert(allowed.length > 10);
    const used = String(await redis.cli("INFO", "commandstats"));
    // One takes back what could not be done whole, the other clears away after a day.
    const seldom = ["xdel", "hdel"];
    const idle = allowed.filter((command) =>
      !seldom.includes(command) && !new RegExp(`^cmdstat_${RegExp.escape(command)}:`, "m").test(used)
    );
    assertEquals(idle, []);
  });
  await t.step("other keys and commands are out of reach", async () => {
    for (const words of [["GET", "other"], ["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"]]) {
      const verdict = String(await redis.cli("ACL", "DRYRUN", "userwire", ...words));
      assertMatch(verdict, /no permissions|can't/i, words.join(" "));
    }
  });
});
