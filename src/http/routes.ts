/** Answers the HTTP API and serves the files of the console page. Sockets are in `upgrade.ts`. */
import { OpenAPIHono, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { assertMayAddress, type Auth, type Scope } from "../auth/auth.ts";
import { messageOf, UnauthorizedError } from "../errors.ts";
import type { Log } from "../log.ts";
import { type Metrics, METRICS_TYPE } from "../metrics.ts";
import { CLOSE, type NameRules, parsePosition, parseUsername } from "../protocol.ts";
import type { Publisher } from "../publisher.ts";
import { assets } from "../web/assets.ts";
import * as api from "./api.ts";
import { BatchFault, problemOfBatch, readBatch, repeatableBy, sendBatch } from "./batch.ts";
import {
  BodyBrokenError,
  type BodyLimits,
  BodyTimeoutError,
  BodyTooLargeError,
  MediaTypeError,
  readJson,
  readJsonText,
} from "./body.ts";
import { bearerOf, passwordOf } from "./credentials.ts";
import type { OwnHost } from "./own_host.ts";
import { Deadlines } from "../deadlines.ts";
import { FATE, type Fate, problem, problemOf } from "./problem.ts";
import {
  check,
  CloseQuery,
  HistoryQuery,
  OnlineQuery,
  type Readiness,
  RevocationQuery,
  TicketQuery,
} from "./schemas.ts";
import { send, type SendHost } from "./send.ts";
import { pathOf, queryOf, usernameFrom } from "./target.ts";

export interface RoutesOptions {
  publisher: Publisher;
  auth: Auth;
  metrics: Metrics;
  names: NameRules;
  /** How long a ticket is good for, unless its buyer says. */
  ticketTtlS: number;
  /** Where clients connect, by the name in a request. */
  socketUrlFor(own: OwnHost): URL;
  /** Whether the page, the document and the metrics are there for all, for who has a key, or for nobody. */
  page: "on" | "key" | "off";
  openapi: "on" | "key" | "off";
  showMetrics: "on" | "key" | "off";
  /** Largest payload of a message, in bytes. */
  maxBodyBytes: number;
  /** Most bytes that one batch sends: each payload times its users. */
  maxFanoutBytes: number;
  /** Time the body of a request may take, in seconds. */
  bodyTimeoutS: number;
  version: string;
  log: Log;
  readiness(): z.infer<typeof Readiness>;
}

/** Bodies that hold many users or messages. */
const MAX_BULK_BYTES = 4 * 1024 * 1024;
/** Bodies that name one user and say little more. */
const MAX_SMALL_BYTES = 65_536;
/** More characters than the path of any call has: of its name each byte may be encoded, as three. */
const MAX_PATH = 500;

const PAGE_HEADERS = {
  "content-security-policy":
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** The client is for every page that may connect, also for those of other sites. */
const CLIENT_PATH = "/client.js";
const SHARED = { "access-control-allow-origin": "*" };

/** What handlers know of a request beside the request itself. */
interface Env {
  Bindings: { own: OwnHost };
  Variables: { fate?: Fate };
}

export interface Routes {
  /** @param own The name by which the request came. */
  answer(request: Request, own: OwnHost): Response | Promise<Response>;
  /** Answers what `sendTarget` found to be a send, past the router. */
  send(request: Request, target: string): Promise<Response>;
  close(): void;
}

export function createRoutes(options: RoutesOptions): Routes {
  const { publisher, auth, log } = options;
  // As sends are read: what a proxy has let in by its path is not another path here. Hono's own reading decodes first, for
  // which a long one of broken encodings takes it a third of a second.
  const app = new OpenAPIHono<Env>({ getPath: pathOf });
  const deadlines = new Deadlines(options.bodyTimeoutS * 1_000);
  const single: BodyLimits = { maxBytes: options.maxBodyBytes, deadlines };
  const small: BodyLimits = { ...single, maxBytes: Math.min(MAX_SMALL_BYTES, single.maxBytes) };
  const bulk: BodyLimits = { ...single, maxBytes: MAX_BULK_BYTES };
  const sends: SendHost = { publisher, auth, body: single, failed: (error) => answerTo(error, FATE.send) };
  const admit = (c: Context, scope: Scope | "any") => auth.admit(bearerOf(c.req.raw), scope);

  // `createRoute` writes the document; the handlers are added plainly, because their bodies are read with limits
  // and their problems are RFC 9457.
  for (const route of Object.values(api)) {
    if (route === api.metrics && options.showMetrics === "off") continue;
    app.openAPIRegistry.registerPath(route);
  }

  // What GET would say has this length; without its body Deno would call it nothing.
  app.use(async (c, next) => {
    await next();
    if (c.req.method !== "HEAD" || c.res.body === null) return;
    const { byteLength } = await c.res.clone().arrayBuffer();
    c.res.headers.set("content-length", String(byteLength));
  });

  // Sends do not come this way, see below: here they are known to whoever asks which methods a path takes.
  app.post(api.send.getRoutingPath(), (c) => send(c.req.raw, segmentOf(c), sends));

  app.post(api.batch.getRoutingPath(), async (c) => {
    const caller = admit(c, "send");
    c.set("fate", FATE.send);
    const key = c.req.raw.headers.get("idempotency-key");
    const body = await readJsonText(c.req.raw, bulk);
    const repeatable = repeatableBy(key, body, caller.name);
    const items = await readBatch(body, publisher, {
      maxDataBytes: options.maxBodyBytes,
      maxFanoutBytes: options.maxFanoutBytes,
    });
    assertMayAddress(caller, items.flatMap(({ users }) => users));
    return await sendBatch(publisher, items, repeatable);
  });

  app.get(api.user.getRoutingPath(), async (c) => {
    const caller = admit(c, "read");
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const count = await publisher.count(username);
    // Hono answers HEAD with what GET says, less the body.
    const status = c.req.method === "HEAD" && count === 0 ? 404 : 200;
    return c.json({ online: count > 0, [publisher.counted]: count }, status);
  });

  app.post(api.online.getRoutingPath(), async (c) => {
    const caller = admit(c, "read");
    const query = check(OnlineQuery, await readJson(c.req.raw, bulk));
    if ("fault" in query) return problem("invalid_request", query.fault);
    assertMayAddress(caller, query.value.users);
    // The answer has no room for a name beside the users': what the numbers are stands here.
    c.header("userwire-counted", publisher.counted);
    return c.json(Object.fromEntries(await publisher.online(query.value.users)));
  });

  app.get(api.history.getRoutingPath(), async (c) => {
    const caller = admit(c, "read");
    const query = check(HistoryQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { after = "0", limit } = query.value;
    const position = parsePosition(after);
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const history = await publisher.history(username, {
      after: position?.seq ?? Number(after),
      ...(limit !== undefined && { limit }),
    });
    const { epoch, first, last, frames, afterTag } = history;
    const isOther = position?.tag !== undefined && afterTag !== "" && position.tag !== afterTag;
    if (position && (position.epoch !== epoch || isOther)) {
      const found = isOther
        ? "The number belongs to another message now"
        : `The epoch is ${epoch || "gone"} now`;
      return problem("epoch_changed", `${found}: read from the beginning, without "after"`);
    }
    // The frames are JSON already, and keep the payloads as they were sent.
    const head = JSON.stringify({ epoch, first, last });
    return c.body(`${head.slice(0, -1)},"items":[${frames.join(",")}]}`, 200, {
      "content-type": "application/json",
    });
  });

  app.delete(api.close.getRoutingPath(), async (c) => {
    c.set("fate", FATE.close);
    const caller = admit(c, "admin");
    const query = check(CloseQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { code = CLOSE.kicked.code, why = CLOSE.kicked.why } = query.value;
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const told = await publisher.closeConnections(username, { code, why });
    return c.json(publisher.counted === "sockets" ? { closed: told } : { nodes: told });
  });

  app.post(api.ticket.getRoutingPath(), async (c) => {
    const caller = admit(c, "tickets");
    const query = check(TicketQuery, await readJson(c.req.raw, small));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { user, ttl = options.ticketTtlS } = query.value;
    assertMayAddress(caller, [user]);
    const ticket = await auth.issueTicket(parseUsername(user, options.names), ttl);
    const url = options.socketUrlFor(c.env.own);
    url.searchParams.set("ticket", ticket);
    return c.json({ ticket, url: url.href }, 201, { "cache-control": "no-store" });
  });

  app.post(api.revocation.getRoutingPath(), async (c) => {
    c.set("fate", FATE.revoke);
    const caller = admit(c, "admin");
    const query = check(RevocationQuery, await readJson(c.req.raw, small));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const username = parseUsername(usernameIn(c), options.names);
    assertMayAddress(caller, [username]);
    const { jti, issued_before } = query.value;
    const revoked = await auth.revoke(
      username,
      jti !== undefined ? { jti } : issued_before !== undefined ? { before: issued_before } : "now",
    );
    // Tokens say when they were issued in full seconds.
    return c.json("jti" in revoked ? revoked : { issued_before: Math.ceil(revoked.before) }, 201);
  });

  app.get("/healthz", (c) => c.json({ status: "ok" }));

  app.get("/readyz", (c) => {
    const readiness = options.readiness();
    return c.json(readiness, readiness.ready ? 200 : 503);
  });

  if (options.showMetrics !== "off") {
    app.get(api.metrics.getRoutingPath(), (c) => {
      if (options.showMetrics === "key") admit(c, "read");
      return c.body(options.metrics.text(), 200, { "content-type": METRICS_TYPE });
    });
  }

  if (options.openapi !== "off") {
    app.use("/openapi.json", async (c, next) => {
      if (options.openapi === "key") admit(c, "any");
      await next();
    });
    app.openAPIRegistry.registerComponent("securitySchemes", "key", {
      type: "http",
      scheme: "bearer",
      description: "An API key, made by `userwire key new`",
    });
    // Written once: that takes as long as a hundred sends, and whoever asks need show nothing.
    let document: string | undefined;
    app.get("/openapi.json", (c) => {
      document ??= JSON.stringify(app.getOpenAPI31Document(documentHead(options.version)));
      return c.body(document, 200, { "content-type": "application/json" });
    });
  }

  for (const [path, { body, type, etag }] of assets) {
    if (options.page === "off" && path !== CLIENT_PATH) continue;
    app.get(path, (c) => {
      if (options.page === "key" && path !== CLIENT_PATH) {
        try {
          auth.admit(passwordOf(c.req.raw) ?? bearerOf(c.req.raw), "any");
        } catch (error) {
          if (!(error instanceof UnauthorizedError)) throw error;
          // The one place where a browser asks a person: the key is the password, the name does not matter.
          return problem("unauthorized", error.message, { "www-authenticate": 'Basic realm="userwire"' });
        }
      }
      const headers = { ...PAGE_HEADERS, ...(path === CLIENT_PATH && SHARED), "content-type": type, etag };
      return isFresh(c.req.header("if-none-match"), etag)
        ? new Response(null, { status: 304, headers })
        : new Response(body, { headers });
    });
  }

  const methods = methodsByPath(app);
  app.notFound((c) => {
    const allow = methods(c.req.path);
    // Patterns straighten a path like "/x/../healthz" out; the router, and a proxy that lets only some in, do not.
    if (allow.length === 0 || allow.includes(c.req.method)) {
      return problem("not_found", `There is no ${c.req.path} here: GET /openapi.json lists what there is`);
    }
    return problem("method_not_allowed", `${c.req.path} takes ${allow.join(", ")}`, {
      allow: allow.join(", "),
    });
  });

  function answerTo(error: Error, fate: Fate | undefined): Response {
    if (error instanceof BodyTooLargeError) return problem("too_large", error.message);
    if (error instanceof BodyTimeoutError) {
      // What is still to come of it must not be taken for the next request.
      return problem("too_slow", error.message, { connection: "close" });
    }
    if (error instanceof MediaTypeError) {
      return problem("unsupported_media_type", error.message, error.headers);
    }
    if (error instanceof BatchFault) return problemOfBatch(error);
    if (error instanceof BodyBrokenError) {
      log.debug("request not answered", { reason: error.message });
      return problem("invalid_request", error.message, { connection: "close" });
    }
    const answer = problemOf(error, fate);
    if (answer) return answer;
    log.error("request failed", { reason: messageOf(error), stack: error.stack });
    return problem("internal", "The log of this instance says more");
  }
  app.onError((error, c) => answerTo(error, c.get("fate")));

  return {
    answer(request, own) {
      // The router takes its time over long ones.
      const { length } = pathOf(request);
      if (length <= MAX_PATH) return app.fetch(request, { own });
      return problem(
        "not_found",
        `There is no path of ${length} characters here: none has more than ${MAX_PATH}`,
      );
    },
    send: (request, target) => send(request, target, sends),
    close: () => deadlines.close(),
  };
}

function documentHead(version: string) {
  return {
    openapi: "3.1.0",
    info: {
      title: "Userwire",
      version,
      description: "Sends messages to named users, whichever instance holds their sockets.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/", description: "The instance, or the balancer, that this document came from" }],
  };
}

/** The third part of the path, which is the username. Hono's own parameter would pass broken encodings on. */
function segmentOf(c: Context): string {
  return c.req.path.split("/")[3]!;
}

function usernameIn(c: Context): string {
  return usernameFrom(segmentOf(c));
}

/** Whether a client that names these versions has the one it would get. */
function isFresh(ifNoneMatch: string | undefined, etag: string): boolean {
  // A proxy that compresses makes the tags weak.
  return ifNoneMatch?.split(",").some((tag) => tag.trim().replace(/^W\//, "") === etag) ?? false;
}

/** Which methods a path takes: a function made of the routes as they are now. */
function methodsByPath(app: OpenAPIHono<Env>): (path: string) => string[] {
  const routes = app.routes
    .filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => ({ method, pattern: new URLPattern({ pathname: path }) }));
  return (path) => [
    ...new Set(
      routes.filter(({ pattern }) => pattern.test({ pathname: path }))
        .flatMap(({ method }) => method === "GET" ? ["GET", "HEAD"] : [method]),
    ),
  ];
}
