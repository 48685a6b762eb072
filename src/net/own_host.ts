/**
 * By which name a client called this service. One function decides it, for origins, for the names that open mode
 * answers to, and for the addresses in answers: two readings of the same request would be a way in between them.
 */
import { AddressRanges } from "./addresses.ts";

/** The name in a request, read and checked. */
export interface OwnHost {
  /** "https:" if the client is known to have called by TLS, else "http:": a proxy may have ended TLS unseen. */
  readonly protocol: "http:" | "https:";
  /** As `URL` writes it: lower case, IPv6 in brackets. */
  readonly hostname: string;
  /** Digits, or "" when none was named. */
  readonly port: string;
  /** The `hostname` of the request itself; another one where a trusted proxy says by which it was called. */
  readonly direct: string;
}

/**
 * Makes the function that reads it. Over HTTP/1.1 the name stands in `Host`, over HTTP/2 in `:authority`; a trusted
 * proxy may say in `X-Forwarded-Host` and `X-Forwarded-Proto` how it was called itself.
 * @param trustedProxies Ranges of addresses, as `USERWIRE_TRUSTED_PROXIES` is read.
 * @returns A function of a request and its connection, whose address is looked up only where it matters, for that takes
 *   a microsecond. It returns undefined for what is no `host[:port]`, and where the address and `Host` name different ones.
 */
export function ownHostReader(
  trustedProxies: readonly string[],
): (request: Request, info: { remoteAddr: { hostname: string } }) => OwnHost | undefined {
  const trusted = new AddressRanges(trustedProxies);
  // Nearly all requests come by the same name as the one before.
  let lastText: string | undefined;
  let lastProtocol: string | undefined;
  let last: OwnHost | undefined;
  const read = (text: string, protocol: OwnHost["protocol"]): OwnHost | undefined => {
    if (text === lastText && protocol === lastProtocol) return last;
    const host = parseHost(text);
    last = host && { protocol, ...host, direct: host.hostname };
    lastText = text;
    lastProtocol = protocol;
    return last;
  };

  return (request, info) => {
    const { url, headers } = request;
    const protocol = url.startsWith("https:") ? "https:" : "http:";
    const header = headers.get("host");
    const start = protocol.length + 2;
    let direct: OwnHost | undefined;
    if (header !== null && url.startsWith(header, start) && url[start + header.length] === "/") {
      direct = read(header, protocol);
    } else {
      direct = read(/^[^/?#]*/.exec(url.slice(start))![0], protocol);
      // The whole address in the request line, or `:authority`, stands above `Host`: so one of the two is a lie.
      const host = header === null ? direct : parseHost(header);
      if (host?.hostname !== direct?.hostname || host?.port !== direct?.port) return undefined;
    }
    if (direct === undefined || trustedProxies.length === 0) return direct;
    const forwardedHost = headers.get("x-forwarded-host"), forwardedProto = headers.get("x-forwarded-proto");
    if (forwardedHost === null && forwardedProto === null || !trusted.has(info.remoteAddr.hostname)) {
      return direct;
    }
    const [, tls] = /^(?:http|ws)(s?)$/i.exec(firstOf(forwardedProto)) ?? [];
    return {
      ...direct,
      ...parseHost(firstOf(forwardedHost)),
      protocol: tls === undefined ? protocol : tls === "" ? "http:" : "https:",
    };
  };
}

/** Of several proxies the one nearest to the client says what the client used. */
function firstOf(header: string | null): string {
  return /^[^,]*/.exec(header ?? "")![0].trim();
}

/** A host, with a port or without, and nothing that would make it another part of an address. */
function parseHost(text: string): Pick<OwnHost, "hostname" | "port"> | undefined {
  const [, host, digits = ""] = /^([\w.-]+|\[[\da-f:.]+\])(?::(\d{0,5}))?$/i.exec(text) ?? [];
  if (host === undefined || !URL.canParse(`http://${host}/`) || Number(digits) > 65_535) return undefined;
  return { hostname: new URL(`http://${host}/`).hostname, port: digits === "" ? "" : String(Number(digits)) };
}
