/**
 * Routes a request to the calls of `api/`, the document or the page. A path that nobody serves is a problem, and errors
 * become problems here. Sockets are in `handshake.ts`.
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import { methodNotAllowed } from "hono/method-not-allowed";
import { Deadlines } from "../async/deadlines.ts";
import { Semaphores } from "../async/semaphore.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Api, Call, Env } from "./api/call.ts";
import { MAX_LARGE_BATCHES } from "./api/batch.ts";
import { LineCalls } from "./api/batch_lines.ts";
import { CALLS } from "./api/calls.ts";
import { metrics } from "./api/ops.ts";
import { answerSend } from "./api/send.ts";
import { BodyBrokenError, type BodyLimits } from "./body.ts";
import { type DocumentOptions, serveDocument } from "./document.ts";
import { type PageOptions, servePage } from "./page.ts";
import { type Effect, EFFECT_ON_FAILURE, problem, problemOf } from "./problem.ts";
import type { RequestId } from "./request_id.ts";

export interface RouterOptions
  extends Omit<Api, "bodies" | "largeBatches" | "lines">, PageOptions, DocumentOptions {
  /** Time the body of a request may take, in seconds. */
  readonly bodyTimeoutS: number;
  /** Largest frame of a client, in bytes. */
  readonly maxFrameBytes: number;
  /** Whether this process is about to end. */
  isEnding(): boolean;
}

/** Bodies that hold many users or messages. */
const MAX_BULK_BYTES = 4 * 1024 * 1024;
/** Bodies that name one user and say little more. */
const MAX_SMALL_BYTES = 65_536;
/** More characters than the path of any call has: of its two names each byte may be encoded, as three. */
const MAX_PATH = 900;

export interface Router {
  /** @param about What handlers know of the request beside itself. */
  answer(request: Request, about: Env["Bindings"]): Response | Promise<Response>;
  /** Answers what `sendTarget` found to be a send, without looking for who does. */
  send(request: Request, target: string, id: RequestId): Promise<Response>;
  close(): void;
}

export function createRouter(options: RouterOptions): Router {
  const { publisher, auth, log, showMetrics } = options;
  const deadlines = new Deadlines(options.bodyTimeoutS * 1_000);
  const single: BodyLimits = {
    maxBytes: options.maxBodyBytes,
    setting: "USERWIRE_MAX_BODY_BYTES",
    deadlines,
  };
  const small: BodyLimits = single.maxBytes < MAX_SMALL_BYTES
    ? single
    : { maxBytes: MAX_SMALL_BYTES, deadlines };
  const bulk: BodyLimits = { maxBytes: MAX_BULK_BYTES, deadlines };
  const frame: BodyLimits = {
    maxBytes: options.maxFrameBytes,
    setting: "USERWIRE_MAX_FRAME_BYTES",
    deadlines,
  };
  const api: Api = {
    ...options,
    bodies: { single, small, bulk, frame },
    largeBatches: new Semaphores(MAX_LARGE_BATCHES),
    lines: new LineCalls(),
  };

  // As sends are read: what a proxy has let in by its path is not another path here. Hono's own reading decodes first, for
  // which a long one of broken encodings takes it a third of a second.
  const app = new OpenAPIHono<Env>({ getPath: pathOf });

  app.use(methodNotAllowed({
    app,
    onMethodNotAllowed: (c, methods) =>
      // Hono makes another answer of it, in which the front door would find no problem.
      problem("method_not_allowed", `${c.req.path} takes ${methods.join(", ")}`, {
        allow: methods.join(", "),
      }).of(c.env.requestId),
  }));

  // What GET would say has this length; without its body Deno would call it nothing.
  app.use(async (c, next) => {
    await next();
    if (c.req.method !== "HEAD" || c.res.body === null) return;
    const { byteLength } = await c.res.clone().arrayBuffer();
    // To that of GET the front door adds the id.
    const isProblem = c.res.headers.get("content-type") === "application/problem+json";
    const added = isProblem ? JSON.stringify({ request_id: c.env.requestId }).length - 1 : 0;
    c.res.headers.set("content-length", String(byteLength + added));
  });

  for (const call of CALLS) if (call !== metrics || showMetrics !== "off") addCall(app, api, call);

  serveDocument(app, api, options);
  servePage(app, options);

  app.notFound((c) =>
    problem("not_found", `There is no ${c.req.path} here: GET /openapi.json lists what there is`)
  );

  function failed(error: Error, effect: Effect | undefined, request_id: string): Response {
    if (error instanceof BodyBrokenError) {
      log.debug("request not answered", { request_id, reason: error.message });
      // Deno reads no more of a body when it stops listening, and a proxy is still there: it asks another node then.
      if (options.isEnding()) {
        return problem(
          "draining",
          "The node is shutting down, and has done nothing: call another",
          error.headers,
        );
      }
    }
    const answer = problemOf(error, effect);
    if (answer) return answer;
    log.error("request failed", { request_id, reason: messageOf(error), stack: error.stack });
    return problem("internal", "The log of this node says more");
  }
  app.onError((error, c) => failed(error, c.get("effect"), c.env.requestId));

  const sends = { publisher, auth, metrics: options.metrics, log, body: single };
  return {
    answer(request, about) {
      // The router takes its time over long ones.
      const { length } = pathOf(request);
      if (length <= MAX_PATH) return app.fetch(request, about);
      return problem(
        "not_found",
        `There is no path of ${length} characters here: none has more than ${MAX_PATH}`,
      );
    },
    async send(request, target, id) {
      try {
        // Awaited, because an async function that returns a promise takes two turns more.
        return await answerSend(request, target, id, sends);
      } catch (error) {
        return failed(error as Error, EFFECT_ON_FAILURE.send, id.text);
      }
    },
    close: () => deadlines.close(),
  };
}

/** Adds a call to the document and to the router, plainly: its body is read with limits, and its problems are RFC 9457. */
function addCall(app: OpenAPIHono<Env>, api: Api, { route, effect, answer }: Call): void {
  app.openAPIRegistry.registerPath(route);
  if (!answer) return;
  app.on(route.method, route.getRoutingPath(), (c) => {
    c.set("effect", effect);
    return answer(c, api);
  });
}

/** The path as it stands in the address, encoded as it is. */
function pathOf({ url }: Request): string {
  return /^https?:\/\/[^/?#]*([^?#]*)/.exec(url)?.[1] ?? "";
}
