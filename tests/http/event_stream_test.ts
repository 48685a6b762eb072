/**
 * `GET /v1/events` and `POST /v1/events/{conn}` as HTTP: who is let in, what is refused, what pages and proxies need, and
 * clients that are no friends. What both ways to connect promise is in `connection_flow_test.ts`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Session } from "../../src/session/session.ts";
import { call, CLOSED, KEY } from "../../testkit/closed.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { HeldSubscriptions } from "../../testkit/held_subscriptions.ts";
import { nodesTest, numbers, send } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { post, SseClient } from "../../testkit/sse_client.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { openClient } from "../../testkit/ws_client.ts";

const PATH = "/v1/events?username=alice";
const ORIGIN = "https://app.example";

function bearer(text: string): Record<string, string> {
  return { authorization: `Bearer ${text}` };
}

/** Ends every stream as its time does. */
function outlive(service: Service): void {
  for (const member of service.server.app.connections.live()) (member as Session).expired();
}

Deno.test("Stream has the headers that proxies and pages need", async (t) => {
  await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: ORIGIN });
  await t.step("of an answer", async () => {
    await using alice = await SseClient.open(service.socketUrl("alice"), { headers: { origin: ORIGIN } });
    const { headers } = alice.response;
    const names = ["content-type", "cache-control", "x-accel-buffering", "access-control-allow-origin"];
    assertEquals(names.map((name) => headers.get(name)), [
      "text/event-stream",
      "no-store, no-transform",
      "no",
      ORIGIN,
    ]);
    assertEquals([headers.get("content-length"), headers.get("vary")], [null, "Origin"]);
  });
  await t.step("of a page that is not listed", async () => {
    await using alice = await SseClient.open(service.socketUrl("alice"), {
      headers: { origin: "https://other.example" },
    });
    assertEquals((await alice.problem()).code, "origin_not_allowed");
    const answer = await post(service.socketUrl("alice"), "c", { t: "p" }, {
      origin: "https://other.example",
    });
    assertEquals(answer.code, "origin_not_allowed");
  });
  await t.step("of a preflight", async () => {
    for (const path of ["/v1/events", "/v1/events/conn"]) {
      const answer = await service.fetch(path, {
        method: "OPTIONS",
        headers: {
          ...{ origin: ORIGIN, "access-control-request-method": "GET" },
          "access-control-request-headers": "authorization, last-event-id",
        },
      });
      const { headers } = answer;
      assertEquals([answer.status, headers.get("access-control-allow-headers")], [
        204,
        "authorization, last-event-id",
      ]);
      assertEquals(headers.get("access-control-allow-origin"), ORIGIN);
    }
  });
  await t.step("of a HEAD, which opens nothing", async () => {
    const head = await service.fetch(PATH, { method: "HEAD" });
    assertEquals([head.status, head.headers.get("content-type")], [200, "text/event-stream"]);
    assertEquals((await service.fetch("/v1/events", { method: "HEAD" })).status, 400);
    assertEquals(service.logged("connection opened").filter(({ fields }) => fields.user !== "alice"), []);
  });
  await t.step("of other methods", async () => {
    for (const [method, path, allow] of [["POST", PATH, "GET"], ["GET", "/v1/events/conn", "POST"]]) {
      const answer = await service.fetch(path!, { method: method! });
      assertEquals([answer.status, (await answer.json()).code], [405, "method_not_allowed"]);
      assertMatch(answer.headers.get("allow")!, RegExp(allow!));
    }
  });
  await service.isEmpty();
});

Deno.test("Stream begins where Last-Event-ID says, whatever stands in the address", async () => {
  await using service = await Service.start();
  const alice = await SseClient.open(service.socketUrl("alice"));
  await alice.next("hi");
  const start = alice.lastId!;
  await send(service, 1);
  await alice.next("m");
  const { lastId } = alice;
  await alice[Symbol.asyncDispose]();
  await send(service, 2);
  const url = `${service.socketUrl("alice")}&resume=${encodeURIComponent(start)}`;
  const asked: [headers: Record<string, string>, data: number[]][] = [
    [{}, [1, 2]],
    [{ "last-event-id": "" }, [1, 2]],
    [{ "last-event-id": lastId! }, [2]],
    [{ "last-event-id": lastId!.split(",")[0]! }, [2]],
  ];
  for (const [headers, data] of asked) {
    await using back = await SseClient.open(url, { headers });
    await back.until(() => back.data.length >= data.length, "what was missed");
    assertEquals(back.data, data);
  }
  // A place that proves nothing is a gap, and nobody else's message.
  const bobs = await service.server.app.publisher.send("bob", "his");
  for (const lie of ["Zk3vQ9aB.17", `${start.split(".")[0]}.999.AAAAAAAA`, `${bobs.epoch}.${bobs.seq}`]) {
    await using liar = await SseClient.open(url, { headers: { "last-event-id": lie } });
    assertEquals([(await liar.next("hi")).resumed, (await liar.next("gap")).why], [false, "epoch"]);
    assertEquals(liar.data.includes("his"), false);
  }
  for (const garbage of ["x", "1", "🙂", `${lastId},1`, "a.1.b.2", "a.99999999999999999"]) {
    await using liar = await SseClient.open(url, { headers: { "last-event-id": encodeURI(garbage) } });
    const { status, code, detail } = await liar.problem();
    assertEquals([status, code], [400, "invalid_handshake"], garbage);
    assertMatch(detail, /Last-Event-ID must be a position/);
  }
});

const { everywhere } = nodesTest("A plain EventSource");

everywhere("loses, repeats and reorders nothing over ends of its stream", async ({ here, there }) => {
  using closing = new DisposableStack();
  const source = closing.adopt(
    new EventSource(new URL(PATH, here.server.url)),
    (source) => source.close(),
  );
  const data: unknown[] = [];
  const broadcasts: unknown[] = [];
  let opened = 0;
  source.addEventListener("hi", () => opened++);
  source.addEventListener("m", ({ data: text }) => data.push(JSON.parse(text).data));
  source.addEventListener("b", ({ data: text }) => broadcasts.push(JSON.parse(text).data));
  source.addEventListener("gap", ({ data: text }) => data.push(text));
  await until(() => opened === 1, "the stream to open");
  let sent = 0;
  for (let round = 1; round <= 3; round++) {
    // Before it comes back, too.
    outlive(here);
    for (let n = 0; n < 5; n++) await send(n % 2 ? here : there, ++sent);
    await there.server.app.publisher.broadcast(round);
    await until(() => opened === round + 1, "the stream to open again");
    await send(there, ++sent);
  }
  await until(() => data.length >= sent && broadcasts.length >= 3, "everything", undefined, () => data);
  assertEquals([data, broadcasts], [numbers(1, sent), [1, 2, 3]]);
  assertEquals(here.logged("connection closed").map(({ fields }) => fields.code), [1012, 1012, 1012]);
});

Deno.test("Stream takes tickets: once, or again where that was asked for", async (t) => {
  await using service = await Service.start(CLOSED);
  const ticketFor = async (user: string, more = {}) => {
    const { status, body } = await call(service, "POST /v1/tickets", { body: { user, ...more } });
    assertEquals(status, 201);
    return body as { ticket: string; url: string; events: string };
  };
  await t.step("once", async () => {
    const { events } = await ticketFor("alice");
    assertMatch(events, /^http:\/\/127\.0\.0\.1:\d+\/v1\/events\?ticket=[\w-]{43}$/);
    await using alice = await SseClient.open(events);
    assertEquals((await alice.next("hi")).user, "alice");
    await using again = await SseClient.open(events);
    assertEquals((await again.problem()).status, 401);
    assertEquals(service.logged("ticket made that may be used again"), []);
  });
  await t.step("again, for a socket too, and it says so in the log", async () => {
    const { events, url } = await ticketFor("alice", { reuse: true, ttl: 600 });
    for (const _ of numbers(1, 2)) {
      await using alice = await SseClient.open(events);
      assertEquals(await post(events, await alice.conn(), { t: "ack", seq: 0 }), {
        status: 204,
        code: undefined,
      });
    }
    await using socket = await openClient(url, "userwire.v1");
    assertEquals((await socket.nextJson()).user, "alice");
    const [line] = service.logged("ticket made that may be used again");
    assertEquals(line!.fields, { user: "alice", key: "tests", seconds: 600 });
  });
  await t.step("of somebody else, which leads to nobody's connection", async () => {
    const his = await ticketFor("bob", { reuse: true });
    await using alice = await SseClient.open((await ticketFor("alice")).events);
    const conn = await alice.conn();
    assertEquals((await post(his.events, conn, { t: "ack", seq: 0 })).code, "connection_not_found");
    const posing = `${his.events}&username=alice`;
    assertEquals((await post(posing, conn, { t: "ack", seq: 0 })).code, "forbidden");
    await using poser = await SseClient.open(posing);
    assertEquals((await poser.problem()).code, "forbidden");
  });
  await t.step("no more when they are revoked", async () => {
    const { events } = await ticketFor("carol", { reuse: true });
    await using carol = await SseClient.open(events);
    const conn = await carol.conn();
    await service.server.app.auth.revoke("carol", "now");
    await carol.ended();
    for (const answer of [await post(events, conn, { t: "p" }), await post(events, "x", { t: "p" })]) {
      assertEquals(answer.status, 401);
    }
    await using again = await SseClient.open(events);
    assertMatch((await again.problem()).detail, /revoked/);
  });
  await t.step("and a key is none", async () => {
    await using nobody = await SseClient.open(service.socketUrl(), { headers: bearer(KEY.key) });
    assertEquals((await nobody.problem()).status, 401);
  });
});

Deno.test("Frames are posted, checked, and limited as on a socket", async (t) => {
  await using service = await Service.start({
    ...{ USERWIRE_MAX_FRAME_BYTES: "200", USERWIRE_MAX_FRAMES_PER_SECOND: "5" },
  });
  const url = service.socketUrl("alice");
  await t.step("what is no frame is refused, and the stream stays", async () => {
    await using alice = await SseClient.open(url);
    const conn = await alice.conn();
    const bad: [body: string, type: string, status: number][] = [
      ["", "text/plain", 400],
      ["x", "text/plain", 400],
      ["[]", "text/plain", 400],
      ['{"t":7}', "application/json", 400],
      ['{"t":"ack","seq":-1}', "application/json", 400],
      ['{"t":"ack"', "application/json", 400],
      [`{"t":"x","x":"${"x".repeat(200)}"}`, "application/json", 413],
      ['{"t":"p"}', "application/octet-stream", 415],
      ['{"t":"p"}', "text/html", 415],
    ];
    for (const [body, type, status] of bad) {
      assertEquals((await post(url, conn, body, { "content-type": type })).status, status, body);
    }
    for (const frame of [{ t: "p" }, { t: "of a newer client" }, { t: "ack", seq: 3 }]) {
      assertEquals((await post(url, conn, frame, { "content-type": "application/json" })).status, 204);
    }
    assertEquals(alice.hasEnded, false);
  });
  await t.step("too many close it", async () => {
    await using alice = await SseClient.open(url);
    const conn = await alice.conn();
    // All in one second, however long they take.
    using _clock = new StandingClock();
    for (const _ of numbers(1, 6)) await post(url, conn, { t: "p" });
    assertEquals((await alice.next("bye")).why, "too many frames");
    await alice.ended();
    assertEquals((await post(url, conn, { t: "p" })).code, "connection_not_found");
  });
  await t.step("of nobody, or of another, they reach nobody", async () => {
    await using alice = await SseClient.open(url);
    const conn = await alice.conn();
    assertEquals((await post(service.socketUrl("bob"), conn, { t: "p" })).status, 404);
    assertEquals((await post(service.socketUrl(), conn, { t: "p" })).status, 400);
    assertEquals((await post(url, "%ff", { t: "p" })).status, 404);
  });
});

Deno.test("Streams count against the limits of sockets", async () => {
  await using service = await Service.start({
    ...{ USERWIRE_MAX_CONNECTIONS: "2", USERWIRE_UPGRADES_PER_SECOND: "2" },
  });
  const open = (user: string) => SseClient.open(service.socketUrl(user));
  using _clock = new StandingClock();
  await using _one = await open("alice");
  await using _two = await openClient(service.socketUrl("bob"));
  await using third = await open("carol");
  assertEquals((await third.problem()).code, "full");
  await using fourth = await open("carol");
  assertEquals((await fourth.problem()).code, "full");
  await using fifth = await open("carol");
  assertEquals((await fifth.problem()).code, "too_many_requests");
  const text = await (await service.fetch("/metrics")).text();
  assertMatch(text, /userwire_connections\{mode="sse"\} 1\n/);
  assertMatch(text, /userwire_connections_opened_total\{mode="sse"\} 1\n/);
  assertMatch(text, /userwire_handshakes_refused_total\{code="full"\} 2\n/);
  assertEquals((await service.readiness()).connections, 2);
  assertEquals(service.logged("connection opened")[0]!.fields.mode, "sse");
});

Deno.test("A stream's newest takes the place of the oldest, where that is set", async () => {
  await using service = await Service.start({
    ...{ USERWIRE_MAX_CONNECTIONS_PER_USER: "1", USERWIRE_ON_TOO_MANY: "replace" },
  });
  await using first = await SseClient.open(service.socketUrl("alice"));
  await first.next("hi");
  await using second = await SseClient.open(service.socketUrl("alice"));
  assertEquals((await first.next("bye")).code, 4409);
  assertEquals((await second.next("hi")).user, "alice");
});

/** The head of a request for a stream. */
function requestFor(service: Service, user: string): string {
  return `GET /v1/events?username=${user} HTTP/1.1\r\nHost: ${new URL(service.server.url).host}\r\n\r\n`;
}

Deno.test("A client that never reads is bounded, closed as slow, and counted until it is gone", async () => {
  const text = "x".repeat(60_000);
  await using service = await Service.start({
    ...{ USERWIRE_MAX_BUFFERED_BYTES: "100000", USERWIRE_SLOW_TIMEOUT_S: "1", USERWIRE_HISTORY: "10" },
  });
  const { connections, publisher } = service.server.app;
  await using raw = await RawSocket.dial(service.server.url);
  raw.stopReading();
  raw.sendBytes(new TextEncoder().encode(requestFor(service, "alice")));
  await until(() => connections.size === 1, "the stream to open");
  // Until it is closed: what it can't take is left out, so that no number of messages is sure to be more than the kernel takes.
  let count = 0;
  const flood = async () => {
    while (connections.size > 0) {
      await publisher.send("alice", { kind: "text", text });
      if (++count % 4 === 0) await new Promise((resolve) => setTimeout(resolve));
    }
  };
  await withDeadline(flood(), 60_000, "the slow one to be closed", () => connections.size);
  await until(() => service.logged("connection closed").length === 1, "the line of it");
  const { code, reason, bytes } = service.logged("connection closed")[0]!.fields;
  assertEquals([code, reason], [4508, "slow reader"]);
  assert(Number(bytes) < count * text.length, `All of it was written: ${bytes} bytes`);
  assertEquals([connections.size, connections.closing, await service.sockets("alice")], [0, 1, 0]);
  await raw.reset();
  await until(() => connections.closing === 0, "it to be gone");
});

Deno.test("A client that leaves before its stream is answered leaves nothing behind", async () => {
  await using service = await Service.start();
  const { connections } = service.server.app;
  for (const release of ["before", "after"]) {
    using subscriptions = new HeldSubscriptions();
    const raw = await RawSocket.dial(service.server.url);
    raw.sendBytes(new TextEncoder().encode(requestFor(service, "alice")));
    await subscriptions.come(1);
    if (release === "before") subscriptions.release();
    await raw.reset();
    if (release === "after") subscriptions.release();
    await until(() => subscriptions.open === 0, "the subscription to be closed");
    await service.isEmpty();
  }
  assertEquals(connections.lost, 0);
});

redisTest("A thousand streams that are closed leave no subscription, nor does a drain", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({
    ...{ REDIS_URL: redis.url, USERWIRE_UPGRADES_PER_SECOND: "0", USERWIRE_DRAIN_S: "5" },
    ...{ USERWIRE_MAX_CONNECTIONS_PER_USER: "0" },
  });
  const truth = new Truth(redis);
  const { connections } = service.server.app;
  const port = new URL(service.server.url).port;
  const openAll = async (count: number) => {
    const all: Deno.Conn[] = [];
    const before = service.logged("connection opened").length;
    while (all.length < count) {
      const some = await Promise.all(numbers(1, 50).map(() => Deno.connect({ port: Number(port) })));
      for (const [i, one] of some.entries()) {
        await one.write(new TextEncoder().encode(requestFor(service, `u${i}`)));
      }
      all.push(...some);
      const opened = () =>
        connections.size === all.length && service.logged("connection opened").length >= before + all.length;
      await until(opened, `${all.length} streams`);
    }
    return all;
  };
  const left = await openAll(1_000);
  assertEquals((await truth.subscribers()).length, 1_000);
  for (const one of left) one.close();
  await truth.isEmpty();
  await service.isEmpty();
  const sentAway = await openAll(100);
  await service.server.shutdown();
  await truth.isEmpty();
  const last = await new Response(sentAway[0]!.readable).text();
  assertMatch(
    last,
    /event: bye\ndata: \{"t":"bye","code":1012,"why":"restart","retry_ms":\d+\}\n\nretry: \d+/,
  );
  for (const one of sentAway.slice(1)) one.close();
});
