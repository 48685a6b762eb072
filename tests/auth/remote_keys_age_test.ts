/**
 * How old keys for tokens that come from a URL may be: when they are fetched anew, when not, and who waits for that. What
 * they are good for is in `remote_keys_test.ts`.
 */
import { assertEquals } from "@std/assert";
import type { KeysUnavailableError } from "../../src/protocol/errors.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { fateOf, newPair, Signer, verifierOf } from "../../testkit/key_signer.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

Deno.test("A signer that could not be asked is not asked again for a second, and then once by all together", async () => {
  const pair = await newPair();
  await using signer = new Signer({ ...pair.jwk, kid: "k" });
  const { answer } = signer;
  signer.answer = () => new Response("", { status: 500 });
  using clock = new StandingClock();
  const { verify, log } = verifierOf(signer);
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
  assertEquals(log.records.length, 1, "one trouble is told once in a minute");
  signer.answer = () => new Response("", { status: 500 });
  clock.pass(600_001);
  assertEquals(await fateOf(verify, token), "alice");
  assertEquals(log.records.length, 2);
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
  // From now on it takes its time to fail, and no limit of ours ends that.
  const asked = Promise.withResolvers<void>(), failed = Promise.withResolvers<Response>();
  signer.answer = () => (asked.resolve(), failed.promise);
  const fail = () => failed.resolve(new Response("", { status: 500 }));
  const { timeout } = AbortSignal;
  AbortSignal.timeout = () => new AbortController().signal;
  using _limit = { [Symbol.dispose]: () => void (AbortSignal.timeout = timeout, fail()) };
  clock.pass(1_000);
  const fate = fateOf(verify, token);
  await withDeadline(asked.promise, 20_000, "the signer to be asked");
  assertEquals(await withDeadline(fate, 20_000, "the token to be taken meanwhile"), "alice");
  fail();
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

Deno.test("A broken key is fetched anew after the cooldown, and a forgery is called one", async () => {
  const [pair, foreign] = [await newPair(), await newPair()];
  await using signer = new Signer({ ...pair.jwk, y: pair.jwk.x, kid: "k" });
  using clock = new StandingClock();
  const { verify } = verifierOf(signer);
  const token = await pair.sign({ kid: "k" });
  assertEquals(await fateOf(verify, token), "KeysUnavailableError");
  signer.publish({ ...pair.jwk, kid: "k" });
  clock.pass(9_999);
  assertEquals([await fateOf(verify, token), signer.fetches], ["KeysUnavailableError", 1]);
  clock.pass(1);
  assertEquals([await fateOf(verify, token), signer.fetches], ["alice", 2]);
  const forged = verify(await foreign.sign({ kid: "k" }));
  assertEquals(await forged.catch(({ message }: Error) => message), "The token's signature is not valid");
});
