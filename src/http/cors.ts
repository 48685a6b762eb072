/** CORS: what browsers ask before a page of another site may call, and need before it may read the answer. */

/** Headers of answers that pages may read beside those that every page may. */
const EXPOSED = "Allow, Idempotent-Replayed, Retry-After, Userwire-Counted, WWW-Authenticate, X-Request-Id";
const METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE";
/** How long a browser may keep the answer to a preflight, in seconds. */
const MAX_AGE_S = "600";

/** Whether a browser asks what it may send, before it does. */
export function isPreflight({ method, headers }: Request): boolean {
  return method === "OPTIONS" && headers.has("access-control-request-method");
}

/**
 * The answer to a preflight from a page that may call. Whatever headers the page wants to send it may: those that
 * mean nothing here are passed over, and programs that watch pages add their own.
 */
export function preflightAnswer({ headers }: Request): Response {
  const asked = headers.get("access-control-request-headers");
  const isPrivate = headers.get("access-control-request-private-network") === "true";
  return new Response(null, {
    status: 204,
    headers: {
      "access-control-allow-methods": METHODS,
      ...(asked !== null && { "access-control-allow-headers": asked }),
      ...(isPrivate && { "access-control-allow-private-network": "true" }),
      "access-control-max-age": MAX_AGE_S,
    },
  });
}

/** Lets pages of the origin read the answer. It allows no cookies: who calls shows a key. */
export function share({ headers }: Response, origin: string): void {
  headers.set("access-control-allow-origin", origin);
  headers.set("access-control-expose-headers", EXPOSED);
}

/** Adds `Vary: Origin`: caches must not give one origin the answer to another. */
export function varyByOrigin({ headers }: Response): void {
  headers.append("vary", "Origin");
}
