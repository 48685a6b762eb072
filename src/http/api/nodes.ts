/** `GET /v1/nodes`: which nodes there are. */
import { createRoute, z } from "@hono/zod-openapi";
import { authorize, type Call } from "./call.ts";
import { json, Node, REFUSALS, SECURITY } from "./shapes.ts";

const Nodes = z.object({ items: z.array(Node) }).openapi("Nodes");

/** Nothing is given that could be at fault. */
const { 400: _, ...WITHOUT_400 } = REFUSALS;

export const nodes: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/nodes",
    operationId: "getNodes",
    security: SECURITY,
    summary: "Which nodes there are",
    description:
      "Each node says every 5 s what it is; one that says nothing for 15 s is missing. The node that answers is shown " +
      "as it is now.",
    responses: { 200: json(Nodes, "In order of their names"), ...WITHOUT_400 },
  }),
  async answer(c, api) {
    authorize(c, api, "admin");
    return c.json({ items: await api.nodes() });
  },
};
