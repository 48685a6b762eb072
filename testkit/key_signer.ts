/**
 * Whoever signs tokens and publishes the keys for that at a URL, and a verifier that fetches them there.
 *
 *     const pair = await newPair();
 *     await using signer = new Signer({ ...pair.jwk, kid: "k" });
 *     const { verify } = verifierOf(signer);
 *     await fateOf(verify, await pair.sign({ kid: "k" })); // "alice"
 */
import { exportJWK, generateKeyPair, type JWK } from "jose";
import { openVerifier, type Verify } from "../src/auth/jwt.ts";
import { memoryLog } from "./memory_log.ts";
import { tokenFor } from "./closed.ts";

export interface Pair {
  readonly jwk: JWK;
  sign(options?: { kid?: string; claims?: Record<string, unknown> }): Promise<string>;
}

export async function newPair(alg = "ES256"): Promise<Pair> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return {
    jwk: { ...await exportJWK(publicKey), alg },
    sign: ({ kid, claims = {} } = {}) =>
      tokenFor("alice", claims, { alg, key: privateKey, ...(kid !== undefined && { kid }) }),
  };
}

/** A signer of tokens, whose answer is whatever a test wants. */
export class Signer implements AsyncDisposable {
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

export function verifierOf(signer: Signer, cooldownMs?: number) {
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
export async function fateOf(verify: Verify, token: string): Promise<string> {
  return await verify(token).then(({ username }) => username, (error: Error) => error.name);
}
