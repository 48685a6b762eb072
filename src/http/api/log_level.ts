/** `/v1/log-level`: which lines a running node writes, for all areas of its log or for one. */
import { createRoute, z } from "@hono/zod-openapi";
import { AREAS, LEVELS } from "../../log/levels.ts";
import { readJson } from "../body.ts";
import { problem } from "../problem.ts";
import { authorize, type Call, refuseShared } from "./call.ts";
import { BODY_REFUSALS, bodyOf, check, json, no, REFUSALS, SECURITY } from "./shapes.ts";

const level = z.enum(LEVELS);

const LogLevelChange = z.strictObject({
  level: level.openapi({ description: "Lowest level that is written" }),
  area: z.enum(AREAS).optional().openapi({ description: "Only in this area; if not given, in all" }),
}).openapi("LogLevelChange");

const LogLevelState = z.object({
  areas: z.object(Object.fromEntries(AREAS.map((area) => [area, level]))).openapi({
    description: "Lowest level that is written, for each area",
  }),
}).openapi("LogLevelState");

const PATH = "/v1/log-level";
const SHARED = no("Several processes share this port: they are asked at `USERWIRE_OPS_PORT`");

export const logLevel: Call = {
  route: createRoute({
    method: "get",
    path: PATH,
    operationId: "getLogLevel",
    security: SECURITY,
    summary: "Which lines this node writes to its log",
    responses: {
      200: json(LogLevelState, "These"),
      401: REFUSALS[401],
      403: REFUSALS[403],
      404: SHARED,
      431: REFUSALS[431],
    },
  }),
  answer(c, api) {
    authorize(c, api, "admin");
    return refuseShared(c, api, "levels") ?? c.json({ areas: api.levels.all() }, 200);
  },
};

export const setLogLevel: Call = {
  route: createRoute({
    method: "put",
    path: PATH,
    operationId: "setLogLevel",
    security: SECURITY,
    summary: "Change which lines this node writes to its log",
    description: "Until it ends: then `LOG_LEVEL` holds again.",
    request: { body: bodyOf(LogLevelChange) },
    responses: {
      200: json(LogLevelState, "These, from now on"),
      400: REFUSALS[400],
      401: REFUSALS[401],
      403: REFUSALS[403],
      404: SHARED,
      431: REFUSALS[431],
      ...BODY_REFUSALS,
    },
  }),
  async answer(c, api) {
    authorize(c, api, "admin");
    const elsewhere = refuseShared(c, api, "levels");
    if (elsewhere) return elsewhere;
    const change = check(LogLevelChange, await readJson(c.req.raw, api.bodies.small));
    if ("fault" in change) return problem("invalid_request", change.fault);
    const { level, area } = change.value;
    api.levels.in("service").info("log level changed", { to: level, area });
    api.levels.set(level, area);
    return c.json({ areas: api.levels.all() }, 200);
  },
};
