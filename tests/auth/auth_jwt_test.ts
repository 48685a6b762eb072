/**
 * Tokens: which are taken and which are refused, by each way of verifying and each way of showing them; and that one
 * that ends, ends its socket. Tickets and revocations are in `tickets_test.ts`.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { exportJWK, exportSPKI, generateKeyPair } from "jose";
import { openVerifier } from "../../src/auth/jwt.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { CLOSED, protocolsFor, SECRET, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** What a handshake with this token is answered: 101, or the status and the detail of the problem. */
async function answerTo(service: Service, token: string): Promise<[status: number, detail: string]> {
  await using socket = await RawSocket.open(service.socketUrl(), {
    headers: { Authorization: `Bearer ${token}` },
  });
  const { status, body, headers } = socket.answer;
  if (status === 401) assertMatch(headers.get("www-authenticate") ?? "", /^Bearer realm=/);
  if (status !== 101) assert(!body.includes(token.split(".")[2] || "?"), "no part of the token comes back");
  return [status, status === 101 ? "" : JSON.parse(body).detail];
}

const base64url = (value: unknown) =>
  new TextEncoder().encode(JSON.stringify(value)).toBase64({ alphabet: "base64url", omitPadding: true });

const soon = () => Math.floor(Date.now() / 1_000) + 60;

async function tokenOfLength(length: number, claims: Record<string, unknown>): Promise<string> {
  // Base64 knows no text of 4n + 1 characters: where the claims can't reach the length, the head of the token can.
  for (let kid = 1; kid <= 3; kid++) {
    const of = (more: number) =>
      tokenFor("alice", { ...claims, more: "x".repeat(more) }, { kid: "k".repeat(kid) });
    const near = 6_000 - Math.ceil(((await of(6_000)).length - length) * 3 / 4);
    for (let more = near - 3; more <= near + 3; more++) {
      const token = await of(more);
      if (token.length === length) return token;
    }
  }
  throw new Error(`No token has ${length} characters`);
}

Deno.test("A token by a shared secret is taken when it is in order, and refused with the reason when not", async (t) => {
  await using service = await Service.start({
    ...CLOSED,
    USERWIRE_JWT_ISSUER: "https://login.example",
    USERWIRE_JWT_AUDIENCE: "userwire",
  });
  const good = { iss: "https://login.example", aud: ["userwire", "other"] };
  const rsa = await generateKeyPair("RS256");
  // Each is made when its turn comes: on a busy machine a second of its life is soon over.
  const cases: Record<string, [token: () => string | Promise<string>, says: RegExp | undefined]> = {
    "in order": [() => tokenFor("alice", good), undefined],
    "by HS512": [() => tokenFor("alice", good, { alg: "HS512" }), undefined],
    "expired within the tolerance": [() => tokenFor("alice", { ...good, lifeS: -2 }), undefined],
    "expired": [() => tokenFor("alice", { ...good, lifeS: -10 }), /has expired/],
    "without an end": [() => tokenFor("alice", { ...good, exp: undefined }), /lacks the claim "exp"/],
    "for as long as may be": [() => tokenFor("alice", { ...good, lifeS: 2_592_000 }), undefined],
    "for too long": [() => tokenFor("alice", { ...good, lifeS: 2_592_100 }), /USERWIRE_MAX_TOKEN_LIFE_S/],
    "without a time of issue": [() => tokenFor("alice", { ...good, iat: undefined }), undefined],
    "without a time of issue, for too long": [
      () => tokenFor("alice", { ...good, iat: undefined, lifeS: 2_592_100 }),
      /USERWIRE_MAX_TOKEN_LIFE_S/,
    ],
    "for too long since it was issued": [
      () => tokenFor("alice", { ...good, iat: soon() - 2_592_100 }),
      /USERWIRE_MAX_TOKEN_LIFE_S/,
    ],
    "issued within the tolerance ahead": [() => tokenFor("alice", { ...good, iat: soon() - 57 }), undefined],
    "issued further ahead": [
      () => tokenFor("alice", { ...good, iat: soon() - 50 }),
      /"iat" lies in the future/,
    ],
    "issued days ahead": [
      () => tokenFor("alice", { ...good, iat: soon() + 950_400, lifeS: 960_000 }),
      /"iat" lies in the future/,
    ],
    "with the longest id": [() => tokenFor("alice", { ...good, jti: "x".repeat(256) }), undefined],
    "with a number for an id": [() => tokenFor("alice", { ...good, jti: 4711 }), /"jti" must be a string/],
    "with no id for an id": [() => tokenFor("alice", { ...good, jti: null }), /"jti" must be a string/],
    "with a list for an id": [() => tokenFor("alice", { ...good, jti: ["a"] }), /"jti" must be a string/],
    "with an empty id": [() => tokenFor("alice", { ...good, jti: "" }), /"jti" must be a string/],
    "with an id that no call could name": [
      () => tokenFor("alice", { ...good, jti: "x".repeat(257) }),
      /"jti" must be a string/,
    ],
    "not yet valid": [() => tokenFor("alice", { ...good, nbf: soon() }), /claim "nbf"/],
    "of another issuer": [() => tokenFor("alice", { ...good, iss: "x" }), /claim "iss"/],
    "for another audience": [() => tokenFor("alice", { ...good, aud: "x" }), /claim "aud"/],
    "without an audience": [() => tokenFor("alice", { ...good, aud: undefined }), /lacks the claim "aud"/],
    "for nobody": [() => tokenFor(undefined, good), /lacks the claim "sub"/],
    "for a name that is none": [() => tokenFor("a b", good), /"sub" is no username/],
    "for a reserved name": [() => tokenFor("userwire:x", good), /reserved/],
    "by another secret": [() => tokenFor("alice", good, { secret: SECRET + "!" }), /signature/],
    "unsigned": [
      () => `${base64url({ alg: "none" })}.${base64url({ sub: "alice", exp: soon(), ...good })}.`,
      /algorithm that is not allowed|not a valid/,
    ],
    "by an algorithm of public keys": [
      () => tokenFor("alice", good, { alg: "RS256", key: rsa.privateKey }),
      /algorithm that is not allowed/,
    ],
    "changed": [
      async () => (await tokenFor("alice", good)).replace(/\.[^.]+\./, `.${base64url({ sub: "bob" })}.`),
      /signature/,
    ],
    "no token at all": [() => "x", /not a valid/],
    "too long": [() => tokenFor("alice", { ...good, more: "x".repeat(9_000) }), /too long/],
    "as long as may be": [() => tokenOfLength(8_192, good), undefined],
    "longer by one": [() => tokenOfLength(8_193, good), /too long/],
  };
  for (const [what, [token, says]] of Object.entries(cases)) {
    await t.step(what, async () => {
      const [status, detail] = await answerTo(service, await token());
      assertEquals(status, says === undefined ? 101 : 401, detail);
      if (says) assertMatch(detail, says);
    });
  }
});

Deno.test("A token by a public key is taken, in PEM or as a JWK, and algorithm confusion is refused", async (t) => {
  for (const alg of ["RS256", "PS256", "ES256", "ES384", "EdDSA"]) {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
    const pem = await exportSPKI(publicKey);
    const forms = {
      PEM: pem,
      "PEM on one line": pem.replaceAll("\n", "\\n"),
      JWK: JSON.stringify(await exportJWK(publicKey)),
    };
    for (const [form, text] of Object.entries(forms)) {
      await t.step(`${alg}, ${form}`, async () => {
        await using service = await Service.start({ USERWIRE_JWT_PUBLIC_KEY: text });
        assertEquals(
          (await answerTo(service, await tokenFor("alice", {}, { alg, key: privateKey })))[0],
          101,
        );
        // The classic forgery: an HMAC whose secret is the public key, which everybody has.
        for (const secret of [pem, pem.trim(), text]) {
          const [status, detail] = await answerTo(
            service,
            await tokenFor("alice", {}, { alg: "HS256", secret }),
          );
          assertEquals(status, 401);
          assertMatch(detail, /algorithm that is not allowed/);
        }
      });
    }
  }
});

Deno.test("Settings that can't verify a token are refused at the start, all at once, without showing them", async () => {
  const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
  const pem = await exportSPKI(publicKey);
  const jwk = JSON.stringify(await exportJWK(privateKey));
  const publicJwk = (fields: Record<string, unknown>) => JSON.stringify({ ...published, ...fields });
  const published = await exportJWK(publicKey);
  const point = await exportJWK((await generateKeyPair("ES256", { extractable: true })).publicKey);
  const cases: [env: Record<string, string>, says: RegExp][] = [
    [{ USERWIRE_JWT_SECRET: "hunter2" }, /at least 32 bytes, but has 7/],
    [{ USERWIRE_JWT_SECRET: "é".repeat(15) + "x" }, /at least 32 bytes, but has 31/],
    [
      { USERWIRE_JWT_SECRET: SECRET, USERWIRE_JWT_PUBLIC_KEY: pem },
      /USERWIRE_JWT_SECRET and USERWIRE_JWT_PUBLIC_KEY/,
    ],
    [{ USERWIRE_JWT_SECRET: SECRET, USERWIRE_JWT_ALGORITHMS: "HS256,RS256" }, /holds "RS256"/],
    [{ USERWIRE_JWT_PUBLIC_KEY: pem, USERWIRE_JWT_ALGORITHMS: "HS256" }, /holds "HS256"/],
    [{ USERWIRE_JWT_SECRET: SECRET, USERWIRE_JWT_ALGORITHMS: "none" }, /holds "none"/],
    [{ USERWIRE_JWT_PUBLIC_KEY: jwk }, /give the public half/],
    [{ USERWIRE_JWT_PUBLIC_KEY: "hunter2" }, /give the public half/],
    [{ USERWIRE_JWT_PUBLIC_KEY: publicJwk({ use: "enc" }) }, /give the public half/],
    [{ USERWIRE_JWT_PUBLIC_KEY: publicJwk({ key_ops: ["sign"] }) }, /give the public half/],
    [{ USERWIRE_JWT_PUBLIC_KEY: publicJwk({ n: "" }) }, /give the public half/],
    [{ USERWIRE_JWT_PUBLIC_KEY: JSON.stringify({ ...point, y: point.x }) }, /give the public half/],
    [
      { USERWIRE_JWT_PUBLIC_KEY: publicJwk({ alg: "RS256" }), USERWIRE_JWT_ALGORITHMS: "PS256" },
      /takes RS256, but holds "PS256"/,
    ],
    [{ USERWIRE_JWT_AUDIENCE: "x", USERWIRE_JWT_ISSUER: "y" }, /nothing that verifies tokens/],
    [
      { USERWIRE_API_KEYS: "hunter2", USERWIRE_JWT_SECRET: "hunter2" },
      /key 1 must be as[^]*at least 32 bytes/,
    ],
    [{ USERWIRE_API_KEYS_FILE: "/nowhere/keys" }, /can't be read/],
    [{ USERWIRE_JWKS_URL: "http://login.example/keys" }, /https/],
  ];
  for (const [env, says] of cases) {
    const { message } = await assertRejects(() => Service.start(env), ConfigError);
    assertMatch(message, says);
    assert(!/hunter2|"d"/.test(message), message);
  }
  await using _longEnough = await Service.start({ USERWIRE_JWT_SECRET: "é".repeat(16) });
});

/** A login service that publishes its keys. */
class Login implements AsyncDisposable {
  kids = ["first"];
  fetches = 0;
  isBroken = false;
  readonly #pairs: ReadonlyMap<string, CryptoKeyPair>;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  private constructor(pairs: ReadonlyMap<string, CryptoKeyPair>) {
    this.#pairs = pairs;
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => this.#publish());
  }

  static async start(): Promise<Login> {
    const pairs = new Map<string, CryptoKeyPair>();
    for (const kid of ["first", "second"]) {
      pairs.set(kid, await generateKeyPair("ES256", { extractable: true }));
    }
    return new Login(pairs);
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/keys`;
  }

  sign(kid: string): Promise<string> {
    const { privateKey } = (this.#pairs.get(kid) ?? this.#pairs.get("first"))!;
    return tokenFor("alice", {}, { alg: "ES256", kid, key: privateKey });
  }

  async #publish(): Promise<Response> {
    this.fetches++;
    if (this.isBroken) return new Response("", { status: 500 });
    const keyOf = async (kid: string) => ({
      ...await exportJWK(this.#pairs.get(kid)!.publicKey),
      kid,
      alg: "ES256",
    });
    return Response.json({ keys: await Promise.all(this.kids.map(keyOf)) });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#server.shutdown();
  }
}

Deno.test("Keys from a URL are fetched once, and again for an unknown key, but not as often as somebody likes", async () => {
  await using login = await Login.start();
  await using service = await Service.start({ USERWIRE_JWKS_URL: login.url });
  login.isBroken = true;
  assertEquals((await answerTo(service, await login.sign("first")))[0], 503, "not the client's fault");
  login.isBroken = false;
  // For a moment after a fetch that failed nobody tries again.
  await until(
    async () => (await answerTo(service, await login.sign("first")))[0] === 101,
    "the keys to be fetched",
  );
  const { fetches } = login;
  for (let i = 0; i < 5; i++) assertEquals((await answerTo(service, await login.sign("first")))[0], 101);
  assertEquals(login.fetches, fetches, "cached");
  for (let i = 0; i < 20; i++) {
    assertEquals((await answerTo(service, await login.sign(`made-up-${i}`)))[0], 503, "not known yet");
  }
  assert(login.fetches - fetches <= 1, `${login.fetches - fetches} fetches for made-up keys`);
});

Deno.test("When the signer changes its keys the new one is fetched, and made-up key ids fetch no more often than that", async () => {
  await using login = await Login.start();
  const cooldownMs = 200;
  const verify = openVerifier({
    jwksUrl: login.url,
    jwksCooldownMs: cooldownMs,
    algorithms: [],
    clockToleranceS: 0,
    maxLifeS: 3_600,
    names: {},
    log: memoryLog(),
  })!;
  const isTaken = async (kid: string) => {
    const token = await login.sign(kid);
    return await verify(token).then(({ username }) => username === "alice", () => false);
  };
  const startMs = performance.now();
  assert(await isTaken("first"));
  assertEquals(await isTaken("second"), false, "not published yet");
  login.kids = ["second"];
  await until(() => isTaken("second"), "the new key to be taken");
  assertEquals(await isTaken("first"), false, "it is published no more");

  // From the first fetch to the end, however many ask.
  for (let i = 0; i < 20; i++) {
    const taken = await Promise.all(Array.from({ length: 25 }, (_, j) => isTaken(`made-up-${i}-${j}`)));
    assert(!taken.includes(true));
  }
  const allowed = Math.floor((performance.now() - startMs) / cooldownMs) + 1;
  assert(login.fetches <= allowed, `${login.fetches} fetches where ${allowed} are allowed`);
});

Deno.test("Of several keys at a URL the one that a token names is used", async () => {
  await using login = await Login.start();
  login.kids = ["first", "second"];
  await using service = await Service.start({ USERWIRE_JWKS_URL: login.url });
  assertEquals((await answerTo(service, await login.sign("second")))[0], 101);
});

Deno.test("A token is taken from the header, the subprotocol and the first frame, from the address only if allowed", async () => {
  await using service = await Service.start(CLOSED);
  await using free = await Service.start({ ...CLOSED, USERWIRE_TOKEN_IN_QUERY: "true" });
  const token = await tokenFor("alice");

  await using byHeader = await openClient(service.socketUrl(), {
    headers: { authorization: `Bearer ${token}` },
  });
  await using byProtocol = await openClient(service.socketUrl(), protocolsFor(token));
  const hi = await byProtocol.nextJson();
  assertEquals([hi.user, typeof hi.exp], ["alice", "number"]);
  await using byFrame = await openClient(service.socketUrl());
  byFrame.send(JSON.stringify({ token }));
  await until(() => service.server.app.connections.ofUser("alice").length === 3, "three sockets of alice");
  await until(async () => await service.server.app.publisher.count("alice") === 3, "three subscriptions");
  await service.server.app.publisher.send("alice", { kind: "json", text: "7" });
  assertEquals([await byHeader.next(), await byFrame.next(), (await byProtocol.nextJson()).data], [
    "7",
    "7",
    7,
  ]);

  const protocols = protocolsFor(token).join(","); // without a space
  await using compact = await RawSocket.open(service.socketUrl(), {
    headers: { "Sec-WebSocket-Protocol": protocols },
  });
  assertEquals([compact.answer.status, compact.answer.headers.get("sec-websocket-protocol")], [
    101,
    "userwire.v1",
  ]);

  await using inAddress = await RawSocket.open(`${service.socketUrl()}?token=${token}`);
  assertEquals(inAddress.answer.status, 401);
  assertMatch(inAddress.answer.body, /addresses end up in logs/);
  await using allowed = await RawSocket.open(`${free.socketUrl()}?token=${token}`);
  assertEquals(allowed.answer.status, 101);
});

Deno.test("In closed mode names are not taken on trust, and another's name beside a token is refused", async () => {
  await using service = await Service.start(CLOSED);
  const cases: [query: string, headers: Record<string, string>, status: number][] = [
    ["?username=alice", {}, 401],
    ["?username=alice", { "Sec-WebSocket-Protocol": "userwire.v1" }, 401],
    ["", { "Sec-WebSocket-Protocol": "userwire.v1" }, 401],
    ["?username=alice", { Authorization: `Bearer ${await tokenFor("alice")}` }, 101],
    ["?username=bob", { Authorization: `Bearer ${await tokenFor("alice")}` }, 403],
    ["", { Authorization: "Basic YWxpY2U6" }, 101], // raw, and silent so far
  ];
  for (const [query, headers, status] of cases) {
    await using socket = await RawSocket.open(service.socketUrl() + query, { headers });
    assertEquals(socket.answer.status, status, `${query} ${Object.keys(headers)}`);
  }
  for (const frame of ['{"user_name":"alice"}', '{"token":"x"}', '{"ticket":"x"}']) {
    await using socket = await openClient(service.socketUrl());
    socket.send(frame);
    assertEquals((await socket.closed).code, 4401, frame);
  }
});

Deno.test("A socket whose token ends is closed with 4401 token_expired, unless it is refreshed", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_JWT_CLOCK_TOLERANCE_S: "0" });
  const short = await tokenFor("alice", { lifeS: 60 });
  await using raw = await openClient(service.socketUrl(), { headers: { authorization: `Bearer ${short}` } });
  await using framed = await openClient(service.socketUrl(), protocolsFor(short));
  await using kept = await openClient(service.socketUrl(), protocolsFor(short));
  await kept.nextJson();
  const fresh = await tokenFor("alice", { lifeS: 600 });
  kept.send(JSON.stringify({ t: "auth", id: "7", token: fresh }));
  const re = await kept.nextJson();
  assertEquals([re.t, re.id, re.ok], ["re", "7", true]);
  assert((re.data as { exp: number }).exp > Date.now() / 1_000 + 500);

  // A minute passes at once: on a busy machine two seconds would have passed before the sockets are open.
  const { now } = Date;
  Date.now = () => now() + 61_000;
  try {
    assertEquals(await raw.closed, { code: 4401, reason: "token_expired" });
    assertEquals(await framed.closed, { code: 4401, reason: "token_expired" });
  } finally {
    Date.now = now;
  }
  const frames = framed.waiting.map((frame) => JSON.parse(String(frame)));
  assertEquals(frames.at(-1), { t: "bye", code: 4401, why: "token_expired" });
  assertEquals(kept.socket.readyState, WebSocket.OPEN);
  await service.server.app.publisher.send("alice", { kind: "json", text: "1" });
  assertEquals((await kept.nextJson()).data, 1);
});

Deno.test("A socket stays as long as its token would be taken: until its end and the tolerance of clocks", async () => {
  const toleranceS = 8; // of which five seconds and more are left to open the socket
  await using service = await Service.start({
    ...CLOSED,
    USERWIRE_JWT_CLOCK_TOLERANCE_S: String(toleranceS),
  });
  const token = await tokenFor("alice", { lifeS: -2 });
  await using alice = await openClient(service.socketUrl(), protocolsFor(token));
  const { t, exp } = await alice.nextJson();
  assertEquals([t, exp], ["hi", JSON.parse(atob(token.split(".")[1]!)).exp], "what it says of itself");
  assertEquals(await alice.closed, { code: 4401, reason: "token_expired" });
  assert(Date.now() / 1_000 >= Number(exp) + toleranceS, "not thrown out before");
  assertEquals((await answerTo(service, token))[0], 401);
});

Deno.test("A refresh that is not valid is refused and changes nothing; one for another user ends the socket", async () => {
  await using service = await Service.start(CLOSED);
  await using client = await openClient(service.socketUrl(), protocolsFor(await tokenFor("alice")));
  await client.nextJson();
  client.send(JSON.stringify({ t: "auth", token: await tokenFor("alice", { lifeS: -60 }) }));
  const refused = await client.nextJson();
  assertEquals([refused.t, refused.ok], ["re", false]);
  assertMatch(String(refused.err), /has expired/);
  assertEquals(client.socket.readyState, WebSocket.OPEN);
  client.send(JSON.stringify({ t: "auth", token: await tokenFor("bob") }));
  assertEquals((await client.nextJson()).ok, false);
  assertEquals((await client.closed).code, 4403);
});
