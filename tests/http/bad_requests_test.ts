/**
 * Requests that are wrong: usernames and handshakes. Each gets a clear answer, and the process goes on serving
 * others. Bodies are in `bad_bodies_test.ts`, sockets that opened and then misbehave in `bad_frames_test.ts`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { ask, assertRefused, assertServes, eachCase, type Refusal } from "../../testkit/bad_input.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { workedMs } from "../../testkit/worked_time.ts";

// ---------------------------------------------------------------------------------------------------------
// Usernames

interface BadName {
  /** As it stands in an address; left out where an address can't say it. */
  encoded?: string;
  /** As it stands in the first frame, in JSON; left out where JSON can't say it. */
  json?: string;
  says: RegExp;
}

const spelled = (name: string) => ({ encoded: encodeURIComponent(name), json: JSON.stringify(name) });

eachCase<BadName>("A bad username is refused in a path, in a query and in a first frame", {
  "129 bytes": { ...spelled("a".repeat(129)), says: /at most 128 bytes: this one has 129/ },
  "129 bytes of Unicode": { ...spelled("é".repeat(64) + "a"), says: /this one has 129/ },
  "a megabyte": { json: JSON.stringify("a".repeat(60_000)), says: /at most 128 bytes/ },
  "a line end": { ...spelled("a\nb"), says: /control characters/ },
  "a zero": { ...spelled("a\0b"), says: /control characters/ },
  "a DEL": { ...spelled("\x7f"), says: /control characters/ },
  "a space": { ...spelled("a b"), says: /white space/ },
  "a space that does not break": { ...spelled("a\u00a0b"), says: /white space/ },
  "a byte order mark": { ...spelled("\ufeffalice"), says: /white space/ },
  "braces": { ...spelled("{alice}"), says: /braces/ },
  "a reserved name": { ...spelled("userwire:inbox"), says: /reserved/ },
  "bytes that are no UTF-8": { encoded: "J%FCrgen", says: /UTF-8/ },
  "half of a surrogate pair": { json: '"\\ud83e"', says: /surrogate/ },
  "a number": { json: "7", says: /must be a string/ },
  "null": { json: "null", says: /must be a string/ },
}, {
  async body(service, { encoded, json, says }) {
    const refusal: Refusal = { status: 400, code: "invalid_username", says };
    if (encoded !== undefined) {
      // As bytes: fetch would mend some of them.
      const path = `/v1/users/${encoded}`;
      assertRefused(await ask(service, `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`), refusal);
      const head = "Host: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n";
      assertRefused(await ask(service, `POST ${path}/messages HTTP/1.1\r\n${head}x`), refusal);
      await using socket = await RawSocket.open(`${service.socketUrl()}?username=${encoded}`);
      assertRefused(socket.answer, refusal);
    }
    if (json !== undefined) {
      await using socket = await RawSocket.open(service.socketUrl());
      socket.sendText(`{"user_name": ${json}}`);
      const { code, reason } = await socket.readClose();
      assertEquals(code, 4400);
      assertMatch(reason, says);
    }
  },
});

eachCase<{ query: string } & Pick<Refusal, "code" | "says">>(
  "A socket that does not say whose it is is asked",
  {
    "with an empty name": { query: "?username=", code: "invalid_username", says: /must not be empty/ },
    "with frames and no name": { query: "", code: "invalid_handshake", says: /\?username=/ },
    "with frames and the name of something else": {
      query: "?user=alice",
      code: "invalid_handshake",
      says: /\?username=/,
    },
  },
  {
    async body(service, { query, ...problem }) {
      const headers = { "Sec-WebSocket-Protocol": "userwire.v1" };
      await using socket = await RawSocket.open(service.socketUrl() + query, { headers });
      assertRefused(socket.answer, { status: 400, ...problem });
    },
  },
);

eachCase<{ encoded: string; name: string }>("Percent-encoded and Unicode usernames work everywhere", {
  "Unicode": { encoded: "Zo%C3%AB-%E7%94%A8%F0%9F%A6%95", name: "Zoë-用🦕" },
  "encoded more than needed": { encoded: "%61%6c%69%63%65", name: "alice" },
  "percent signs": { encoded: "100%25%2541", name: "100%%41" },
  "what separates in a URL": { encoded: "a%2Fb%3Fc%23d%26e%3D", name: "a/b?c#d&e=" },
}, {
  async body(service, { encoded, name }) {
    await using byQuery = await RawSocket.open(`${service.socketUrl()}?username=${encoded}`);
    await using byFrame = await RawSocket.open(service.socketUrl());
    byFrame.sendText(JSON.stringify({ user_name: name }));
    byFrame.sendText("ping");
    assertEquals(await byFrame.readText(), "pong");
    const response = await service.fetch(`/v1/users/${encoded}/messages`, {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "hello",
    });
    assertEquals((await response.json()).sockets, 2);
    assertEquals([await byQuery.readText(), await byFrame.readText()], ["hello", "hello"]);
  },
});

// ---------------------------------------------------------------------------------------------------------
// Upgrades

interface Upgrade extends Partial<Refusal> {
  /** The status; where it is a problem, `code` and `says` are given too. */
  readonly status: number;
  /** @default "/ws?username=alice" */
  readonly to?: string;
  readonly method?: string;
  /** Put in the place of the usual headers, or beside them; null leaves one out. */
  readonly headers?: Record<string, string | null>;
  /** A header that the answer must have. */
  readonly answers?: [name: string, value: string | null];
}

const KEY = "Sec-WebSocket-Key";
const PROTOCOL = "Sec-WebSocket-Protocol";
const handshake = { status: 400, code: "invalid_handshake" };
const badKey = { ...handshake, says: /Sec-WebSocket-Key/ };
const unknownProtocol = { ...handshake, says: /offer "userwire\.v1", or none/ };
const agreed: Upgrade["answers"] = [PROTOCOL, "userwire.v1"];
const upgradeRequired = { status: 426, code: "upgrade_required" };
const version13: Upgrade["answers"] = ["Sec-WebSocket-Version", "13"];

eachCase<Upgrade>("A handshake gets a clear answer", {
  "as it should be": { status: 101, answers: [PROTOCOL, null] },
  "in other letters": { status: 101, headers: { Upgrade: "WebSocket", Connection: "keep-alive, upgrade" } },
  "without a space after the comma": {
    status: 101,
    headers: { [PROTOCOL]: "foo,userwire.v1" },
    answers: agreed,
  },
  "with a space after the comma": {
    status: 101,
    headers: { [PROTOCOL]: "foo, userwire.v1" },
    answers: agreed,
  },
  "with what looks like a token beside the protocol": {
    status: 101,
    headers: { [PROTOCOL]: "userwire.v1,userwire.bearer.abc" },
    answers: agreed,
  },
  "with an empty offer": { status: 101, headers: { [PROTOCOL]: "" }, answers: [PROTOCOL, null] },
  "with an unknown subprotocol": { ...unknownProtocol, headers: { [PROTOCOL]: "graphql-ws" } },
  "with the subprotocol in capitals": { ...unknownProtocol, headers: { [PROTOCOL]: "USERWIRE.V1" } },
  "by POST": {
    status: 405,
    code: "method_not_allowed",
    says: /GET/,
    method: "POST",
    answers: ["Allow", "GET"],
  },
  "elsewhere": { status: 404, code: "not_found", says: /\/ or \/ws/, to: "/socket?username=alice" },
  "of version 8": {
    ...upgradeRequired,
    says: /version 13/,
    headers: { "Sec-WebSocket-Version": "8" },
    answers: version13,
  },
  "of no version": {
    ...upgradeRequired,
    says: /version 13/,
    headers: { "Sec-WebSocket-Version": null },
    answers: version13,
  },
  "without a key": { ...badKey, headers: { [KEY]: null } },
  "with an empty key": { ...badKey, headers: { [KEY]: "" } },
  "with a short key": { ...badKey, headers: { [KEY]: "c2hvcnQ=" } },
  "with a long key": { ...badKey, headers: { [KEY]: "A".repeat(24) + "AA==" } },
  "with a key that is no base64": { ...badKey, headers: { [KEY]: "!".repeat(22) + "==" } },
  "without Connection: upgrade": { ...handshake, says: /connection/i, headers: { Connection: "close" } },
  "whose Upgrade header a proxy took away": {
    ...upgradeRequired,
    says: /proxy/,
    headers: { Upgrade: null, Connection: "close" },
    answers: ["Upgrade", "websocket"],
  },
  "whose Upgrade header a proxy took away, at the root": {
    ...upgradeRequired,
    says: /proxy/,
    to: "/?username=alice",
    headers: { Upgrade: null, Connection: "close" },
  },
  "for another protocol": { ...upgradeRequired, says: /WebSocket/, headers: { Upgrade: "h2c" } },
  "without a host": { status: 101, headers: { Host: null } },
  "with a host that is none": {
    status: 400,
    code: "invalid_request",
    says: /Host/,
    headers: { Host: "a b" },
  },
}, {
  async body(service, { to = "/ws?username=alice", method = "GET", headers = {}, answers, ...wanted }) {
    const { host } = new URL(service.server.url);
    await using socket = await RawSocket.dial(service.server.url.slice(0, -1) + to);
    socket.sendHandshake({ method, headers: { Host: host, ...headers } });
    const answer = await socket.readAnswer();
    assertEquals(answer.status, wanted.status, answer.body);
    if (answers) assertEquals(answer.headers.get(answers[0]), answers[1]);
    const { code, says } = wanted;
    if (code !== undefined && says !== undefined) {
      assertRefused(answer, { status: wanted.status, code, says });
    }
  },
});

eachCase<{ upgrade: boolean; status: number }>(
  "A handshake over HTTP/1.0, as some proxies speak it, gets an answer",
  {
    "with its Upgrade header": { upgrade: true, status: 101 },
    "without its Upgrade header": { upgrade: false, status: 426 },
  },
  {
    async body(service, { upgrade, status }) {
      const hops = upgrade ? "Upgrade: websocket\r\nConnection: upgrade\r\n" : "Connection: close\r\n";
      const answer = await ask(
        service,
        `GET /ws?username=alice HTTP/1.0\r\nHost: localhost\r\n${hops}` +
          `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${"A".repeat(22)}==\r\n\r\n`,
      );
      assertEquals(answer.status, status);
      if (!upgrade) assertRefused(answer, { status, code: "upgrade_required", says: /HTTP\/1\.1/ });
    },
  },
);

eachCase<string>("Bytes that are no request get an answer or an end", {
  "words": "hello\r\n\r\n",
  "a TLS greeting": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  "a header without end": `GET / HTTP/1.1\r\nX: ${"x".repeat(200_000)}`,
  "too many headers": `GET / HTTP/1.1\r\n${"x: y\r\n".repeat(20_000)}\r\n`,
  "a version from the future": "GET / HTTP/9.9\r\n\r\n",
}, {
  async body(service, bytes) {
    await using socket = await RawSocket.dial(service.server.url);
    socket.sendBytes(bytes);
    const outcome = await withDeadline(
      Promise.any([socket.readAnswer().then(({ status }) => status), socket.ended]),
      5_000,
      "an answer or an end",
    );
    assert(typeof outcome === "string" || outcome >= 400, `answered ${outcome}`);
  },
});

Deno.test("No call that needs no key takes much longer than another, however its address is written", async (t) => {
  await using service = await Service.start();
  const { url } = service.server;
  /** The work of many, in milliseconds: that of one is less than what the system counts in. */
  const workOf = async (path: string) => {
    const startMs = workedMs();
    for (let i = 0; i < 40; i++) {
      await ask(service, `GET ${path} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nConnection: close\r\n\r\n`);
    }
    return workedMs() - startMs;
  };
  await workOf("/healthz"); // until the code is compiled
  const usualMs = await workOf("/healthz");
  const cases = {
    "the document": "/openapi.json",
    "many parts": "/" + "a/".repeat(25_000),
    "broken encodings": "/" + "%E0%A4%A".repeat(6_000),
    "encodings in a name": "/v1/users/" + "%E0%A4%A".repeat(6_000),
    "a long query": "/healthz?" + "a&".repeat(25_000),
  };
  for (const [name, path] of Object.entries(cases)) {
    await t.step(name, async () => {
      const ms = await workOf(path);
      assert(ms < 20 * usualMs, `${ms} ms where ${usualMs} ms are usual`);
    });
  }
});

Deno.test("A handshake beyond USERWIRE_MAX_CONNECTIONS is told to try another node", async () => {
  await using service = await Service.start({ USERWIRE_MAX_CONNECTIONS: "1" });
  {
    await using _first = await RawSocket.open(service.socketUrl("alice"));
    await using second = await RawSocket.open(service.socketUrl("alice"));
    assertRefused(second.answer, { status: 503, code: "full", says: /USERWIRE_MAX_CONNECTIONS/ });
    assertEquals(second.answer.headers.get("retry-after"), "1");
  }
  await service.isEmpty();
  await assertServes(service);
});
