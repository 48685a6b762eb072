/** `GET /v1/stats`: the numbers of this node as they come, and the last 15 minutes of them. */
import { createRoute, z } from "@hono/zod-openapi";
import { bearerOf } from "../credentials.ts";
import { authorize, type Call } from "./call.ts";
import { no, REFUSALS, SECURITY } from "./shapes.ts";

export const stats: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/stats",
    operationId: "getStats",
    security: SECURITY,
    summary: "The numbers of this node as they come, and the last 15 minutes of them",
    description:
      "Server-sent events of the type `stats`. `data` of each has `samples`, `readiness` as `/readyz` answers, and " +
      "`nodes` as `/v1/nodes` does, or `nodes_problem`. The first has all samples of the last 15 minutes, one for " +
      "each `every_ms`, then the present moment, and `about` this node; each later one has the next sample. A sample " +
      "has gauges and counters of `/metrics`, and `send_ms`: how long sends took since the one before.",
    responses: {
      200: { description: "The events", content: { "text/event-stream": { schema: z.string() } } },
      401: REFUSALS[401],
      403: REFUSALS[403],
      429: no("As many such streams are open as there may be"),
      431: REFUSALS[431],
    },
  }),
  answer(c, api) {
    authorize(c, api, "admin");
    return api.stats.open(c.req.raw, bearerOf(c.req.raw), c.env.info);
  },
};
