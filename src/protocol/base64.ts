/**
 * Bytes as base64 text, and back, also where `Uint8Array` has no methods for it: Node before 25 and browsers of before
 * 2025. With the methods it is one call, which the delivery path can afford.
 */

/** Older runtimes lack what Deno's types promise. */
type Bytes = Uint8Array & { toBase64?: Uint8Array["toBase64"] };
const Bytes: { fromBase64?: typeof Uint8Array.fromBase64 } = Uint8Array;

/** Characters that an argument list may hold at once, everywhere. */
const CHUNK = 8_192;

export function base64Of(bytes: Bytes): string {
  if (bytes.toBase64) return bytes.toBase64();
  let binary = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  }
  return btoa(binary);
}

/** In the alphabet of addresses, without padding. */
export function base64urlOf(bytes: Uint8Array): string {
  return base64Of(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @throws {SyntaxError | DOMException} when it is no base64. */
export function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  if (Bytes.fromBase64) return Bytes.fromBase64(base64);
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}
