/** `/healthz`, `/readyz` and `/metrics`: for load balancers and monitoring. */
import { createRoute, z } from "@hono/zod-openapi";
import { METRICS_TYPE } from "../../metrics/metrics.ts";
import { authorize, type Call, refuseShared } from "./call.ts";
import { json, no, Readiness, REFUSALS, SECURITY } from "./shapes.ts";

/** What a call that needs no key may be refused for. */
const OPEN_REFUSALS = { 403: no("Pages of this origin may not call"), 431: REFUSALS[431] };

const Health = z.object({ status: z.literal("ok") }).openapi("Health");

export const health: Call = {
  route: createRoute({
    method: "get",
    path: "/healthz",
    operationId: "getHealth",
    security: [], // a load balancer has no key
    summary: "Whether the process lives",
    responses: { 200: json(Health, "It does; a lost broker does not change that"), ...OPEN_REFUSALS },
  }),
  answer: (c) => c.json({ status: "ok" }),
};

export const ready: Call = {
  route: createRoute({
    method: "get",
    path: "/readyz",
    operationId: "getReadiness",
    security: [], // a load balancer has no key
    summary: "Whether this node should get traffic",
    responses: {
      200: json(Readiness, "It should"),
      ...OPEN_REFUSALS,
      503: json(Readiness, "It should not: `why` says what is missing"),
    },
  }),
  answer(c, api) {
    const readiness = api.readiness();
    return c.json(readiness, readiness.ready ? 200 : 503);
  },
};

export const metrics: Call = {
  route: createRoute({
    method: "get",
    path: "/metrics",
    operationId: "getMetrics",
    security: SECURITY,
    summary: "What this node has done and how it is, for Prometheus",
    responses: {
      200: { description: "Its text format", content: { [METRICS_TYPE]: { schema: { type: "string" } } } },
      401: REFUSALS[401],
      403: REFUSALS[403],
      404: no("Several processes share this port: they are asked at `USERWIRE_OPS_PORT`"),
      431: REFUSALS[431],
    },
  }),
  answer(c, api) {
    const elsewhere = refuseShared(c, api, "numbers");
    if (elsewhere) return elsewhere;
    if (api.showMetrics === "key") authorize(c, api, "read");
    return c.body(api.metrics.text(), 200, { "content-type": METRICS_TYPE });
  },
};
