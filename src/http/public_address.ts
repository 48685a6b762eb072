/** Where clients connect, for answers that have to say it: behind a proxy a request alone does not tell. */
import { isTrusted, parseRange } from "../addresses.ts";

/** The path of sockets below the address by which clients know the service. */
const SOCKET_PATH = "/ws";

/**
 * Tells the address of sockets. The setting wins, else it is the address by which the request came: to the proxy, when
 * it is one that is trusted and says so in `X-Forwarded-Proto` and `X-Forwarded-Host`, else to us.
 * @param options.publicUrl As `USERWIRE_PUBLIC_URL` is read: ws:// or wss://, without a slash at its end.
 * @returns A function of a request and the address at the other end of its connection; the URL is the caller's own.
 */
export function publicAddress(
  options: { publicUrl: string | undefined; trustedProxies: readonly string[] },
): (request: Request, peer: string) => URL {
  const { publicUrl } = options;
  if (publicUrl !== undefined) return () => new URL(publicUrl + SOCKET_PATH);
  const trusted = options.trustedProxies.map((range) => parseRange(range)!);
  return ({ url, headers }, peer) => {
    const own = new URL(SOCKET_PATH, url.replace(/^http/, "ws"));
    if (!isTrusted(peer, trusted)) return own;
    const scheme = SCHEMES.get(firstOf(headers.get("x-forwarded-proto")).toLowerCase()) ?? own.protocol;
    const host = firstOf(headers.get("x-forwarded-host"));
    const forwarded = `${scheme}//${isHost(host) ? host : own.host}${SOCKET_PATH}`;
    return URL.canParse(forwarded) ? new URL(forwarded) : own;
  };
}

const SCHEMES: ReadonlyMap<string, string> = new Map([
  ["https", "wss:"],
  ["wss", "wss:"],
  ["http", "ws:"],
  ["ws", "ws:"],
]);

/** Of several proxies the one nearest to the client says what the client used. A client that lies fools only itself. */
function firstOf(header: string | null): string {
  return /^[^,]*/.exec(header ?? "")![0].trim();
}

/** A host, with a port or without, and nothing that would make it another part of a URL. */
function isHost(text: string): boolean {
  return /^(?:[\w.-]+|\[[\da-f:.]+\])(?::\d{1,5})?$/i.test(text);
}
