/**
 * Keys for tokens that come from a URL: rotations, outages, answers that are none. Who can be known to be no user is
 * refused for good; whoever can't be known yet is told to come again; and users whose keys are known notice nothing.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { KeysUnavailableError, UnauthorizedError } from "../../src/protocol/errors.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { fateOf, newPair, type Pair, Signer, verifierOf } from "../../testkit/key_signer.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { openClient } from "../../testkit/ws_client.ts";

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
  const { verify } = verifierOf(signer);
  // A machine that is slow must not be what lets the time pass.
  using clock = new StandingClock();
  assertEquals(await fateOf(verify, await old.sign({ kid: "old" })), "alice");
  const token = await fresh.sign({ kid: "fresh" });
  clock.pass(1);
  assertEquals(await fateOf(verify, token), "KeysUnavailableError");
  signer.publish({ ...fresh.jwk, kid: "fresh" });
  clock.pass(9_998);
  assertEquals(await fateOf(verify, token), "KeysUnavailableError", "it may not be fetched yet");
  clock.pass(1);
  assertEquals(await fateOf(verify, token), "alice", "the new key");
  const unknown = await foreign.sign({ kid: "foreign" });
  clock.pass(1);
  assertEquals(await fateOf(verify, unknown), "KeysUnavailableError");
  clock.pass(9_999);
  assertEquals(await fateOf(verify, unknown), "UnauthorizedError");
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

Deno.test("A key is tried only for what it is published for", async () => {
  const [good, foreign] = [await newPair(), await newPair()];
  const cases: [string, Pair, Record<string, unknown>][] = [
    ["to encrypt", await newPair(), { use: "enc" }],
    ["to sign only", await newPair(), { key_ops: ["sign"] }],
    ["for another algorithm", await newPair("RS256"), { alg: "PS256" }],
    ["of another curve than the token's", await newPair("ES384"), { alg: undefined }],
  ];
  for (const [what, pair, fields] of cases) {
    await using signer = new Signer({ ...pair.jwk, ...fields }, good.jwk);
    const { verify, log } = verifierOf(signer);
    assertEquals(await fateOf(verify, await good.sign()), "alice", what);
    const ofIt = what.startsWith("of") ? foreign : pair;
    const { verify: anew } = verifierOf(signer);
    assertEquals(await fateOf(anew, await ofIt.sign()), "UnauthorizedError", what);
    assertEquals(log.records, [], what);
  }
  const uses = [{ use: "sig" }, { key_ops: ["verify"] }, { alg: undefined }, { kid: 7 }];
  for (const fields of uses) {
    await using signer = new Signer({ ...good.jwk, ...fields });
    const { verify } = verifierOf(signer);
    assertEquals(await fateOf(verify, await good.sign({ kid: "k" })), "alice", JSON.stringify(fields));
  }
});

Deno.test("Of more than a hundred keys the first hundred are used, and the log says so", async () => {
  const [last, beyond, other] = [await newPair(), await newPair(), await newPair()];
  await using signer = new Signer(...Array(99).fill(other.jwk), last.jwk, beyond.jwk);
  const { verify, log } = verifierOf(signer);
  assertEquals(await fateOf(verify, await last.sign()), "alice");
  assertMatch(String(log.records[0]!.fields.reason), /there are 101 keys, of which the first 100 are used/);
  const { verify: anew } = verifierOf(signer);
  assertEquals(await fateOf(anew, await beyond.sign()), "UnauthorizedError");
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
