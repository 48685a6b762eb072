/**
 * Where a client connects: makes the address of a socket out of whatever form the application gave, and the
 * subprotocols out of a token. No I/O; faults that would only show as a refused handshake, for ever, are found here.
 */
import { BEARER_SUBPROTOCOL } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { formatPosition, type Position } from "../protocol/position.ts";
import { parseUsername } from "../protocol/username.ts";

/** What a socket is opened with. */
export interface Address {
  readonly url: string;
  readonly protocols: string[];
}

/** The ticket in the address has let a connection in, or is older than any that does, and can't do it again. */
export class TicketUsedError extends Error {
  override readonly name = "TicketUsedError";

  constructor() {
    super(
      "The ticket in the address is used up or too old: give a function that gets a fresh one as `token`",
    );
  }
}

/** No service takes a ticket that is older, in milliseconds. */
export const LONGEST_TICKET_MS = 3_600_000;
/** The path of sockets where the address names none. */
const SOCKET_PATH = "/ws";

/**
 * The address of the service's sockets.
 * @param address `wss://host/ws`, `https://host`, or in a page something relative to it, such as `/`.
 * @throws {TypeError} when it is none of these.
 */
export function socketUrl(address: string | URL): URL {
  const base = (globalThis as { location?: { href: string } }).location?.href;
  let url: URL;
  try {
    url = new URL(address, base);
  } catch (cause) {
    throw new TypeError(`Can't connect to "${address}": give an address such as "https://example.com"`, {
      cause,
    });
  }
  if (!/^(http|ws)s?:$/.test(url.protocol)) {
    throw new TypeError(
      `Can't connect to "${address}": its scheme must be http:, https:, ws: or wss:, not ${url.protocol}`,
    );
  }
  // The scheme is exchanged in the text: URL's own setter does not exist everywhere a URL does.
  url = new URL(url.href.replace(/^http/, "ws"));
  url.hash = "";
  if (url.pathname === "/") url.pathname = SOCKET_PATH;
  return url;
}

/**
 * Adds who is connecting, and from where on.
 * @param identity The user's name in open mode, else a token.
 * @param all The position in the broadcasts.
 */
export function addressOf(
  base: URL,
  identity: { user: string } | { token: string },
  position: Position | undefined,
  all?: Position | undefined,
): Address {
  const url = new URL(base);
  const protocols: string[] = [SUBPROTOCOL];
  if ("user" in identity) url.searchParams.set("username", parseUsername(identity.user));
  else protocols.push(BEARER_SUBPROTOCOL + base64url(identity.token));
  if (position) url.searchParams.set("resume", formatPosition(position));
  if (all) url.searchParams.set("all", formatPosition(all));
  return { url: url.href, protocols };
}

function base64url(text: string): string {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
