/** Reads request bodies, never more of them than is allowed. */
import { InvalidMessageError } from "../errors.ts";
import type { Payload } from "../protocol.ts";
import type { Deadlines } from "../deadlines.ts";

/** The body is larger than allowed. */
export class BodyTooLargeError extends Error {
  override readonly name = "BodyTooLargeError";
  constructor(maxBytes: number) {
    super(`The body must have at most ${maxBytes} bytes`);
  }
}

/** The body did not come to its end in time. */
export class BodyTimeoutError extends Error {
  override readonly name = "BodyTimeoutError";
  constructor(timeoutMs: number) {
    super(`The body must come within ${timeoutMs / 1_000} s: it was not complete by then`);
  }
}

/** How much of a body is read, and for how long. */
export interface BodyLimits {
  /** In bytes. */
  readonly maxBytes: number;
  /** From the head of the request to the end of its body. */
  readonly deadlines: Deadlines;
}

/** The body is of a type that can't be sent. */
export class MediaTypeError extends Error {
  override readonly name = "MediaTypeError";
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The whole body.
 * @throws {BodyTooLargeError | BodyTimeoutError} as soon as that is known.
 */
export async function readBody(request: Request, limits: BodyLimits): Promise<Uint8Array<ArrayBuffer>> {
  const { maxBytes, deadlines } = limits;
  const length = request.headers.get("content-length");
  if (Number(length) > maxBytes) throw new BodyTooLargeError(maxBytes);
  // A body of known length is read in one go; hyper holds the sender to the length it gave.
  const reading = length !== null ? request.bytes() : readChunks(request, maxBytes);
  return await deadlines.within(reading, () => new BodyTimeoutError(deadlines.limitMs));
}

async function readChunks({ body }: Request, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  if (body === null) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new BodyTooLargeError(maxBytes);
    chunks.push(chunk);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/**
 * The body as text.
 * @throws {InvalidMessageError} when it is not UTF-8.
 */
export function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new InvalidMessageError("The body is not valid UTF-8");
  }
}

/**
 * The body as the payload of a message: its content type says which kind.
 * @throws {MediaTypeError | InvalidMessageError | BodyTooLargeError | BodyTimeoutError}
 */
export async function readPayload(request: Request, limits: BodyLimits): Promise<Payload> {
  const type = request.headers.get("content-type");
  const kind = KINDS.get(type ?? "") ?? KINDS.get(mediaTypeOf(type));
  if (!kind) {
    throw new MediaTypeError(
      type === null
        ? "The request has no Content-Type: send application/json, text/plain or application/octet-stream"
        : `The content type ${JSON.stringify(type)} can't be sent: ` +
          "use application/json, text/plain or application/octet-stream",
    );
  }
  const charset = /;\s*charset="?([^\s;"]*)/i.exec(type ?? "")?.[1]?.toLowerCase();
  if (kind !== "binary" && charset !== undefined && charset !== "utf-8" && charset !== "us-ascii") {
    throw new MediaTypeError(`The charset ${JSON.stringify(charset)} can't be read: send UTF-8`);
  }
  const bytes = await readBody(request, limits);
  if (bytes.length === 0) {
    throw new InvalidMessageError("The body is empty: it must be the payload of the message");
  }
  return kind === "binary" ? { kind, bytes } : { kind, text: textOf(bytes) };
}

const KINDS: ReadonlyMap<string, Payload["kind"]> = new Map([
  ["application/json", "json"],
  ["text/plain", "text"],
  ["application/octet-stream", "binary"],
]);

/**
 * The body as JSON.
 * @throws {MediaTypeError | InvalidMessageError | BodyTooLargeError | BodyTimeoutError}
 */
export async function readJson(request: Request, limits: BodyLimits): Promise<unknown> {
  const type = request.headers.get("content-type");
  if (mediaTypeOf(type) !== "application/json") {
    throw new MediaTypeError(
      type === null
        ? "The request has no Content-Type: send application/json"
        : `The content type ${JSON.stringify(type)} can't be read here: send application/json`,
    );
  }
  return parseJson(textOf(await readBody(request, limits)));
}

/** The part that names the type, without parameters. */
function mediaTypeOf(header: string | null): string {
  return (header ?? "").split(";", 1)[0]!.trim().toLowerCase();
}

/**
 * Parses JSON so that it can be written again with the same values: numbers that JavaScript can't hold keep
 * their digits.
 * @throws {InvalidMessageError}
 */
export function parseJson(text: string): unknown {
  try {
    // Only numbers with more than 15 digits or an exponent can be at risk, and the reviver is slow.
    return /\d(?:\.?\d){15}|\d[eE]/.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
  } catch (error) {
    // The reviver calls itself for each level.
    if (error instanceof RangeError) throw new InvalidMessageError("The body nests too deeply");
    throw new InvalidMessageError("The body is not JSON");
  }
}

/** TypeScript's library does not have these two yet: https://github.com/tc39/proposal-json-parse-with-source */
interface JsonWithRaw {
  rawJSON(text: string): unknown;
}

function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  return typeof value === "number" && source !== undefined && String(value) !== source
    ? (JSON as unknown as JsonWithRaw).rawJSON(source)
    : value;
}
