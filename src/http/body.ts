/** Reads request bodies, never more of them than is allowed. */
import { Buffer } from "node:buffer";
import { InvalidMessageError, messageOf } from "../protocol/errors.ts";
import { RequestFault } from "./problem.ts";
import { isJsonInSlices, type JsonBounds, JsonBoundsError, SMALL_JSON } from "./json_text.ts";
import { CheckedJson } from "../publisher/payload.ts";
import type { Payload } from "../protocol/envelope.ts";
import { isJson } from "../protocol/json.ts";
import type { Deadlines } from "../async/deadlines.ts";

/** The body broke off: its sender left, or this process is ending. Nobody is there for an answer. */
export class BodyBrokenError extends RequestFault {
  override readonly name = "BodyBrokenError";
}

/** How much of a body is read, and for how long. */
export interface BodyLimits {
  /** In bytes. */
  readonly maxBytes: number;
  /** Which setting says so; none where it can't be raised. */
  readonly setting?: string;
  /** From the head of the request to the end of its body. */
  readonly deadlines: Deadlines;
}

/** Deno decodes without `fatal` in a quarter of the time. */
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The whole body. Not an async function: it is only called in one, and each is a promise more for each send.
 * @throws {RequestFault} as soon as that is known.
 */
function readBody(request: Request, limits: BodyLimits): Promise<Uint8Array<ArrayBuffer>> {
  const { deadlines } = limits;
  const { headers } = request;
  const length = headers.get("content-length");
  assertPlain("content", headers.get("content-encoding"), "identity");
  // Where a length is given, there is none. The server takes every coding that ends in chunks, and decodes no other.
  if (length === null) assertPlain("transfer", headers.get("transfer-encoding"), "chunked");
  if (Number(length) > limits.maxBytes) throw tooLarge(limits, `it has ${Number(length)}`);
  // A body of known length is read in one go; hyper holds the sender to the length it gave.
  const reading = length !== null ? request.bytes() : readChunks(request, limits);
  return deadlines.within(reading, {
    late: () => {
      const text = `The body must come within ${deadlines.limitMs / 1_000} s: it was not complete by then`;
      return new RequestFault("too_slow", text, CLOSE);
    },
    failed: bodyBroken,
  });
}

/** What a body that could not be read to its end is refused with. */
export function bodyBroken(error: unknown): RequestFault {
  if (error instanceof RequestFault) return error;
  const text = `The body broke off: ${messageOf(error)}`;
  return new BodyBrokenError("invalid_request", text, CLOSE, { cause: error });
}

/** The same for one that stands still. */
export function tooSlow({ limitMs }: Deadlines): RequestFault {
  return new RequestFault("too_slow", `Nothing more of the body came for ${limitMs / 1_000} s`, CLOSE);
}

/** What is still to come of the body must not be taken for the next request. */
const CLOSE = { connection: "close" };

/** @param size What is known of its size. */
function tooLarge({ maxBytes, setting }: BodyLimits, size: string): RequestFault {
  const remedy = setting === undefined ? "send less at one time" : `send less, or raise ${setting}`;
  return new RequestFault("too_large", `The body must have at most ${maxBytes} bytes: ${size}; ${remedy}`);
}

/** @throws {RequestFault} when the body is encoded in another way than as it is. */
export function assertUnencoded({ headers }: Request): void {
  assertPlain("content", headers.get("content-encoding"), "identity");
  // Where a length is given, there is none. The server takes every coding that ends in chunks, and decodes no other.
  if (!headers.has("content-length")) assertPlain("transfer", headers.get("transfer-encoding"), "chunked");
}

/** @throws {RequestFault} when the body is encoded in another way than the one given. */
function assertPlain(what: "content" | "transfer", encoding: string | null, plain: string): void {
  if (encoding === null || encoding.trim() === "" || encoding.trim().toLowerCase() === plain) return;
  throw new RequestFault(
    "unsupported_media_type",
    `The ${what} encoding ${JSON.stringify(encoding)} is not decoded here: send the body as it is`,
    { "accept-encoding": "identity" },
  );
}

async function readChunks({ body }: Request, limits: BodyLimits): Promise<Uint8Array<ArrayBuffer>> {
  if (body === null) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limits.maxBytes) throw tooLarge(limits, "it has more");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** The body as text. @throws {InvalidMessageError} when it is not UTF-8. */
export function textOf(bytes: Uint8Array): string {
  const text = utf8.decode(bytes);
  // In place of what is no UTF-8 stands U+FFFD. A text may hold one of its own, so then the strict decoder decides.
  if (!text.includes("\ufffd")) return text;
  try {
    return strictUtf8.decode(bytes);
  } catch {
    throw new InvalidMessageError("The body is not valid UTF-8");
  }
}

/**
 * The body as the payload of a message: its content type says which kind.
 * @throws {RequestFault | InvalidMessageError}
 */
export async function readPayload(request: Request, limits: BodyLimits): Promise<Payload> {
  const type = request.headers.get("content-type");
  const kind = KINDS.get(type ?? "") ?? KINDS.get(mediaTypeOf(type));
  if (!kind) throw notReadable(type, "application/json, text/plain or application/octet-stream");
  if (kind !== "binary") assertUtf8(type!);
  const bytes = await readBody(request, limits);
  if (bytes.length === 0) {
    throw new InvalidMessageError("The body is empty: it must be the payload of the message");
  }
  if (kind === "binary") return { kind, bytes };
  const text = textOf(bytes);
  if (kind === "text") return { kind, text };
  if (text.length <= SMALL_JSON ? isJson(text) : await isJsonInSlices(text)) return new CheckedJson(text);
  throw new InvalidMessageError("The payload is not JSON: send it as text, or correct it");
}

function notReadable(type: string | null, readable: string): RequestFault {
  return new RequestFault(
    "unsupported_media_type",
    type === null
      ? `The request has no Content-Type: send ${readable}`
      : `The content type ${JSON.stringify(type)} can't be read here: use ${readable}`,
  );
}

/** Names of UTF-8, and of what is the same in it. */
const UTF8 = new Set(["utf-8", "utf8", "us-ascii", "ascii"]);

/** @throws {RequestFault} when the type names another charset. */
function assertUtf8(type: string): void {
  const charset = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(type)?.[1];
  if (charset === undefined || UTF8.has(charset.toLowerCase())) return;
  throw new RequestFault(
    "unsupported_media_type",
    `The charset ${JSON.stringify(charset)} can't be read: send UTF-8`,
  );
}

const KINDS: ReadonlyMap<string, Payload["kind"]> = new Map([
  ["application/json", "json"],
  ["text/plain", "text"],
  ["application/octet-stream", "binary"],
]);

/**
 * The body as the text of one JSON value, whatever it is.
 * @param bounds What it may hold.
 * @throws {RequestFault | InvalidMessageError}
 */
export async function readJsonText(
  request: Request,
  limits: BodyLimits,
  bounds?: JsonBounds,
): Promise<string> {
  const type = request.headers.get("content-type");
  if (mediaTypeOf(type) !== "application/json") throw notReadable(type, "application/json");
  assertUtf8(type!);
  const text = textOf(await readBody(request, limits));
  try {
    if (await isJsonInSlices(text, bounds)) return text;
  } catch (error) {
    if (error instanceof JsonBoundsError) throw new InvalidMessageError(error.message);
    throw error;
  }
  throw new InvalidMessageError("The body is not JSON");
}

/** More than the bodies hold that are read whole: flat ones, of a list at most. */
const BOUNDS: JsonBounds = { maxDepth: 8, maxValues: 20_000 };

/** The body as JSON, of a call whose body is flat. @throws as `readJsonText`. */
export async function readJson(request: Request, limits: BodyLimits): Promise<unknown> {
  return JSON.parse(await readJsonText(request, limits, BOUNDS));
}

/** The part that names the type, without parameters. */
export function mediaTypeOf(header: string | null): string {
  return (header ?? "").split(";", 1)[0]!.trim().toLowerCase();
}
