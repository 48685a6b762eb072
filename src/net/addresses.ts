/**
 * IP addresses and ranges of them, as numbers. Pure. What is no address is undefined, never an error: it comes from
 * headers that anybody may have written.
 */

/** An address; one of IPv4 inside IPv6 (`::ffff:1.2.3.4`) is the IPv4 one. */
export interface IpAddress {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

/** A range in CIDR form. */
export interface IpRange extends IpAddress {
  /** Leading bits that all have in common. */
  readonly prefix: number;
}

const MAPPED_PREFIX = 0xffffn;
/** What one household or machine gets of IPv6: it can use any address of it. */
const HOUSEHOLD_BITS = 64n;

/** Reads an address, without a port. A zone (`%eth0`) does not count. */
export function parseAddress(text: string): IpAddress | undefined {
  if (/^\d{1,3}(?:\.\d{1,3}){3}$/.test(text)) {
    const bytes = text.split(".").map(Number);
    if (bytes.some((byte) => byte > 255)) return undefined;
    return { bits: 32, value: bytes.reduce((value, byte) => value << 8n | BigInt(byte), 0n) };
  }
  if (!text.includes(":")) return undefined;
  // URL writes every form of an IPv6 address as hexadecimal groups with at most one gap.
  const url = `http://[${text.replace(/%.*$/, "")}]`;
  if (!URL.canParse(url)) return undefined;
  const [head = "", tail] = new URL(url).hostname.slice(1, -1).split("::");
  const groupsOf = (part: string) => part === "" ? [] : part.split(":");
  const left = groupsOf(head), right = groupsOf(tail ?? "");
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right];
  const value = groups.reduce((value, group) => value << 16n | BigInt(`0x${group}`), 0n);
  return value >> 32n === MAPPED_PREFIX ? { bits: 32, value: value & 0xffff_ffffn } : { bits: 128, value };
}

/** Reads a range such as `10.0.0.0/8` or `fd00::/8`, or a single address. */
export function parseRange(text: string): IpRange | undefined {
  const [address, length, ...rest] = text.split("/");
  const parsed = parseAddress(address!);
  if (!parsed || rest.length > 0 || (length !== undefined && !/^\d{1,3}$/.test(length))) return undefined;
  const prefix = length === undefined ? parsed.bits : Number(length);
  return prefix <= parsed.bits ? { ...parsed, prefix } : undefined;
}

export function isInRange(address: IpAddress, range: IpRange): boolean {
  const shift = BigInt(range.bits - range.prefix);
  return address.bits === range.bits && address.value >> shift === range.value >> shift;
}

/** A key under which all addresses of one holder count as one: IPv4 whole, IPv6 by its first 64 bits. */
export function holderOf(text: string): string {
  const address = parseAddress(text);
  if (!address) return text;
  return address.bits === 32 ? `4:${address.value}` : `6:${address.value >> HOUSEHOLD_BITS}`;
}

/** Whether it means this machine: a loopback address, or `localhost`. */
export function isLoopback(host: string): boolean {
  if (/^(?:.+\.)?localhost\.?$/i.test(host)) return true;
  const address = parseAddress(host);
  return address !== undefined &&
    (address.bits === 32 ? address.value >> 24n === 127n : address.value === 1n);
}

/** Whether it means every interface of a machine: `0.0.0.0` or `::`. Dialled, it leads to this machine. */
export function isUnspecified(host: string): boolean {
  return parseAddress(host)?.value === 0n;
}

/**
 * Whose request it is. Behind proxies that are trusted: the last address in `X-Forwarded-For` that is none of
 * theirs; those before it are whatever the client made up.
 * @param peer Address at the other end of the connection.
 */
export function clientAddress(
  peer: string,
  forwardedFor: string | null,
  trusted: readonly IpRange[],
): string {
  if (forwardedFor === null || !isTrusted(peer, trusted)) return peer;
  const hops = forwardedFor.split(",").map((hop) => withoutPort(hop.trim()));
  for (const hop of hops.reverse()) {
    // A trusted proxy that passes nonsense on can't say who it was.
    if (parseAddress(hop) === undefined) return peer;
    if (!isTrusted(hop, trusted)) return hop;
    peer = hop;
  }
  return peer;
}

/** Whether it is an address in one of the ranges. */
export function isTrusted(text: string, trusted: readonly IpRange[]): boolean {
  const address = parseAddress(text);
  return address !== undefined && trusted.some((range) => isInRange(address, range));
}

/** Some proxies write the port too: `1.2.3.4:5678`, `[::1]:5678`. */
function withoutPort(hop: string): string {
  return /^\[(.+)\](?::\d+)?$/.exec(hop)?.[1] ?? (/^[^:]+:\d+$/.test(hop) ? hop.replace(/:\d+$/, "") : hop);
}
