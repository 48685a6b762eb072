/** Serves the files of the console page, and the client for programs and pages of others. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Auth } from "../auth/auth.ts";
import { UnauthorizedError } from "../protocol/errors.ts";
import { assets } from "../web/assets.ts";
import type { Env } from "./api/call.ts";
import { bearerOf, passwordOf } from "./credentials.ts";
import { problem } from "./problem.ts";

export interface PageOptions {
  readonly auth: Auth;
  /** Whether the page is there for all, for who has a key, or for nobody. */
  readonly page: "on" | "key" | "off";
}

const PAGE_HEADERS = {
  "content-security-policy":
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** The client, and what it loads, are for every page that may connect, also for those of other sites. */
const CLIENT_PATHS: ReadonlySet<string> = new Set(["/client.js", "/event_stream.js", "/requests.js"]);
const SHARED = { "access-control-allow-origin": "*" };

export function servePage(app: OpenAPIHono<Env>, { auth, page }: PageOptions): void {
  for (const [path, { body, type, etag }] of assets) {
    if (page === "off" && !CLIENT_PATHS.has(path)) continue;
    app.get(path, (c) => {
      if (page === "key" && !CLIENT_PATHS.has(path)) {
        try {
          auth.authorize(passwordOf(c.req.raw) ?? bearerOf(c.req.raw), "any");
        } catch (error) {
          if (!(error instanceof UnauthorizedError)) throw error;
          // The one place where a browser asks a person: the key is the password, the name does not matter.
          return problem("unauthorized", error.message, { "www-authenticate": 'Basic realm="userwire"' });
        }
      }
      const headers = { ...PAGE_HEADERS, ...(CLIENT_PATHS.has(path) && SHARED), "content-type": type, etag };
      return isFresh(c.req.header("if-none-match"), etag)
        ? new Response(null, { status: 304, headers })
        : new Response(body, { headers });
    });
  }
}

/** Whether a client that names these versions has the one it would get. */
function isFresh(ifNoneMatch: string | undefined, etag: string): boolean {
  // A proxy that compresses makes the tags weak.
  return ifNoneMatch?.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag) ?? false;
}
