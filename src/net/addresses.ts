/**
 * IP addresses and ranges of them: which ones are trusted proxies, whose request it is behind them, and which addresses
 * count as one client. Text that is no address is never an error: it comes from headers that anybody may have written.
 * The room owns who calls and by which name; it must not know what they ask for.
 */
import { BlockList, isIP } from "node:net";

/** An address in one spelling: without a zone (`%eth0`), and IPv4 inside IPv6 (`::ffff:1.2.3.4`) as IPv4. */
interface Address {
  readonly family: "ipv4" | "ipv6";
  readonly text: string;
}

/** Reads an address, without a port. */
function parseAddress(text: string): Address | undefined {
  const version = isIP(text);
  if (version === 0) return undefined;
  if (version === 4) return { family: "ipv4", text };
  // URL writes every form of an IPv6 address as hexadecimal groups with at most one gap.
  const groups = new URL(`http://[${text.replace(/%.*$/, "")}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(groups) ?? [];
  if (high === undefined) return { family: "ipv6", text: groups };
  const bytes = [high, low!].flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 0xff]);
  return { family: "ipv4", text: bytes.join(".") };
}

/** Reads a range in CIDR form such as `10.0.0.0/8` or `fd00::/8`, or a single address. */
function parseRange(text: string): Address & { prefix: number } | undefined {
  const [, start = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const address = parseAddress(start);
  if (!address) return undefined;
  const bits = address.family === "ipv4" ? 32 : 128;
  const prefix = length === undefined ? bits : Number(length);
  return prefix <= bits ? { ...address, prefix } : undefined;
}

/** Whether it is a range in CIDR form, or a single address. */
export function isRange(text: string): boolean {
  return parseRange(text) !== undefined;
}

/** Addresses that are remembered with the answer: those of proxies are few. */
const MAX_REMEMBERED = 100;

/** Ranges of addresses, such as those of trusted proxies. */
export class AddressRanges {
  readonly #list = new BlockList();
  /** A look-up in the list takes 14 µs, and every send behind a proxy asks. */
  readonly #remembered = new Map<string, boolean>();

  /** @param ranges Texts that `isRange` accepts. */
  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      const { text, prefix, family } = parseRange(range)!;
      this.#list.addSubnet(text, prefix, family);
    }
  }

  /** Whether the text is an address in one of the ranges. */
  has(text: string): boolean {
    const known = this.#remembered.get(text);
    if (known !== undefined) return known;
    const address = parseAddress(text);
    const isIn = address !== undefined && this.#list.check(address.text, address.family);
    if (this.#remembered.size >= MAX_REMEMBERED) this.#remembered.clear();
    this.#remembered.set(text, isIn);
    return isIn;
  }
}

/**
 * A key under which all addresses of one client count as one: IPv4 whole, IPv6 by its first 64 bits, for a household or
 * a machine can use any address below these. Text that is no address is its own key.
 */
export function addressKey(text: string): string {
  const address = parseAddress(text);
  if (address?.family !== "ipv6") return address?.text ?? text;
  const [head = "", tail = ""] = address.text.split("::");
  const left = head.split(":"), right = tail.split(":");
  const groups = [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill("0"), ...right];
  return `${groups.slice(0, 4).map((group) => group || "0").join(":")}::/64`;
}

/** Whether it means this machine: a loopback address, or `localhost`. */
export function isLoopback(host: string): boolean {
  if (/^(?:.+\.)?localhost\.?$/i.test(host)) return true;
  const address = parseAddress(host);
  return address?.text === "::1" || address?.family === "ipv4" && address.text.startsWith("127.");
}

/** Whether it means every interface of a machine: `0.0.0.0` or `::`. Dialled, it leads to this machine. */
export function isUnspecified(host: string): boolean {
  const address = parseAddress(host);
  return address?.text === "0.0.0.0" || address?.text === "::";
}

/**
 * Whose request it is. Behind proxies that are trusted: the last address in `X-Forwarded-For` that is none of
 * theirs; those before it are whatever the client made up.
 * @param peer Address at the other end of the connection.
 */
export function clientAddress(peer: string, forwardedFor: string | null, trusted: AddressRanges): string {
  if (forwardedFor === null || !trusted.has(peer)) return peer;
  const hops = forwardedFor.split(",").map((hop) => withoutPort(hop.trim()));
  for (const hop of hops.reverse()) {
    // A trusted proxy that passes nonsense on can't say who it was.
    if (isIP(hop) === 0) return peer;
    if (!trusted.has(hop)) return hop;
    peer = hop;
  }
  return peer;
}

/** Some proxies write the port too: `1.2.3.4:5678`, `[::1]:5678`. */
function withoutPort(hop: string): string {
  return /^\[(.+)\](?::\d+)?$/.exec(hop)?.[1] ?? (/^[^:]+:\d+$/.test(hop) ? hop.replace(/:\d+$/, "") : hop);
}
