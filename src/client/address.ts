/**
 * Where a client connects: makes the address of a socket out of whatever form the application gave, and the
 * subprotocols out of a token. No I/O; faults that would only show as a refused handshake, for ever, are found here.
 */
import { base64urlOf } from "../protocol/base64.ts";
import { BEARER_SUBPROTOCOL } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { formatPosition, type Position } from "../protocol/position.ts";
import { checkUsername } from "../protocol/username.ts";
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
/** Scheme, host, path and query. Taken from the text, since in React Native an `URL` has no parts that can be set. */
const PARTS = /^(\w+):\/\/([^/?#]+)([^?#]*)\??([^#]*)/;

/**
 * The address of the service's sockets.
 * @param address `wss://host/ws`, `https://host`, or in a page something relative to it, such as `/`.
 * @throws {TypeError} when it is none of these, or holds a ticket.
 */
export function socketUrl(address: AddressLike): string {
  const base = (globalThis as { location?: { href: string } }).location?.href;
  const text = typeof address === "string" ? address : address.href;
  let href: string;
  try {
    ({ href } = new URL(text, base));
  } catch (cause) {
    throw new TypeError(`Can't connect to "${text}": give an address such as "https://example.com"`, {
      cause,
    });
  }
  // Older ones of React Native's put a slash after whatever address.
  const [, scheme, host, path, query] = PARTS.exec(href === `${text}/` ? text : href) ?? [];
  if (!/^(http|ws)s?$/.test(scheme!)) {
    throw new TypeError(
      `Can't connect to "${text}": its scheme must be http:, https:, ws: or wss:, not ${/^\w*:?/.exec(href)}`,
    );
  }
  if (/(^|&)ticket=/.test(query!)) {
    throw new TypeError(
      "A ticket in the address lets in once, and a client comes back: give the address without it, and as `token` a " +
        "function that gets a fresh ticket",
    );
  }
  const ending = path === "" || path === "/" ? SOCKET_PATH : path;
  return `${scheme!.replace("http", "ws")}://${host}${ending}${query && `?${query}`}`;
}

/** Adds who is connecting, from where on, and what is asked for. */
export function addressOf(base: string, { identity, position, all, pingS }: Asked): Address {
  const protocols: string[] = [SUBPROTOCOL];
  const token = "token" in identity ? identity.token : undefined;
  if (token !== undefined) protocols.push(BEARER_SUBPROTOCOL + base64urlOf(new TextEncoder().encode(token)));
  const fields = Object.entries({
    username: "user" in identity ? checkUsername(identity.user) : undefined,
    resume: position && formatPosition(position),
    all: all && formatPosition(all),
    ping: pingS,
  }).flatMap(([name, value]) => value === undefined ? [] : `${name}=${encodeURIComponent(value)}`);
  const [start, query] = partsOf(base);
  // The first of a name counts.
  if (query) fields.push(query);
  return { url: [start, ...fields.length ? [fields.join("&")] : []].join("?"), protocols, token, pingS };
}

/** An address without its query, and that. */
export function partsOf(address: string): [string, string] {
  const at = `${address}?`.indexOf("?");
  return [address.slice(0, at), address.slice(at + 1)];
}
