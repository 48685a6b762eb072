/**
 * The keys that a signer of tokens publishes at a URL (a JSON Web Key Set), kept for a while and fetched anew.
 *
 * Three answers about a token, and each is said only where it is true. *Verified*: one of the keys fits. *Refused*: no
 * key can fit, now that the newest are known. *Not known yet*: the keys can't be fetched, or were fetched so lately that
 * they are not fetched again at each request; `KeysUnavailableError` then, after which the same token may be taken.
 *
 * Keys that are there are tried before anything is fetched. So nobody's made-up key id, and no outage of the signer,
 * touches users whose keys are known.
 */
import { errors, type JWTPayload, jwtVerify, type JWTVerifyOptions } from "jose";
import { KeysUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import { formOf, nameOf, publicPart, type PublishedKey, suits } from "./published_key.ts";

/** After keys were fetched, unknown ones make nobody fetch again for so long. */
const COOLDOWN_MS = 10_000;
/** Older keys are fetched anew with the next token. */
const MAX_AGE_MS = 600_000;
/** While they can't be, those that are there hold for so long. */
const MAX_OUTAGE_MS = 3_600_000;
const TIMEOUT_MS = 3_000;
/** After a fetch that failed nobody tries again for so long. */
const RETRY_MS = 1_000;
/** The same trouble is logged once in so long. */
const LOG_AGAIN_MS = 60_000;
const MAX_BYTES = 1024 * 1024;
/** A token without a key id is tried with one key after the other. */
const MAX_KEYS = 100;

/** What trying keys came to. */
type Tried =
  | { readonly verified: { payload: JWTPayload } }
  /** `isFinal`: newer keys would change nothing. `isBroken`: a key that may be the token's can't be used. */
  | { readonly error: Error; readonly isFinal: boolean; readonly isBroken: boolean };

export class RemoteKeys {
  readonly #url: URL;
  readonly #cooldownMs: number;
  readonly #log: Log;
  #keys: readonly PublishedKey[] | undefined;
  #fetchedMs = -Infinity;
  /** When the last fetch failed; undefined once one has gone well. */
  #failedMs: number | undefined;
  #fetching: Promise<void> | undefined;
  /** When each trouble was logged. */
  readonly #logged = new Map<string, number>();

  constructor(url: string, options: { cooldownMs?: number | undefined; log: Log }) {
    this.#url = new URL(url);
    this.#cooldownMs = options.cooldownMs ?? COOLDOWN_MS;
    this.#log = options.log;
  }

  /**
   * Verifies a token with the key that fits.
   * @throws {KeysUnavailableError} when it is not known yet whether one does.
   * @throws {Error} as `jwtVerify` of jose, when none does.
   */
  async verify(token: string, rules: JWTVerifyOptions): Promise<{ payload: JWTPayload }> {
    const askedMs = performance.now();
    await this.#freshen();
    let tried = await this.#try(token, rules);
    if ("verified" in tried) return tried.verified;
    // Keys that were fetched since the token came are as new as it gets.
    if (!tried.isFinal && this.#fetchedMs < askedMs) {
      const leftMs = this.#fetchedMs + this.#cooldownMs - askedMs;
      if (leftMs > 0) {
        throw new KeysUnavailableError(
          "The token is signed with a key that is not known here yet: try again when the keys have been fetched anew",
          { retryAfterS: Math.ceil(leftMs / 1_000) },
        );
      }
      await this.#fetch();
      tried = await this.#try(token, rules);
      if ("verified" in tried) return tried.verified;
    }
    if (!tried.isBroken) throw tried.error;
    throw new KeysUnavailableError(
      "A key that verifies tokens, published at USERWIRE_JWKS_URL, can't be used: the log says more",
      { retryAfterS: Math.ceil(this.#cooldownMs / 1_000) },
    );
  }

  /** The ids of the keys that are published and can be used. @throws {KeysUnavailableError} */
  async names(): Promise<string[]> {
    await this.#freshen();
    return this.#keys!.map(({ jwk }) => nameOf(jwk));
  }

  /** Sees to it that there are keys, and that they are not too old. */
  async #freshen(): Promise<void> {
    const ageMs = performance.now() - this.#fetchedMs;
    if (ageMs <= MAX_AGE_MS) return;
    if (this.#keys === undefined || ageMs > MAX_AGE_MS + MAX_OUTAGE_MS) return await this.#fetch();
    const fetching = this.#fetch().catch(() => {});
    // Once it is known that the signer is away nobody waits for it: those who come now are taken by the keys there are.
    if (this.#failedMs === undefined) await fetching;
  }

  async #try(token: string, rules: JWTVerifyOptions): Promise<Tried> {
    let error: Error = new errors.JWKSNoMatchingKey();
    let isBroken = false;
    let isKnown = false;
    // The library calls this once it has read the head of the token and found the algorithm allowed.
    const candidates: { key: PublishedKey; alg: string }[] = [];
    try {
      await jwtVerify(token, ({ alg, kid }) => {
        const hasKid = typeof kid === "string";
        const named = this.#keys!.filter(({ jwk }) => !hasKid || jwk.kid === undefined || jwk.kid === kid);
        isKnown = hasKid && named.some(({ jwk }) => jwk.kid === kid);
        candidates.push(...named.filter(({ jwk }) => suits(jwk, alg!)).map((key) => ({ key, alg: alg! })));
        throw new errors.JWKSNoMatchingKey();
      }, rules);
    } catch (fault) {
      // The token is none, or of an algorithm that is not allowed.
      if (!(fault instanceof errors.JWKSNoMatchingKey)) {
        return { error: fault as Error, isFinal: true, isBroken: false };
      }
    }
    for (const { key, alg } of candidates) {
      try {
        return { verified: await jwtVerify(token, await formOf(key, alg), rules) };
      } catch (fault) {
        if (fault instanceof errors.JWSSignatureVerificationFailed) error = fault;
        // Signed by this key, and refused for what it claims; or no token at all.
        else if (fault instanceof errors.JOSEError) return { error: fault, isFinal: true, isBroken: false };
        else {
          isBroken = true;
          this.#warn(`the key ${nameOf(key.jwk)} can't be used: ${messageOf(fault)}`);
        }
      }
    }
    return { error, isFinal: isKnown && !isBroken, isBroken };
  }

  /** Fetches the keys; those who ask at the same time share one fetch. @throws {KeysUnavailableError} */
  async #fetch(): Promise<void> {
    const failedMs = this.#failedMs ?? -Infinity;
    if (!this.#fetching && performance.now() - failedMs < RETRY_MS) throw unavailable();
    this.#fetching ??= this.#load().finally(() => this.#fetching = undefined);
    await this.#fetching;
  }

  async #load(): Promise<void> {
    const startMs = performance.now();
    try {
      this.#keys = this.#keysIn(await read(this.#url));
      this.#fetchedMs = startMs;
      this.#failedMs = undefined;
    } catch (error) {
      this.#failedMs = performance.now();
      const isLate = error instanceof DOMException && error.name === "TimeoutError";
      this.#warn(isLate ? `no answer in ${TIMEOUT_MS / 1_000} s` : messageOf(error));
      throw unavailable();
    }
  }

  #keysIn(text: string): PublishedKey[] {
    let set: unknown;
    try {
      set = JSON.parse(text);
    } catch {
      throw new Error("the answer is not JSON");
    }
    const { keys } = Object(set) as { keys?: unknown };
    if (!Array.isArray(keys)) throw new Error('the answer is no key set: it has no list "keys"');
    const usable = keys.filter((key) => typeof key === "object" && key !== null);
    if (usable.length < keys.length) {
      this.#warn(`${keys.length - usable.length} of the keys are no objects`);
    }
    if (usable.length > MAX_KEYS) {
      this.#warn(`there are ${usable.length} keys, of which the first ${MAX_KEYS} are used`);
    }
    return usable.slice(0, MAX_KEYS).map((jwk) => ({ jwk: publicPart(jwk), forms: new Map() }));
  }

  #warn(reason: string): void {
    const nowMs = performance.now();
    if (nowMs - (this.#logged.get(reason) ?? -Infinity) < LOG_AGAIN_MS) return;
    // Reasons may hold what the signer wrote: not more of them than can be read.
    if (this.#logged.size >= MAX_KEYS) this.#logged.clear();
    this.#logged.set(reason, nowMs);
    this.#log.warn("problem with token keys", { reason });
  }
}

function unavailable(): KeysUnavailableError {
  return new KeysUnavailableError(
    "The keys that verify tokens can't be fetched from USERWIRE_JWKS_URL at the moment",
  );
}

/** The answer of the signer. @throws {Error} that says what is wrong with it. */
async function read(url: URL): Promise<string> {
  const response = await fetch(url, {
    // A server that can redirect could name keys of its own.
    redirect: "manual",
    headers: { accept: "application/jwk-set+json, application/json" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    const location = response.headers.get("location");
    if (location === null || response.status < 300 || response.status >= 400) {
      throw new Error(`the answer has status ${response.status}`);
    }
    const to = placeOf(location, url);
    throw new Error(
      `the answer is a redirect (${response.status}) to ${to}, and none is followed: set USERWIRE_JWKS_URL to where ` +
        "the keys are",
    );
  }
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    // Leaving the loop ends the transfer.
    if (bytes > MAX_BYTES) throw new Error(`the answer has more than ${MAX_BYTES} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** An address without what may be secret in it. */
function placeOf(location: string, base: URL): string {
  const place = URL.parse(location, base.href);
  return place ? place.origin + place.pathname : "no address";
}
