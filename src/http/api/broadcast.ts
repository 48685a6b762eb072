/** `POST /v1/broadcast`: a message to everybody who is connected, to any node. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddressAll } from "../../auth/auth.ts";
import { readPayload } from "../body.ts";
import { EFFECT_ON_FAILURE, problem } from "../problem.ts";
import { authorize, type Call, queryOf } from "./call.ts";
import {
  BODY_REFUSALS,
  check,
  id,
  json,
  MAX_TTL_S,
  no,
  number,
  PAYLOAD,
  REFUSALS,
  SECURITY,
  SendHeaders,
  traceparentOf,
} from "./shapes.ts";

const BroadcastQuery = z.strictObject({
  ttl: number(1, MAX_TTL_S).optional().openapi({
    description: "How long it is kept for clients that come back, in seconds",
  }),
});

const BroadcastReceipt = z.object({
  id,
  seq: z.number().int().optional().openapi({
    description: "Its number among the broadcasts; missing when no history is kept",
    example: 57,
  }),
  epoch: z.string().optional().openapi({
    description: "The history that `seq` counts in",
    example: "Zk3vQ9aB",
  }),
  nodes: z.number().int().openapi({ description: "How many nodes got it", example: 3 }),
  sockets: z.number().int().optional().openapi({
    description:
      "To how many sockets these handed it, or keep it for; missing when a node did not say so in 2 s, and of a repetition",
    example: 10_412,
  }),
  heard: z.number().int().optional().openapi({
    description: "How many nodes said their number, when it is not all of them",
    example: 2,
  }),
}).openapi("BroadcastReceipt");

export const broadcast: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/broadcast",
    operationId: "sendBroadcast",
    security: SECURITY,
    summary: "Send a message to everybody who is connected",
    description: "The body is the payload, as of a message to a user. The key needs the pattern `*`.",
    request: { query: BroadcastQuery, headers: SendHeaders, body: PAYLOAD },
    responses: {
      200: json(BroadcastReceipt, "It was handed to that many nodes and sockets"),
      422: no("The idempotency key was used for another broadcast"),
      ...BODY_REFUSALS,
      ...REFUSALS,
    },
  }),
  effect: EFFECT_ON_FAILURE.send,
  async answer(c, api) {
    const request = c.req.raw;
    assertMayAddressAll(authorize(c, api, "broadcast"));
    const query = check(BroadcastQuery, queryOf(request) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { ttl } = query.value;
    const payload = await readPayload(request, api.bodies.single);
    const idempotencyKey = request.headers.get("idempotency-key");
    const { repeated, ...result } = await api.publisher.broadcast(payload, {
      ...(ttl !== undefined && { ttlMs: ttl * 1_000 }),
      ...(idempotencyKey !== null && { idempotencyKey }),
      ...traceparentOf(request),
    });
    return c.json(result, 200, repeated ? { "idempotent-replayed": "true" } : {});
  },
};
