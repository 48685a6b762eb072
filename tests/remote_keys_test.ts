/**
 * Keys for tokens that come from a URL: rotations, outages, answers that are none. Who can be known to be no user is
 * refused for good; whoever can't be known yet is told to come again; and users whose keys are known notice nothing.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exportJWK, generateKeyPair, type JWK } from "jose";
import { openVerifier, type Verify } from "../src/auth/jwt.ts";
import { KeysUnavailableError, UnauthorizedError } from "../src/errors.ts";
import { memoryLog } from "../src/log.ts";
import { tokenFor } from "./support/closed.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { RawSocket } from "./support/raw_socket.ts";
import { Service } from "./support/service.ts";
import { StandingClock } from "./support/standing_clock.ts";
import { openClient } from "./support/ws_client.ts";

interface Pair {
  readonly jwk: JWK;
  sign(options?: { kid?: string; claims?: Record<string, unknown> }): Promise<string>;
}

async function newPair(alg = "ES256"): Promise<Pair> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return {
    jwk: { ...await exportJWK(publicKey), alg },
    sign: ({ kid, claims = {} } = {}) =>
      tokenFor("alice", claims, { alg, key: privateKey, ...(kid !== undefined && { kid }) }),
  };
}

/** A signer of tokens, whose answer is whatever a test wants. */
class Signer implements AsyncDisposable {
  answer: (request: Request) => Response | Promise<Response>;
  fetches = 0;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(...keys: unknown[]) {
    this.answer = () => Response.json({ keys });
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
      this.fetches++;
      return this.answer(request);
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/keys`;
  }

  publish(...keys: unknown[]): void {
    this.answer = () => Response.json({ keys });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#server.shutdown();
  }
}

interface Tried {
  readonly status: number;
  readonly code: string | undefined;
  readonly detail: string;
  readonly retryAfter: string | null;
}

async function handshake(service: Service, token: string): Promise<Tried> {
  await using socket = await RawSocket.open(service.socketUrl(), {
    headers: { Authorization: `Bearer ${token}` },
  });
  const { status, body, headers } = socket.answer;
  const { code, detail } = status === 101 ? { code: undefined, detail: "" } : JSON.parse(body);
  return { status, code, detail, retryAfter: headers.get("retry-after") };
}

const statusOf = async (service: Service, token: string) => (await handshake(service, token)).status;

function verifierOf(signer: Signer, cooldownMs?: number) {
  const log = memoryLog();
  const verify = openVerifier({
    jwksUrl: signer.url,
    ...(cooldownMs !== undefined && { jwksCooldownMs: cooldownMs }),
    algorithms: [],
    clockToleranceS: 0,
    maxLifeS: 3_600,
    names: { fold: false, bare: false },
    log,
  })!;
  return { verify, log };
}

/** What became of a token: the user, or the class of the error. */
async function fateOf(verify: Verify, token: string): Promise<string> {
  return await verify(token).then(({ username }) => username, (error: Error) => error.name);
}

Deno.test("A token without a key id is verified with whichever key fits, also while there are two", async () => {
  const [old, fresh, foreign] = [await newPair(), await newPair(), await newPair()];
  await using signer = new Signer(old.jwk, fresh.jwk);
  await using service = await Service.start({ USERWIRE_JWKS_URL: signer.url });
  for (const pair of [old, fresh, old]) assertEquals(await statusOf(service, await pair.sign()), 101);
  const expired = await handshake(service, await fresh.sign({ claims: { lifeS: -60 } }));
  assertEquals(expired.status, 401);
  assertMatch(expired.detail, /has expired/, "the reason of the key that fits, not of the last one tried");
  assert(await statusOf(service, await foreign.sign()) !== 101);
  assertEquals(signer.fetches, 1);
});

Deno.test("Keys without an id are tried for tokens with one, and one id may have two keys", async () => {
  const [nameless, first, second] = [await newPair(), await newPair(), await newPair()];
  await using signer = new Signer(nameless.jwk, { ...first.jwk, kid: "k" }, { ...second.jwk, kid: "k" });
  const { verify } = verifierOf(signer);
  assertEquals(await fateOf(verify, await nameless.sign({ kid: "x" })), "alice");
  assertEquals(await fateOf(verify, await first.sign({ kid: "k" })), "alice");
  assertEquals(await fateOf(verify, await second.sign({ kid: "k" })), "alice");
});

Deno.test("A token by a new key is told to come again, not to stay away, until the keys are fetched anew", async () => {
  const [old, fresh] = [await newPair(), await newPair()];
  for (const kid of [undefined, "fresh"]) {
    const withKid = kid === undefined ? {} : { kid };
    await using signer = new Signer({ ...old.jwk, ...(kid && { kid: "old" }) });
    await using service = await Service.start({ USERWIRE_JWKS_URL: signer.url });
    assertEquals(await statusOf(service, await old.sign(kid === undefined ? {} : { kid: "old" })), 101);
    signer.publish({ ...fresh.jwk, ...withKid });
    const { status, code, retryAfter } = await handshake(service, await fresh.sign(withKid));
    assertEquals([status, code], [503, "keys_unavailable"]);
    const seconds = Number(retryAfter);
    assert(seconds >= 1 && seconds <= 10, `Retry-After: ${retryAfter}`);
    await using socket = await openClient(service.socketUrl());
    socket.send(JSON.stringify({ token: await fresh.sign(withKid) }));
    assertEquals((await socket.closed).code, 1013);
  }
});

Deno.test("After the keys were fetched anew an unknown key is refused for good, a published one taken", async () => {
  const [old, fresh, foreign] = [await newPair(), await newPair(), await newPair()];
  await using signer = new Signer({ ...old.jwk, kid: "old" });
  const { verify } = verifierOf(signer, 100);
  assertEquals(await fateOf(verify, await old.sign({ kid: "old" })), "alice");
  assertEquals(await fateOf(verify, await fresh.sign({ kid: "fresh" })), "KeysUnavailableError");
  signer.publish({ ...fresh.jwk, kid: "fresh" });
  const token = await fresh.sign({ kid: "fresh" });
  await until(async () => await fateOf(verify, token) === "alice", "the new key to be taken");
  const unknown = await foreign.sign({ kid: "foreign" });
  await until(
    async () => await fateOf(verify, unknown) === "UnauthorizedError",
    "the unknown key to be refused",
  );
  assertEquals(await fateOf(verify, await foreign.sign({ kid: "fresh" })), "UnauthorizedError", "a forgery");
});

Deno.test("Users whose keys are known notice neither an outage of the signer nor made-up key ids", async () => {
  const pair = await newPair();
  await using signer = new Signer({ ...pair.jwk, kid: "k" });
  // Without a cooldown each made-up id is a reason to fetch.
  const { verify, log } = verifierOf(signer, 0);
  assertEquals(await fateOf(verify, await pair.sign({ kid: "k" })), "alice");
  signer.answer = () => new Response("", { status: 500 });
  for (let i = 0; i < 20; i++) {
    assertEquals(await fateOf(verify, await pair.sign({ kid: `made-up-${i}` })), "KeysUnavailableError");
    assertEquals(await fateOf(verify, await pair.sign({ kid: "k" })), "alice", `after made-up id ${i}`);
  }
  assert(signer.fetches < 10, `${signer.fetches} fetches`);
  const warnings = log.records.filter(({ level }) => level === "warn");
  assertEquals(warnings.length, 1, "each trouble once");
});

Deno.test("A signer that could not be asked is not asked again for a second, and then once by all together", async () => {
  const pair = await newPair();
  await using signer = new Signer({ ...pair.jwk, kid: "k" });
  const { answer } = signer;
  signer.answer = () => new Response("", { status: 500 });
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  const token = await pair.sign({ kid: "k" });
  const fates = () => Promise.all([1, 2, 3].map(() => fateOf(verify, token)));
  const unavailable = Array(3).fill("KeysUnavailableError");
  assertEquals([await fates(), signer.fetches], [unavailable, 1]);
  clock.pass(999);
  assertEquals([await fates(), signer.fetches], [unavailable, 1]);
  clock.pass(1);
  assertEquals([await fates(), signer.fetches], [unavailable, 2], "it failed again, which counts from now");
  clock.pass(999);
  signer.answer = answer;
  assertEquals([await fates(), signer.fetches], [unavailable, 2]);
  clock.pass(1);
  assertEquals([await fates(), signer.fetches], [["alice", "alice", "alice"], 3]);
});

Deno.test("Keys are fetched anew after ten minutes, before a token is tried with them", async () => {
  const [old, fresh] = [await newPair(), await newPair()];
  await using signer = new Signer(old.jwk);
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  const [withdrawn, token] = [await old.sign(), await fresh.sign()];
  assertEquals(await fateOf(verify, withdrawn), "alice");
  signer.publish(fresh.jwk);
  clock.pass(600_000);
  assertEquals([await fateOf(verify, withdrawn), signer.fetches], ["alice", 1]);
  clock.pass(1);
  assertEquals([await fateOf(verify, withdrawn), signer.fetches], ["UnauthorizedError", 2]);
  assertEquals([await fateOf(verify, token), signer.fetches], ["alice", 2]);
});

Deno.test("Keys that can't be fetched anew hold for an hour more, and nobody waits for a signer that is away", async () => {
  const pair = await newPair();
  await using signer = new Signer({ ...pair.jwk, kid: "k" });
  const { answer } = signer;
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  const token = await pair.sign({ kid: "k" });
  assertEquals(await fateOf(verify, token), "alice");
  signer.answer = () => new Response("", { status: 500 });
  clock.pass(600_001);
  assertEquals([await fateOf(verify, token), signer.fetches], ["alice", 2]);
  // From now on it takes its time to fail.
  const asked = Promise.withResolvers<void>(), failed = Promise.withResolvers<Response>();
  signer.answer = () => (asked.resolve(), failed.promise);
  clock.pass(1_000);
  const fate = fateOf(verify, token);
  await withDeadline(asked.promise, 20_000, "the signer to be asked");
  assertEquals(await withDeadline(fate, 20_000, "the token to be taken meanwhile"), "alice");
  failed.resolve(new Response("", { status: 500 }));
  clock.pass(3_600_000 - 1_001);
  signer.answer = () => new Response("", { status: 500 });
  assertEquals(await fateOf(verify, token), "alice", "for the last time");
  clock.pass(1_001);
  assertEquals(await fateOf(verify, token), "KeysUnavailableError");
  signer.answer = answer;
  clock.pass(1_000);
  assertEquals(await fateOf(verify, token), "alice");
  // It is there again: the newest keys are waited for, as before.
  signer.publish();
  clock.pass(600_001);
  assertEquals(await fateOf(verify, token), "UnauthorizedError");
});

Deno.test("Keys that were on their way when a token came may be older than the token's key, which is asked for again", async () => {
  const [old, fresh] = [await newPair(), await newPair()];
  await using signer = new Signer();
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<Response>();
  signer.answer = () => (asked.resolve(), answer.promise);
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  const [first, second] = [await old.sign({ kid: "old" }), await fresh.sign({ kid: "fresh" })];
  const before = fateOf(verify, first);
  await withDeadline(asked.promise, 20_000, "the signer to be asked");
  clock.pass(1);
  const meanwhile = fateOf(verify, second);
  clock.pass(1_000);
  answer.resolve(Response.json({ keys: [{ ...old.jwk, kid: "old" }] }));
  assertEquals([await before, await meanwhile, signer.fetches], ["alice", "KeysUnavailableError", 1]);
  // The ten seconds began when they were asked for.
  clock.pass(8_999);
  signer.publish({ ...fresh.jwk, kid: "fresh" });
  assertEquals([await fateOf(verify, second), signer.fetches], ["alice", 2]);
});

Deno.test("An unknown key is not looked for until the keys are ten seconds old, and it is said when that is", async () => {
  const [old, fresh] = [await newPair(), await newPair()];
  await using signer = new Signer({ ...old.jwk, kid: "old" });
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  assertEquals(await fateOf(verify, await old.sign({ kid: "old" })), "alice");
  signer.publish({ ...old.jwk, kid: "old" }, { ...fresh.jwk, kid: "fresh" });
  const token = await fresh.sign({ kid: "fresh" });
  const retryAfter = () =>
    verify(token).then(() => "taken", (error: unknown) => (error as KeysUnavailableError).retryAfterS);
  clock.pass(1);
  assertEquals(await retryAfter(), 10);
  clock.pass(7_999);
  assertEquals(await retryAfter(), 2);
  clock.pass(1_999);
  assertEquals(await retryAfter(), 1);
  assertEquals(
    await fateOf(verify, await fresh.sign({ kid: "old" })),
    "UnauthorizedError",
    "a forgery waits not",
  );
  assertEquals(signer.fetches, 1);
  clock.pass(1);
  assertEquals([await retryAfter(), signer.fetches], ["taken", 2]);
  // Keys that were fetched for the token itself are as new as it gets.
  clock.pass(10_000);
  const foreign = await (await newPair()).sign({ kid: "foreign" });
  assertEquals([await fateOf(verify, foreign), signer.fetches], ["UnauthorizedError", 3]);
});

Deno.test("A signer that is away is told as such: by status, code and metric", async () => {
  const pair = await newPair();
  await using signer = new Signer();
  signer.answer = () => new Response("", { status: 500 });
  await using service = await Service.start({ USERWIRE_JWKS_URL: signer.url, USERWIRE_METRICS: "on" });
  const { status, code, detail, retryAfter } = await handshake(service, await pair.sign());
  assertEquals([status, code, retryAfter], [503, "keys_unavailable", "1"]);
  assertMatch(detail, /USERWIRE_JWKS_URL/);
  assertEquals((await service.readiness()).status, 200);
  const metrics = await (await service.fetch("/metrics")).text();
  assertMatch(metrics, /userwire_handshakes_refused_total\{code="keys_unavailable"\} 1/);
});

Deno.test("An answer of the signer that is none is refused with a line in the log that says why", async (t) => {
  const pair = await newPair();
  const elsewhere = new Signer({ ...pair.jwk });
  await using _elsewhere = elsewhere;
  const cases: Record<string, [answer: () => Response, says: RegExp]> = {
    "a redirect": [
      () => new Response("", { status: 302, headers: { location: `${elsewhere.url}?secret=1` } }),
      /redirect \(302\) to http:\/\/127\.0\.0\.1:\d+\/keys, and none is followed: set USERWIRE_JWKS_URL/,
    ],
    "another status": [() => new Response("no", { status: 404 }), /status 404/],
    "no JSON": [() => new Response("<html>"), /not JSON/],
    "no key set": [() => Response.json({ key: pair.jwk }), /no list "keys"/],
    "null": [() => Response.json(null), /no list "keys"/],
    "too large": [() => new Response(" ".repeat(1024 * 1024) + "{}"), /more than 1048576 bytes/],
  };
  for (const [what, [answer, says]] of Object.entries(cases)) {
    await t.step(what, async () => {
      await using signer = new Signer();
      signer.answer = answer;
      const { verify, log } = verifierOf(signer);
      assertEquals(await fateOf(verify, await pair.sign()), "KeysUnavailableError");
      const reasons = log.records.map(({ fields }) => String(fields?.reason));
      assertEquals(reasons.length, 1);
      assertMatch(reasons[0]!, says);
      assert(!reasons[0]!.includes("secret"));
    });
  }
  assertEquals(elsewhere.fetches, 0);
});

Deno.test("An answer of the signer without end is given up at 1 MiB", async () => {
  const pair = await newPair();
  await using signer = new Signer();
  const ended = Promise.withResolvers<void>();
  let sent = 0;
  signer.answer = () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          sent += 65_536;
          controller.enqueue(new Uint8Array(65_536).fill(0x20));
        },
        cancel: () => ended.resolve(),
      }),
    );
  const { verify, log } = verifierOf(signer);
  assertEquals(await fateOf(verify, await pair.sign()), "KeysUnavailableError");
  await withDeadline(ended.promise, 5_000, "the transfer to end");
  assertMatch(String(log.records[0]!.fields?.reason), /more than 1048576 bytes/);
  assert(sent < 64 * 1024 * 1024, `${sent} bytes were sent`);
});

Deno.test("A broken key harms its own tokens only", async () => {
  const pair = await newPair();
  const weak = await newPair();
  await using signer = new Signer(
    null,
    "x",
    7,
    { kty: "RSA", kid: "no-numbers", alg: "ES256" },
    { kty: "EC", crv: "P-256", x: "AAAA", y: "AAAA", kid: "broken" },
    { ...pair.jwk, y: pair.jwk.x, kid: "off the curve" },
    { kty: "oct", k: "c2VjcmV0", kid: "oct" },
    { kty: "new", kid: "new" },
    { ...pair.jwk, kid: "k" },
  );
  const { verify, log } = verifierOf(signer);
  assertEquals(await fateOf(verify, await pair.sign({ kid: "k" })), "alice");
  assertEquals(await fateOf(verify, await pair.sign()), "alice", "tried in turn");
  for (const kid of ["broken", "off the curve"]) {
    assertEquals(await fateOf(verify, await weak.sign({ kid })), "KeysUnavailableError", kid);
  }
  assertEquals(await fateOf(verify, await pair.sign({ kid: "k" })), "alice");
  assert(log.records.some(({ fields }) => /"broken" can't be used/.test(String(fields?.reason))));
  const { error } = await verify(await weak.sign({ kid: "k" })).then(
    () => ({ error: undefined }),
    (error: unknown) => ({ error }),
  );
  assert(error instanceof UnauthorizedError && !(error instanceof KeysUnavailableError));
});
