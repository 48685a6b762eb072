/**
 * Which web pages may use this service. CORS does not protect WebSockets, and a page from anywhere can reach a
 * service on loopback through the browser, so every request that carries an `Origin` is checked.
 */

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
