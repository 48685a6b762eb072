/**
 * The signature of a webhook, by the rules that many services share: https://www.standardwebhooks.com. Signed is
 * `<id>.<timestamp>.<body>` with HMAC-SHA256; the header holds one signature for each secret, so that the receiver can
 * change from one to the next.
 *
 * It takes nothing from its runtime but `crypto`, which Node and browsers have too.
 */

const PREFIX = "whsec_";
/** Bytes that a secret may have, as Standard Webhooks wants it. */
const MIN_BYTES = 24;
const MAX_BYTES = 64;
/** The rule for a secret, as the words after "must be". */
export const SECRET_FORM = `${PREFIX} and the base64 of ${MIN_BYTES} to ${MAX_BYTES} random bytes`;
/** A webhook from another time than this may be one that somebody sends again, in seconds. */
const DEFAULT_TOLERANCE_S = 300;

const encoder = new TextEncoder();

/** The bytes of a secret; undefined when it is none. */
export function secretBytes(secret: string): Uint8Array<ArrayBuffer> | undefined {
  if (!secret.startsWith(PREFIX)) return undefined;
  const bytes = fromBase64(secret.slice(PREFIX.length));
  return bytes !== undefined && bytes.length >= MIN_BYTES && bytes.length <= MAX_BYTES ? bytes : undefined;
}

/**
 * The value of `webhook-signature`.
 * @param secrets Each `whsec_…`. @throws {TypeError} when one is none.
 * @param timestampS Unix seconds, as in `webhook-timestamp`.
 */
export async function sign(
  secrets: readonly string[],
  id: string,
  timestampS: number,
  body: string,
): Promise<string> {
  const signed = encoder.encode(`${id}.${timestampS}.${body}`);
  const all = await Promise.all(secrets.map(async (secret) => {
    const key = await keyOf(secret, "sign");
    const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, signed));
    return `v1,${btoa(String.fromCharCode(...bytes))}`;
  }));
  return all.join(" ");
}

/** A webhook that is not from who knows the secret, or not from now. */
export class WebhookVerificationError extends Error {
  override name = "WebhookVerificationError";
}

export interface VerifyOptions {
  /** How far the time of the webhook may be from now, in seconds. @default 300 */
  toleranceS?: number;
  /** Unix seconds. @default now */
  nowS?: number;
}

/** What a webhook says. */
export interface WebhookBody {
  type: string;
  /** When it was decided, in RFC 3339. */
  timestamp: string;
  data: unknown;
}

/**
 * Checks that a webhook is from the service, and reads it.
 * @param headers Of the request: `Headers`, or a plain object with names in lower case, as Node has it.
 * @param body As it came, not parsed and written anew.
 * @param secrets `whsec_…`, one or several.
 * @throws {WebhookVerificationError}
 * @throws {TypeError} when a secret is none.
 */
export async function verifyWebhook(
  headers: { get(name: string): string | null } | Readonly<Record<string, string | string[] | undefined>>,
  body: string,
  secrets: string | readonly string[],
  { toleranceS = DEFAULT_TOLERANCE_S, nowS = Date.now() / 1_000 }: VerifyOptions = {},
): Promise<WebhookBody> {
  const header = (name: string): string => {
    const value = typeof headers.get === "function"
      ? headers.get(name)
      : (headers as Readonly<Record<string, string | string[] | undefined>>)[name];
    if (typeof value !== "string" || value === "") {
      throw new WebhookVerificationError(`The header ${name} is missing`);
    }
    return value;
  };
  const id = header("webhook-id");
  const timestamp = header("webhook-timestamp");
  const signatures = header("webhook-signature").split(" ").filter((one) => one.startsWith("v1,"));
  if (!/^\d{1,15}$/.test(timestamp)) {
    throw new WebhookVerificationError("The header webhook-timestamp is no number of seconds");
  }
  if (Math.abs(nowS - Number(timestamp)) > toleranceS) {
    throw new WebhookVerificationError(
      `The webhook is from another time: webhook-timestamp is more than ${toleranceS} s from now`,
    );
  }
  const signed = encoder.encode(`${id}.${timestamp}.${body}`);
  for (const secret of typeof secrets === "string" ? [secrets] : secrets) {
    const key = await keyOf(secret, "verify");
    for (const signature of signatures) {
      const bytes = fromBase64(signature.slice(3));
      if (bytes && await crypto.subtle.verify("HMAC", key, bytes, signed)) return JSON.parse(body);
    }
  }
  throw new WebhookVerificationError("No signature of the webhook fits a secret");
}

function keyOf(secret: string, usage: "sign" | "verify"): Promise<CryptoKey> {
  const bytes = secretBytes(secret);
  if (!bytes) throw new TypeError(`A secret must be ${SECRET_FORM}`);
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, [usage]);
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
