/**
 * `POST /v1/users/{username}/messages`: the one request that comes thousands of times a second. So it is recognised and
 * answered by plain code; a router and a validator in front of it would cost as much as the send itself.
 */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress, type Auth } from "../../auth/auth.ts";
import { InvalidMessageError } from "../../protocol/errors.ts";
import type { Log } from "../../log/log.ts";
import type { Metrics } from "../../metrics/metrics.ts";
import type { Payload } from "../../protocol/envelope.ts";
import { readTraceParent } from "../../protocol/trace_parent.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import type { SendOptions } from "../../publisher/send.ts";
import { type BodyLimits, readPayload } from "../body.ts";
import { bearerOf } from "../credentials.ts";
import { EFFECT_ON_FAILURE, problem } from "../problem.ts";
import { type Call, queryOf, segmentOf, usernameFrom } from "./call.ts";
import {
  BODY_REFUSALS,
  check,
  DEFAULT_ACK_TIMEOUT_MS,
  epoch,
  id,
  json,
  no,
  nodes,
  PAYLOAD,
  REFUSALS,
  SECURITY,
  SendHeaders,
  sendQuery,
  seq,
  sockets,
  TIMEOUT_RULE,
  UserParameter,
} from "./shapes.ts";

const SendQuery = z.strictObject({
  expect: z.literal("online").optional().openapi({
    description: "Only send when the user is online; else 404 and nothing is stored",
  }),
  ...sendQuery,
}).refine(({ wait, timeout }) => timeout === undefined || wait === "ack", TIMEOUT_RULE);

const Receipt = z.object({
  id: id.openapi({ example: "0b6b5b6e-6a5f-4a6e-9a57-3d9d7a8b4f0e" }),
  sockets: sockets.optional(),
  nodes,
  seq,
  epoch,
  acked: z.number().int().optional().openapi({
    description:
      "Of how many sockets the clients have acknowledged, with `wait=ack`; `sockets` is there then " +
      "even beside `nodes`, once all nodes have said how many they hold",
  }),
}).openapi("Receipt");

const OfflineReceipt = z.object({
  id,
  sockets: z.literal(0).optional(),
  nodes,
  seq,
  epoch,
  stored: z.boolean().openapi({ description: "Whether the message waits for the user's return" }),
}).openapi("OfflineReceipt");

const ROUTE = createRoute({
  method: "post",
  path: "/v1/users/{username}/messages",
  operationId: "sendMessage",
  security: SECURITY,
  summary: "Send a message to a user",
  description: "The body is the payload. JSON reaches raw sockets byte for byte.",
  request: {
    params: UserParameter,
    query: SendQuery,
    headers: SendHeaders,
    body: PAYLOAD,
  },
  responses: {
    200: json(Receipt, "The message was handed to that many sockets"),
    202: json(OfflineReceipt, "The user is offline"),
    404: no("`expect=online`, and the user is offline"),
    422: no("The idempotency key was used for another message"),
    ...BODY_REFUSALS,
    ...REFUSALS,
  },
});

/** What a send is answered with. */
export interface SendContext {
  readonly publisher: Publisher;
  readonly auth: Auth;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly body: BodyLimits;
}

const TARGET = /^https?:\/\/[^/?#]*\/v1\/users\/([^/?#]+)\/messages(?:$|\?)/;
const JSON_HEADERS = { "content-type": "application/json" };

/** Whom a send is for, as it stands in its address; undefined when the request is no send. */
export function sendTarget(request: Request): string | undefined {
  return request.method === "POST" ? TARGET.exec(request.url)?.[1] : undefined;
}

/**
 * Answers a send.
 * @param target What `sendTarget` found.
 * @throws as `Publisher.send` and `readPayload`.
 */
export async function answerSend(
  request: Request,
  target: string,
  id: { readonly text: string },
  context: SendContext,
): Promise<Response> {
  const { auth } = context;
  const caller = auth.authorize(auth.isOpen ? undefined : bearerOf(request), "send");
  const options: SendOptions = {};
  const query = queryOf(request);
  if (query !== undefined) {
    const checked = check(SendQuery, query);
    if ("fault" in checked) return problem("invalid_request", checked.fault);
    const { expect, wait, timeout = DEFAULT_ACK_TIMEOUT_MS, ttl, unacked } = checked.value;
    if (expect) options.expectOnline = true;
    if (wait) options.waitAckMs = timeout;
    if (ttl !== undefined) options.ttlMs = ttl * 1_000;
    if (unacked !== undefined) options.unackedMs = unacked * 1_000;
  }
  const username = usernameFrom(target);
  assertMayAddress(caller, [username]);
  let payload: Payload;
  try {
    payload = await readPayload(request, context.body);
  } catch (error) {
    // A payload that can't be read never comes to the publisher, which counts all other sends.
    if (error instanceof InvalidMessageError) context.metrics.sends.refused++;
    throw error;
  }
  const idempotencyKey = request.headers.get("idempotency-key");
  if (idempotencyKey !== null) options.idempotencyKey = idempotencyKey;
  const traceparent = request.headers.get("traceparent");
  if (traceparent !== null) options.traceparent = traceparent;
  const sent = await context.publisher.send(username, payload, options);
  if (context.log.level === "debug") {
    context.log.debug("message sent", {
      ...{ request_id: id.text, user: username, ...sent },
      traceparent: traceparent === null ? undefined : readTraceParent(traceparent),
    });
  }
  const isOnline = (sent.nodes ?? sent.sockets) > 0;
  const { repeated } = sent;
  // To leave out a field of every answer costs more than to look for one that is rarely there.
  const result = repeated ? { ...sent, repeated: undefined } : sent;
  return new Response(JSON.stringify(isOnline ? result : { ...result, stored: result.seq !== undefined }), {
    status: isOnline ? 200 : 202,
    headers: repeated ? { ...JSON_HEADERS, "idempotent-replayed": "true" } : JSON_HEADERS,
  });
}

/** Comes this way only when it was not recognised before; the router knows by it which methods the path takes. */
export const send: Call = {
  route: ROUTE,
  effect: EFFECT_ON_FAILURE.send,
  answer: (c, api) =>
    answerSend(c.req.raw, segmentOf(c), { text: c.env.requestId }, { ...api, body: api.bodies.single }),
};
