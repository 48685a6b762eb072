/** A public key that verifies tokens, as a JSON Web Key: for which algorithms it is, and its form for each. */
import { createPublicKey, type JsonWebKey } from "node:crypto";
import { importJWK, type JWK } from "jose";
import { messageOf } from "../protocol/errors.ts";

const RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

/** What a key must be for an algorithm. */
const KINDS: Readonly<Record<string, { kty: string; crv?: string }>> = {
  ...Object.fromEntries(RSA.map((alg) => [alg, { kty: "RSA" }])),
  ES256: { kty: "EC", crv: "P-256" },
  ES384: { kty: "EC", crv: "P-384" },
  ES512: { kty: "EC", crv: "P-521" },
  EdDSA: { kty: "OKP", crv: "Ed25519" },
  Ed25519: { kty: "OKP", crv: "Ed25519" },
};

/** The algorithms of tokens that public keys verify. */
export const ALGORITHMS: readonly string[] = Object.keys(KINDS);

type Imported = Awaited<ReturnType<typeof importJWK>>;

/** One published key, and its forms for the algorithms it was used with. */
export interface PublishedKey {
  readonly jwk: JWK;
  readonly forms: Map<string, Promise<Imported>>;
}

/** Signers publish public keys only; one that does not must not make verifying depend on more. */
export function publicPart({ kty, crv, x, y, n, e, kid, alg, use, key_ops }: JWK): JWK {
  const id = typeof kid === "string" ? kid : undefined;
  return { kty, crv, x, y, n, e, kid: id, alg, use, key_ops } as JWK;
}

/** Whether tokens by this algorithm may be signed with the key. */
export function suits(jwk: JWK, alg: string): boolean {
  const kind = KINDS[alg];
  if (kind === undefined || jwk.kty !== kind.kty || (kind.crv !== undefined && jwk.crv !== kind.crv)) {
    return false;
  }
  if (jwk.alg !== undefined && jwk.alg !== alg && kind.crv !== "Ed25519") return false;
  if (jwk.use !== undefined && jwk.use !== "sig") return false;
  return !Array.isArray(jwk.key_ops) || jwk.key_ops.includes("verify");
}

/** The key in the form that the library needs for an algorithm, made once. @throws {TypeError} when the key is broken. */
export function formOf({ jwk, forms }: PublishedKey, alg: string): Promise<Imported> {
  let form = forms.get(alg);
  if (form === undefined) {
    form = importKey(jwk, alg);
    // The call that needs the key rejects.
    form.catch(() => {});
    forms.set(alg, form);
  }
  return form;
}

async function importKey(jwk: JWK, alg: string): Promise<Imported> {
  try {
    return await importJWK(numbersOf(jwk), alg);
  } catch (error) {
    // Not the library's own class, which elsewhere says that something is wrong with the token.
    throw new TypeError(messageOf(error));
  }
}

/**
 * The key without what it says beside its numbers: the library refuses some of that, and `suits` looks at it. Looks at the
 * numbers, as the import for verifying does not: a point off the curve would fit no signature.
 * @throws {Error} when they are no public key's.
 */
export function numbersOf({ kty, crv, x, y, n, e }: JWK): JWK {
  const key = createPublicKey({ key: { kty, crv, x, y, n, e } as JsonWebKey, format: "jwk" });
  return key.export({ format: "jwk" }) as JWK;
}

/** How the log calls a key. */
export function nameOf({ kid }: JWK): string {
  return kid === undefined ? "without an id" : JSON.stringify(kid.slice(0, 100));
}
