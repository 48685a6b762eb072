/** The HTTP API and the files of the console page. Sockets are in `upgrade.ts`. */
import { createRoute, OpenAPIHono, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { InvalidUsernameError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Publisher } from "../publisher.ts";
import { assets } from "../web/assets.ts";
import { sendBatch } from "./batch.ts";
import { BodyTooLargeError, MediaTypeError, readJson, readPayload } from "./body.ts";
import { problem, problemOf } from "./problem.ts";
import {
  Batch,
  BatchResult,
  check,
  Health,
  OfflineReceipt,
  Online,
  OnlineCounts,
  OnlineQuery,
  Problem,
  Readiness,
  Receipt,
  UserParameter,
} from "./schemas.ts";

export interface RoutesOptions {
  publisher: Publisher;
  /** Largest payload of a message, in bytes. */
  maxBodyBytes: number;
  version: string;
  log: Log;
  readiness(): z.infer<typeof Readiness>;
}

/** Bodies that hold many users or messages. */
const MAX_BULK_BYTES = 4 * 1024 * 1024;

const PAGE_HEADERS = {
  "content-security-policy":
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } };
}

function no(description: string) {
  return { description, content: { "application/problem+json": { schema: Problem } } };
}

const REFUSALS = {
  400: no("The request is not valid"),
  403: no("Pages of this origin may not call"),
  503: no("The broker is not available; try again"),
};

const sendRoute = createRoute({
  method: "post",
  path: "/v1/users/{username}/messages",
  summary: "Send a message to a user",
  description: "The body is the payload. JSON reaches raw sockets byte for byte.",
  request: {
    params: UserParameter,
    // Checked by hand, since any body of these types is a payload.
    body: {
      required: true,
      content: {
        "application/json": { schema: {} },
        "text/plain": { schema: { type: "string" } },
        "application/octet-stream": { schema: { type: "string", format: "binary" } },
      },
    },
  },
  responses: {
    200: json(Receipt, "The message was handed to that many sockets"),
    202: json(OfflineReceipt, "The user is offline"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

const batchRoute = createRoute({
  method: "post",
  path: "/v1/messages",
  summary: "Send many messages",
  request: { body: { required: true, content: { "application/json": { schema: Batch } } } },
  responses: {
    200: json(BatchResult, "One result per item, in order"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

const userRoute = createRoute({
  method: "get",
  path: "/v1/users/{username}",
  summary: "Whether a user is online",
  request: { params: UserParameter },
  responses: { 200: json(Online, "Sockets of the user over all instances"), ...REFUSALS },
});

const userHeadRoute = createRoute({
  method: "head",
  path: "/v1/users/{username}",
  summary: "Whether a user is online, by the status alone",
  request: { params: UserParameter },
  responses: {
    200: { description: "The user is online" },
    404: { description: "The user is offline" },
    400: { description: "The request is not valid" },
    403: { description: "Pages of this origin may not call" },
    503: { description: "The broker is not available; try again" },
  },
});

const onlineRoute = createRoute({
  method: "post",
  path: "/v1/users/online",
  summary: "Which of many users are online",
  request: { body: { required: true, content: { "application/json": { schema: OnlineQuery } } } },
  responses: {
    200: json(OnlineCounts, "Sockets of each user"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

const healthRoute = createRoute({
  method: "get",
  path: "/healthz",
  summary: "Whether the process lives",
  responses: { 200: json(Health, "It does; a lost broker does not change that") },
});

const readyRoute = createRoute({
  method: "get",
  path: "/readyz",
  summary: "Whether this instance should get traffic",
  responses: {
    200: json(Readiness, "It should"),
    503: json(Readiness, "It should not: `why` says what is missing"),
  },
});

/** The routes, as a plain function from request to response. */
export function createRoutes(options: RoutesOptions): (request: Request) => Response | Promise<Response> {
  const { publisher, log } = options;
  const api = new OpenAPIHono();

  // `createRoute` writes the document; the handlers are added plainly, because their bodies are read with limits
  // and their problems are RFC 9457.
  const routes = [sendRoute, batchRoute, userRoute, userHeadRoute, onlineRoute, healthRoute, readyRoute];
  for (const route of routes) api.openAPIRegistry.registerPath(route);

  api.post(sendRoute.getRoutingPath(), async (c) => {
    const username = usernameIn(c);
    const payload = await readPayload(c.req.raw, options.maxBodyBytes);
    const { id, sockets } = await publisher.send(username, payload);
    return sockets > 0 ? c.json({ id, sockets }) : c.json({ id, sockets, stored: false }, 202);
  });

  api.post(batchRoute.getRoutingPath(), async (c) => {
    const batch = check(Batch, await readJson(c.req.raw, MAX_BULK_BYTES));
    if ("fault" in batch) return problem("invalid_request", batch.fault);
    return await sendBatch(publisher, batch.value, { maxDataBytes: options.maxBodyBytes });
  });

  api.get(userRoute.getRoutingPath(), async (c) => {
    const sockets = await publisher.sockets(usernameIn(c));
    // Hono answers HEAD with what GET says, less the body.
    const status = c.req.method === "HEAD" && sockets === 0 ? 404 : 200;
    return c.json({ online: sockets > 0, sockets }, status);
  });

  api.post(onlineRoute.getRoutingPath(), async (c) => {
    const query = check(OnlineQuery, await readJson(c.req.raw, MAX_BULK_BYTES));
    if ("fault" in query) return problem("invalid_request", query.fault);
    return c.json(Object.fromEntries(await publisher.online(query.value.users)));
  });

  api.get("/healthz", (c) => c.json({ status: "ok" }));

  api.get("/readyz", (c) => {
    const readiness = options.readiness();
    return c.json(readiness, readiness.ready ? 200 : 503);
  });

  api.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title: "Userwire",
      version: options.version,
      description: "Sends messages to named users, whichever instance holds their sockets.",
    },
  });

  for (const [path, { body, type, etag }] of assets) {
    api.get(path, (c) => {
      const headers = { ...PAGE_HEADERS, "content-type": type, etag };
      return isFresh(c.req.header("if-none-match"), etag)
        ? new Response(null, { status: 304, headers })
        : new Response(body, { headers });
    });
  }

  const methods = methodsByPath(api);
  api.notFound((c) => {
    const allow = methods(c.req.path);
    if (allow.length === 0) {
      return problem("not_found", `There is no ${c.req.path} here: GET /openapi.json lists what there is`);
    }
    return problem("method_not_allowed", `${c.req.path} takes ${allow.join(", ")}`, {
      allow: allow.join(", "),
    });
  });

  api.onError((error) => {
    if (error instanceof BodyTooLargeError) return problem("too_large", error.message);
    if (error instanceof MediaTypeError) return problem("unsupported_media_type", error.message);
    const answer = problemOf(error);
    if (answer) return answer;
    log.error("request failed", { reason: messageOf(error), stack: error.stack });
    return problem("internal", "The log of this instance says more");
  });

  return (request) => api.fetch(request);
}

/**
 * The username in the path. Hono's own parameter would pass broken encodings on as they stand.
 * @throws {InvalidUsernameError}
 */
function usernameIn(c: Context): string {
  try {
    return decodeURIComponent(c.req.path.split("/")[3]!);
  } catch {
    throw new InvalidUsernameError(
      "The username in the path is not percent-encoded UTF-8: encode it as encodeURIComponent does",
    );
  }
}

/** Whether a client that names these versions has the one it would get. */
function isFresh(ifNoneMatch: string | undefined, etag: string): boolean {
  // A proxy that compresses makes the tags weak.
  return ifNoneMatch?.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag) ?? false;
}

/** Which methods a path takes: a function made of the routes as they are now. */
function methodsByPath(api: OpenAPIHono): (path: string) => string[] {
  const routes = api.routes
    .filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => ({ method, pattern: new URLPattern({ pathname: path }) }));
  return (path) => [
    ...new Set(
      routes.filter(({ pattern }) => pattern.test({ pathname: path }))
        .flatMap(({ method }) => method === "GET" ? ["GET", "HEAD"] : [method]),
    ),
  ];
}
