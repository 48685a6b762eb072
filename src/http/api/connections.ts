/** `DELETE /v1/users/{username}/connections`: closes a user's sockets, on all nodes. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { CLOSE } from "../../protocol/close_codes.ts";
import { EFFECT_ON_FAILURE, problem } from "../problem.ts";
import { authorize, type Call, queryOf, usernameIn } from "./call.ts";
import { check, json, number, REFUSALS, SECURITY, UserParameter } from "./shapes.ts";

const CloseQuery = z.strictObject({
  code: number(1_000, 4_999).refine((code) => code === 1_000 || code === 1_012 || code >= 3_000, {
    message: "must be 1000, 1012 or 3000 to 4999",
  }).optional().openapi({
    description: "Close code, 1000, 1012 or 3000 to 4999; 4403 if not given, which clients take as final",
  }),
  why: z.string().min(1).refine((why) => new TextEncoder().encode(why).length <= 120, {
    message: "must have at most 120 bytes",
  }).optional().openapi({ description: 'Reason that clients see; "kicked" if not given' }),
});

const Closed = z.object({
  closed: z.number().int().optional().openapi({ description: "Connections that were told to close" }),
  nodes: z.number().int().optional().openapi({
    description:
      "Instead of `closed` with shared subscriptions: how many nodes were told to close all they hold",
  }),
}).openapi("Closed");

export const closeConnections: Call = {
  route: createRoute({
    method: "delete",
    path: "/v1/users/{username}/connections",
    operationId: "closeConnections",
    security: SECURITY,
    summary: "Close every connection of a user",
    request: { params: UserParameter, query: CloseQuery },
    responses: { 200: json(Closed, "They were told to close"), ...REFUSALS },
  }),
  effect: EFFECT_ON_FAILURE.close,
  async answer(c, api) {
    const caller = authorize(c, api, "admin");
    const query = check(CloseQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { code = CLOSE.kicked.code, why: reason = CLOSE.kicked.reason } = query.value;
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const told = await api.publisher.closeConnections(username, { code, reason });
    return c.json(api.publisher.counted === "sockets" ? { closed: told } : { nodes: told });
  },
};
