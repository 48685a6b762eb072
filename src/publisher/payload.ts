/** What can be sent, and the payload it becomes. Everything else is refused before anything is sent. */
import { InvalidMessageError, messageOf } from "../protocol/errors.ts";
import type { Payload } from "../protocol/envelope.ts";
import { isJson } from "../protocol/json.ts";

/**
 * What a backend may send:
 *
 * - a payload with its kind, `{ kind: "json" | "text", text }` or `{ kind: "binary", bytes }`, is sent as it says. So an
 *   object whose `kind` is one of these three is always taken for a payload;
 * - bytes are sent as bytes, and a string as text;
 * - every other value is sent as JSON.
 */
export type Sendable = Payload | Uint8Array | ArrayBuffer | string | number | boolean | null | object;

/** JSON text that its maker knows to be JSON, so that it is not parsed again to find out. */
export class CheckedJson {
  readonly kind = "json";

  constructor(readonly text: string) {}
}

/** @throws {InvalidMessageError} when it can't be sent. */
export function payloadFrom(message: unknown): Payload {
  if (message instanceof CheckedJson) return message;
  if (typeof message === "string") return { kind: "text", text: message };
  if (message instanceof Uint8Array) return { kind: "binary", bytes: message as Uint8Array<ArrayBuffer> };
  if (message instanceof ArrayBuffer) return { kind: "binary", bytes: new Uint8Array(message) };
  if (ArrayBuffer.isView(message)) {
    throw new InvalidMessageError("Bytes are sent as a Uint8Array: make one of the buffer's bytes");
  }
  return hasKind(message) ? explicit(message) : jsonOf(message);
}

type WithKind = { kind: Payload["kind"]; text?: unknown; bytes?: unknown };

function hasKind(message: unknown): message is WithKind {
  if (typeof message !== "object" || message === null) return false;
  const { kind } = message as { kind?: unknown };
  return kind === "json" || kind === "text" || kind === "binary";
}

function explicit({ kind, text, bytes }: WithKind): Payload {
  if (kind === "binary" && bytes instanceof Uint8Array) {
    return { kind, bytes: bytes as Uint8Array<ArrayBuffer> };
  }
  if (kind === "binary" || typeof text !== "string") {
    const needed = kind === "binary" ? '"bytes", a Uint8Array' : '"text", a string';
    throw new InvalidMessageError(
      `A payload of kind "${kind}" needs ${needed}; to send an object that has a field of this name as JSON, ` +
        'give { kind: "json", text: JSON.stringify(object) }',
    );
  }
  if (kind === "json" && !isJson(text)) {
    throw new InvalidMessageError("The payload is not JSON: send it as text, or correct it");
  }
  return { kind, text };
}

function jsonOf(value: unknown): Payload {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    // A BigInt, a circle, or what an object's own toJSON throws.
    throw new InvalidMessageError(`The payload can't be written as JSON: ${messageOf(cause)}`, { cause });
  }
  if (text === undefined) {
    throw new InvalidMessageError(`${nameOf(value)} is no payload: JSON has no such value`);
  }
  // NaN, Infinity, an invalid date.
  if (text === "null" && value !== null) {
    throw new InvalidMessageError(`${nameOf(value)} is no payload: as JSON it would be null`);
  }
  // A map, a promise that was not awaited: what they hold would be lost in silence.
  if (text === "{}" && !isPlain(value)) {
    throw new InvalidMessageError(`${nameOf(value)} is no payload: as JSON it would be an empty object`);
  }
  return new CheckedJson(text);
}

function isPlain(value: unknown): boolean {
  if (typeof (value as { toJSON?: unknown }).toJSON === "function") return true;
  const prototype = Object.getPrototypeOf(value);
  // Plain in another realm too, whose Object is not ours.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function nameOf(value: unknown): string {
  if (typeof value === "number") return String(value);
  if (typeof value !== "object" || value === null) {
    return `A ${typeof value}`.replace("A undefined", "Undefined");
  }
  return `A ${value.constructor?.name ?? "value"}`;
}
