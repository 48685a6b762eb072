/**
 * Where a client connects: makes the address of a socket out of whatever form the application gave, and the
 * subprotocols out of a token. No I/O; faults that would only show as a refused handshake, for ever, are found here.
 */
import { base64urlOf } from "../protocol/base64.ts";
import { BEARER_SUBPROTOCOL } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { formatPosition, type Position } from "../protocol/position.ts";
import { parseUsername } from "../protocol/username.ts";
import type { AddressLike } from "./options.ts";

/** What a socket is opened with. */
export interface Address {
  readonly url: string;
  readonly protocols: string[];
  readonly token: string | undefined;
  /** After how many seconds of silence a sign of life is asked for. */
  readonly pingS: number | undefined;
}

/** What an address is made for. */
export interface Asked {
  /** The user's name in open mode, else a token. */
  readonly identity: { readonly user: string } | { readonly token: string };
  readonly position: Position | undefined;
  /** The position in the broadcasts. */
  readonly all?: Position | undefined;
  readonly pingS: number | undefined;
}

/** The path of sockets where the address names none. */
const SOCKET_PATH = "/ws";

/**
 * The address of the service's sockets.
 * @param address `wss://host/ws`, `https://host`, or in a page something relative to it, such as `/`.
 * @throws {TypeError} when it is none of these, or holds a ticket.
 */
export function socketUrl(address: AddressLike): URL {
  const base = (globalThis as { location?: { href: string } }).location?.href;
  const text = typeof address === "string" ? address : address.href;
  let url: URL;
  try {
    url = new URL(text, base);
  } catch (cause) {
    throw new TypeError(`Can't connect to "${text}": give an address such as "https://example.com"`, {
      cause,
    });
  }
  if (!/^(http|ws)s?:$/.test(url.protocol)) {
    throw new TypeError(
      `Can't connect to "${text}": its scheme must be http:, https:, ws: or wss:, not ${url.protocol}`,
    );
  }
  if (url.searchParams.has("ticket")) {
    throw new TypeError(
      "A ticket in the address lets in once, and a client comes back: give the address without it, and as `token` a " +
        "function that gets a fresh ticket",
    );
  }
  // The scheme is exchanged in the text: URL's own setter does not exist everywhere a URL does.
  url = new URL(url.href.replace(/^http/, "ws"));
  url.hash = "";
  if (url.pathname === "/") url.pathname = SOCKET_PATH;
  return url;
}

/** Adds who is connecting, from where on, and what is asked for. */
export function addressOf(base: URL, { identity, position, all, pingS }: Asked): Address {
  const url = new URL(base);
  const protocols: string[] = [SUBPROTOCOL];
  const token = "token" in identity ? identity.token : undefined;
  if ("user" in identity) url.searchParams.set("username", parseUsername(identity.user));
  else protocols.push(BEARER_SUBPROTOCOL + base64urlOf(new TextEncoder().encode(identity.token)));
  if (position) url.searchParams.set("resume", formatPosition(position));
  if (all) url.searchParams.set("all", formatPosition(all));
  if (pingS !== undefined) url.searchParams.set("ping", String(pingS));
  return { url: url.href, protocols, token, pingS };
}
