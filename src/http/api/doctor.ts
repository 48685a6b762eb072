/** `GET /v1/doctor`: what `userwire doctor` finds, asked of a node that serves. */
import { createRoute, z } from "@hono/zod-openapi";
import { problem } from "../problem.ts";
import { type Api, authorize, type Call } from "./call.ts";
import { json, no, REFUSALS, SECURITY } from "./shapes.ts";

const Findings = z.object({
  findings: z.array(
    z.object({
      check: z.string().openapi({ description: "What was looked at", example: "redis maxclients" }),
      state: z.enum(["ok", "warning", "fault"]),
      says: z.string().openapi({ description: "What was found" }),
      remedy: z.string().optional().openapi({ description: "What to do" }),
    }).openapi("Finding"),
  ),
}).openapi("Findings");

type Look = NonNullable<Api["look"]>;

/** @returns The same, where all who ask at one time get what the first one does: each look opens connections to Redis. */
export function oneAtATime(look: Look): Look {
  let underWay: ReturnType<Look> | undefined;
  return (nodes) => underWay ??= look(nodes).finally(() => underWay = undefined);
}

export const doctor: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/doctor",
    operationId: "getFindings",
    security: SECURITY,
    summary: "Check the set-up of this node, as `userwire doctor` does",
    description: "Looks at settings, machine, files, keys and Redis, which may take some seconds.",
    responses: {
      200: json(Findings, "What was found, also where nothing is wrong"),
      401: REFUSALS[401],
      403: REFUSALS[403],
      404: no("The program that holds this service brought no doctor"),
      431: REFUSALS[431],
    },
  }),
  async answer(c, api) {
    authorize(c, api, "admin");
    if (!api.look) {
      return problem("not_found", "This service is part of another program: call userwire doctor for it");
    }
    // Where the others can't be counted, Redis is away, which the findings say.
    const nodes = await api.nodes().then(({ length }) => length, () => 1);
    return c.json({ findings: [...await api.look(nodes)] }, 200);
  },
};
