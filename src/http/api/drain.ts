/** `/v1/drain`: empties a node without ending it, says how far that is, and takes it back. */
import { createRoute, z } from "@hono/zod-openapi";
import { authorize, type Call, refuseShared } from "./call.ts";
import { json, no, REFUSALS, SECURITY } from "./shapes.ts";

const DrainState = z.object({
  draining: z.boolean().openapi({
    description: "Whether new sockets are refused, and `/readyz` answers 503",
  }),
  since: z.string().optional().openapi({ description: "When it began", example: "2026-11-26T10:00:00.000Z" }),
  of: z.number().int().optional().openapi({ description: "Sockets that there were then" }),
  left: z.number().int().openapi({ description: "Sockets that are still there" }),
}).openapi("DrainState");

const PATH = "/v1/drain";
const RESPONSES = {
  401: REFUSALS[401],
  403: REFUSALS[403],
  404: no("Several processes share this port: they are asked at `USERWIRE_OPS_PORT`"),
  431: REFUSALS[431],
};

export const startDrain: Call = {
  route: createRoute({
    method: "post",
    path: PATH,
    operationId: "startDrain",
    security: SECURITY,
    summary: "Send all clients of this node to others",
    description:
      "They are spread over `USERWIRE_DRAIN_S`; the node goes on, and takes no new ones. Once it has begun, " +
      "another call says how far it is.",
    responses: { 202: json(DrainState, "It has begun, now or before"), ...RESPONSES },
  }),
  answer(c, api) {
    authorize(c, api, "admin");
    return refuseShared(c, api, "clients") ?? c.json(api.draining.start(), 202);
  },
};

export const drainState: Call = {
  route: createRoute({
    method: "get",
    path: PATH,
    operationId: "getDrain",
    security: SECURITY,
    summary: "How far the drain of this node is",
    responses: { 200: json(DrainState, "So far"), ...RESPONSES },
  }),
  answer(c, api) {
    authorize(c, api, "admin");
    return refuseShared(c, api, "clients") ?? c.json(api.draining.state, 200);
  },
};

export const stopDrain: Call = {
  route: createRoute({
    method: "delete",
    path: PATH,
    operationId: "stopDrain",
    security: SECURITY,
    summary: "Let this node take clients again",
    responses: {
      200: json(DrainState, "It does; clients that were sent away are not called back"),
      ...RESPONSES,
    },
  }),
  answer(c, api) {
    authorize(c, api, "admin");
    return refuseShared(c, api, "clients") ?? c.json(api.draining.stop(), 200);
  },
};
