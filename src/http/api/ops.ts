/** `/healthz`, `/readyz` and `/metrics`: for load balancers and monitoring. */
import { createRoute, z } from "@hono/zod-openapi";
import { METRICS_TYPE } from "../../metrics/metrics.ts";
import { authorize, type Call } from "./call.ts";
import { json, no, Readiness, REFUSALS, SECURITY } from "./shapes.ts";

const Health = z.object({ status: z.literal("ok") }).openapi("Health");

const HEALTH_ROUTE = createRoute({
  method: "get",
  path: "/healthz",
  operationId: "getHealth",
  security: [], // a load balancer has no key
  summary: "Whether the process lives",
  responses: {
    200: json(Health, "It does; a lost broker does not change that"),
    403: no("Pages of this origin may not call"),
    431: no("The headers are too large"),
  },
});

const READY_ROUTE = createRoute({
  method: "get",
  path: "/readyz",
  operationId: "getReadiness",
  security: [], // a load balancer has no key
  summary: "Whether this node should get traffic",
  responses: {
    200: json(Readiness, "It should"),
    403: no("Pages of this origin may not call"),
    431: no("The headers are too large"),
    503: json(Readiness, "It should not: `why` says what is missing"),
  },
});

const METRICS_ROUTE = createRoute({
  method: "get",
  path: "/metrics",
  operationId: "getMetrics",
  security: SECURITY,
  summary: "What this node has done and how it is, for Prometheus",
  responses: {
    200: {
      description: "Its text format",
      content: { [METRICS_TYPE]: { schema: { type: "string" } } },
    },
    401: REFUSALS[401],
    403: REFUSALS[403],
    431: REFUSALS[431],
  },
});

export const health: Call = { route: HEALTH_ROUTE, answer: (c) => c.json({ status: "ok" }) };

export const ready: Call = {
  route: READY_ROUTE,
  answer(c, api) {
    const readiness = api.readiness();
    return c.json(readiness, readiness.ready ? 200 : 503);
  },
};

export const metrics: Call = {
  route: METRICS_ROUTE,
  answer(c, api) {
    if (api.showMetrics === "key") authorize(c, api, "read");
    return c.body(api.metrics.text(), 200, { "content-type": METRICS_TYPE });
  },
};
