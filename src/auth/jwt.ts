/**
 * Tokens: JSON Web Tokens signed by somebody whose secret or public key is configured. The algorithms are pinned to
 * the kind of key, so a token can't choose how it is checked: `none` and an HMAC made with a public key are refused
 * like any other forgery. No error holds a part of a token.
 */
import { createPublicKey } from "node:crypto";
import { errors, type JWK, type JWTPayload, jwtVerify } from "jose";
import { ConfigError, KeysUnavailableError, messageOf, UnauthorizedError } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import { type NameRules, parseUsername } from "../protocol/username.ts";
import { type Identity, MAX_TOKEN_ID_LENGTH } from "./auth.ts";
import { ALGORITHMS, numbersOf, suits } from "./published_key.ts";
import { RemoteKeys } from "./remote_keys.ts";

/** How tokens are verified; at most one of the first three. */
export interface TokenOptions {
  secret?: string | undefined;
  /** PEM, or a JWK as JSON. */
  publicKey?: string | undefined;
  jwksUrl?: string | undefined;
  /** An unknown key makes the keys be fetched again, but not more often than this, in milliseconds. @default 10000 */
  jwksCooldownMs?: number;
  /** Empty: all that suit the key. */
  algorithms: readonly string[];
  issuer?: string | undefined;
  audience?: string | undefined;
  /** How far the signer's clock may be off; for so long beyond its end a token is taken, and its socket stays. */
  clockToleranceS: number;
  /** Longest time between a token's `iat` and its `exp`; without `iat` the longest it may have left. */
  maxLifeS: number;
  names: NameRules;
  log: Log;
}

/**
 * Shows whose a token is.
 * @throws {UnauthorizedError}
 * @throws {KeysUnavailableError} when that can't be known yet.
 */
export type Verify = (token: string) => Promise<Identity>;

const HMAC = ["HS256", "HS384", "HS512"];
/** Longer ones are not worth the work. */
const MAX_TOKEN_LENGTH = 8_192;
/** RFC 7518, 3.2: a key as long as the hash. */
const MIN_SECRET_BYTES = 32;

/**
 * @returns Undefined when tokens are not configured.
 * @throws {ConfigError} with every fault.
 */
export function openVerifier(options: TokenOptions): Verify | undefined {
  const { secret, publicKey, jwksUrl } = options;
  const methods = [
    secret !== undefined && "USERWIRE_JWT_SECRET",
    publicKey !== undefined && "USERWIRE_JWT_PUBLIC_KEY",
    jwksUrl !== undefined && "USERWIRE_JWKS_URL",
  ].filter((name) => name !== false);
  if (methods.length === 0) {
    const lonely = [
      options.algorithms.length > 0 && "USERWIRE_JWT_ALGORITHMS",
      options.issuer !== undefined && "USERWIRE_JWT_ISSUER",
      options.audience !== undefined && "USERWIRE_JWT_AUDIENCE",
    ].filter((name) => name !== false);
    if (lonely.length === 0) return undefined;
    throw new ConfigError(
      lonely.map((name) =>
        `${name} is set, but nothing that verifies tokens: set USERWIRE_JWT_SECRET, USERWIRE_JWT_PUBLIC_KEY or ` +
        "USERWIRE_JWKS_URL, or leave it out"
      ),
    );
  }
  if (methods.length > 1) {
    throw new ConfigError([
      `${methods.join(" and ")} are set, but tokens are verified in one way: leave one`,
    ]);
  }
  if (secret !== undefined) return verifierBySecret(secret, options);
  if (publicKey !== undefined) return verifierByPublicKey(publicKey, options);
  const keys = new RemoteKeys(jwksUrl!, { cooldownMs: options.jwksCooldownMs, log: options.log });
  return verifier(keys, ALGORITHMS, options);
}

function verifierBySecret(secret: string, options: TokenOptions): Verify {
  const bytes = new TextEncoder().encode(secret);
  if (bytes.length < MIN_SECRET_BYTES) {
    throw new ConfigError([
      `USERWIRE_JWT_SECRET must have at least ${MIN_SECRET_BYTES} bytes, but has ${bytes.length}: it could be ` +
      "guessed from a single token",
    ]);
  }
  return verifier(bytes, HMAC, options);
}

function verifierByPublicKey(text: string, options: TokenOptions): Verify {
  const jwk = jwkOf(text);
  const suitable = jwk ? ALGORITHMS.filter((alg) => suits(jwk, alg)) : [];
  if (!jwk || suitable.length === 0) {
    throw new ConfigError([
      "USERWIRE_JWT_PUBLIC_KEY must be a public RSA, elliptic curve or Ed25519 key that verifies signatures, in PEM " +
      "or as a JWK, but is something else (not shown: it may hold a secret): give the public half of the key",
    ]);
  }
  return verifier(numbersOf(jwk), suitable, options);
}

/** The public key as a JWK, in which the library finds the form that each algorithm needs; undefined for other texts. */
function jwkOf(text: string): JWK | undefined {
  if (/PRIVATE KEY/.test(text)) return undefined;
  try {
    // In an environment variable line ends are often written as \n.
    if (!text.trimStart().startsWith("{")) {
      return createPublicKey(text.replaceAll("\\n", "\n")).export({ format: "jwk" }) as JWK;
    }
    const jwk = JSON.parse(text);
    return jwk.d === undefined && numbersOf(jwk) ? jwk : undefined;
  } catch {
    return undefined;
  }
}

/** @param suitable The algorithms that the key is for. */
function verifier(
  key: RemoteKeys | Uint8Array | JWK,
  suitable: readonly string[],
  options: TokenOptions,
): Verify {
  const { issuer, audience } = options;
  const unsuitable = options.algorithms.filter((name) => !suitable.includes(name));
  if (unsuitable.length > 0) {
    throw new ConfigError([
      `USERWIRE_JWT_ALGORITHMS must suit the key, which takes ${suitable.join(", ")}, but holds ` +
      `${JSON.stringify(unsuitable.join(","))}: correct it, or leave it out`,
    ]);
  }
  const rules = {
    algorithms: [...options.algorithms.length > 0 ? options.algorithms : suitable],
    requiredClaims: ["exp", "sub"],
    clockTolerance: options.clockToleranceS,
    ...(issuer !== undefined && { issuer }),
    ...(audience !== undefined && { audience }),
  };
  return async (token) => {
    if (token.length > MAX_TOKEN_LENGTH) throw new UnauthorizedError("The token is too long");
    let payload: JWTPayload;
    try {
      ({ payload } = key instanceof RemoteKeys
        ? await key.verify(token, rules)
        : await jwtVerify(token, key, rules));
    } catch (error) {
      if (error instanceof KeysUnavailableError) throw error;
      throw new UnauthorizedError(whyNot(error));
    }
    return identityOf(payload, options);
  };
}

function identityOf(
  { sub, exp, iat, jti, userwire }: JWTPayload & { userwire?: { maxConnections?: unknown } },
  options: TokenOptions,
): Identity {
  let username: string;
  try {
    username = parseUsername(sub, options.names);
  } catch (error) {
    throw new UnauthorizedError(`The token's "sub" is no username: ${messageOf(error)}`);
  }
  const nowS = Date.now() / 1_000;
  if (iat !== undefined && iat > nowS + options.clockToleranceS) {
    throw new UnauthorizedError(
      'The token\'s "iat" lies in the future, further than USERWIRE_JWT_CLOCK_TOLERANCE_S allows: set the clock of ' +
        "its signer right, or that of this node",
    );
  }
  // Not what is left of it: a token that was refused once would be taken later, when its revocation is forgotten.
  if (!(exp! - (iat ?? nowS) <= options.maxLifeS)) {
    throw new UnauthorizedError(
      `The token is valid for longer than the ${options.maxLifeS} seconds that USERWIRE_MAX_TOKEN_LIFE_S allows`,
    );
  }
  const isTokenId = typeof jti === "string" && jti !== "" && jti.length <= MAX_TOKEN_ID_LENGTH;
  if (jti !== undefined && !isTokenId) {
    throw new UnauthorizedError(
      `The token's "jti" must be a string of 1 to ${MAX_TOKEN_ID_LENGTH} characters: it could not be revoked otherwise`,
    );
  }
  const maxConnections = userwire?.maxConnections as number;
  return {
    username,
    exp: exp!,
    takenUntil: exp! + options.clockToleranceS,
    ...(iat !== undefined && { iat }),
    ...(jti !== undefined && { jti }),
    ...(Number.isSafeInteger(maxConnections) && maxConnections > 0 && { maxConnections }),
  };
}

/** In our own words: the library's may quote what the token holds. */
function whyNot(error: unknown): string {
  if (error instanceof errors.JWTExpired) return "The token has expired: get a new one";
  if (error instanceof errors.JWTClaimValidationFailed) {
    return error.reason === "missing"
      ? `The token lacks the claim "${error.claim}"`
      : `The token's claim "${error.claim}" is not what is wanted here`;
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return "The token is signed with an algorithm that is not allowed here";
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return "The token's signature is not valid";
  if (error instanceof errors.JWKSNoMatchingKey) {
    return "The token is signed with a key that is not known here";
  }
  return "The token is not a valid JSON Web Token";
}
