/**
 * A service in closed mode for tests: its keys, tokens signed as a login service would, and calls with a key. Tokens
 * are made with `jose` from outside; forged ones are put together by hand.
 */
import { SignJWT } from "jose";
import { newKey } from "../src/auth/keys.ts";
import type { Service } from "./service.ts";

export const SECRET = "a secret of thirty-two bytes or more";

/** One key for all, made anew for each run of the tests. */
export const KEY = newKey("tests", { scopes: ["send", "read", "groups", "admin"], users: "*|@*" });

/** Settings of a service that takes tokens by `SECRET` and calls with `KEY`. */
export const CLOSED = { USERWIRE_JWT_SECRET: SECRET, USERWIRE_API_KEYS: KEY.line };

export interface TokenClaims {
  readonly sub?: string | undefined;
  /** Seconds until it ends. @default 60 */
  readonly lifeS?: number | undefined;
  readonly [claim: string]: unknown;
}

/** A token for a user. A claim that is `undefined` is left out. */
export async function tokenFor(
  username: string | undefined,
  claims: TokenClaims = {},
  options: { secret?: string; alg?: string; key?: CryptoKey; kid?: string } = {},
): Promise<string> {
  const { lifeS = 60, ...rest } = claims;
  const nowS = Math.floor(Date.now() / 1_000);
  const payload = { sub: username, iat: nowS, exp: nowS + lifeS, ...rest };
  const { alg = "HS256", kid } = options;
  return await new SignJWT(JSON.parse(JSON.stringify(payload)))
    .setProtectedHeader({ alg, ...(kid !== undefined && { kid }) })
    .sign(options.key ?? new TextEncoder().encode(options.secret ?? SECRET));
}

/** The subprotocols with which a browser shows a token. */
export function protocolsFor(token: string): string[] {
  const encoded = new TextEncoder().encode(token).toBase64({ alphabet: "base64url", omitPadding: true });
  return ["userwire.v1", `userwire.bearer.${encoded}`];
}

export interface Called {
  readonly status: number;
  readonly headers: Headers;
  // deno-lint-ignore no-explicit-any -- tests look at whatever comes
  readonly body: any;
}

/** Calls the API with a key. */
export async function call(
  service: Service,
  request: string,
  options: { key?: string | undefined; body?: unknown; headers?: Record<string, string> } = {},
): Promise<Called> {
  const [method, path] = request.split(" ") as [string, string];
  const key = "key" in options ? options.key : KEY.key;
  const response = await service.fetch(path, {
    method,
    headers: {
      ...(key !== undefined && { authorization: `Bearer ${key}` }),
      ...(options.body !== undefined && { "content-type": "application/json" }),
      ...options.headers,
    },
    ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json");
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
}
