/**
 * Which web pages may use this service. CORS does not protect WebSockets, and a page from anywhere can reach a
 * service on loopback through the browser, so every request that carries an `Origin` is checked; and, where nobody
 * has to show anything, the host by which it was called.
 */
import { isLoopback } from "../addresses.ts";

/**
 * Whether the request may be served: it comes from no web page, from a page of this host, or from an origin on
 * the list. `*` on the list allows all.
 */
export function isOriginAllowed(request: Request, allowed: readonly string[]): boolean {
  const origin = request.headers.get("origin");
  if (origin === null) return true;
  if (allowed.includes("*") || allowed.includes(origin)) return true;
  // The host as the browser used it: behind a proxy that ends TLS the scheme differs, the host does not.
  return URL.canParse(origin) && new URL(origin).host === request.headers.get("host");
}

/**
 * Tells whether a service in open mode on loopback was called by a name of its own. A page whose own host name leads to
 * 127.0.0.1 (DNS rebinding) is of the same origin as the service, but its name is a stranger's.
 * @param host The host the service listens on.
 */
export function hostGuard(host: string, allowed: readonly string[]): (request: Request) => boolean {
  const hostOf = (url: string) => URL.canParse(url) ? new URL(url).hostname.replace(/^\[(.*)\]$/, "$1") : "";
  const names = allowed.map(hostOf);
  // Nearly all calls come by the same name as the one before.
  let last: string | undefined;
  let isOwn = false;
  return (request) => {
    const header = request.headers.get("host");
    // Browsers always send one.
    if (header === null || allowed.includes("*")) return true;
    if (header !== last) {
      const name = hostOf(`http://${header}`);
      isOwn = isLoopback(name) || name === host || names.includes(name);
      last = header;
    }
    return isOwn;
  };
}
