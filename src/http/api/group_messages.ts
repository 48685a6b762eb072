/** `POST /v1/groups/{group}/messages`: one message for every user of a group. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddressGroup } from "../../auth/auth.ts";
import type { GroupSendOptions } from "../../publisher/group_send.ts";
import { readPayload } from "../body.ts";
import type { Payload } from "../../protocol/envelope.ts";
import { EFFECT_ON_FAILURE, problem } from "../problem.ts";
import { type Api, authorize, type Call, type CallContext, groupIn, queryOf } from "./call.ts";
import {
  BODY_REFUSALS,
  check,
  DEFAULT_ACK_TIMEOUT_MS,
  GroupParameter,
  id,
  json,
  no,
  nodes,
  PAYLOAD,
  REFUSALS,
  SECURITY,
  SendHeaders,
  sendQuery,
  sockets,
  TIMEOUT_RULE,
  traceparentOf,
  username,
} from "./shapes.ts";

const GroupSendQuery = z.strictObject({
  expect: z.literal("online").optional().openapi({
    description: "Only for users who are online: for the others nothing is stored, and `offline` counts them",
  }),
  store: z.literal("online").optional().openapi({
    description: "Keep no copy for users who are offline: they get a number, and a gap when they return",
  }),
  except: username.optional().openapi({ description: "A user of the group who does not get it" }),
  ...sendQuery,
}).refine(({ wait, timeout }) => timeout === undefined || wait === "ack", TIMEOUT_RULE);

const count = z.number().int();

const GroupReceipt = z.object({
  id: id.openapi({ example: "0b6b5b6e-6a5f-4a6e-9a57-3d9d7a8b4f0e" }),
  users: count.openapi({ description: "Users that the message was numbered for" }),
  online: count.openapi({ description: "Of these, who had a socket" }),
  sockets: sockets.optional(),
  nodes,
  stored: count.openapi({ description: "Of these, who had none, and for whom it is kept" }),
  unknown: count.openapi({ description: "Users who got nothing: no socket, and not seen for a day" }),
  offline: count.optional().openapi({ description: "With `expect=online`: users who had no socket" }),
  failed: count.optional().openapi({
    description: "Users for whom Redis refused it, as where another program holds one of their keys",
  }),
  acked: count.optional().openapi({ description: "Of how many sockets the clients have acknowledged it" }),
}).openapi("GroupReceipt");

export const groupSend: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/groups/{group}/messages",
    operationId: "sendToGroup",
    security: SECURITY,
    summary: "Send a message to every user of a group",
    description:
      "The body is the payload. A send that breaks off is 503 with `done` and `of`; a retry with the same " +
      "`Idempotency-Key` goes on after those who are done with.",
    request: {
      params: GroupParameter,
      query: GroupSendQuery,
      headers: SendHeaders,
      body: PAYLOAD,
    },
    responses: {
      200: json(GroupReceipt, "The message was handed to that many sockets"),
      202: json(GroupReceipt, "Nobody of the group is online"),
      404: no("There is no such group"),
      422: no("The idempotency key was used for another message"),
      429: no("As many messages to groups are being sent as one process sends at a time"),
      ...BODY_REFUSALS,
      ...REFUSALS,
    },
  }),
  effect: EFFECT_ON_FAILURE.send,
  async answer(c, api) {
    const caller = authorize(c, api, "send");
    const query = check(GroupSendQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const group = groupIn(c, api);
    assertMayAddressGroup(caller, group);
    const { expect, store, except, wait, timeout = DEFAULT_ACK_TIMEOUT_MS, ttl, unacked } = query.value;
    const idempotencyKey = c.req.raw.headers.get("idempotency-key");
    // Before its turn: who sends slowly keeps nobody else from sending.
    const payload = await readPayload(c.req.raw, api.bodies.single);
    return await inTurn(api, () =>
      send(c, api, group, payload, {
        ...(expect && { expectOnline: true }),
        ...(store && { store }),
        ...(except !== undefined && { except }),
        ...(wait && { waitAckMs: timeout }),
        ...(ttl !== undefined && { ttlMs: ttl * 1_000 }),
        ...(unacked !== undefined && { unackedMs: unacked * 1_000 }),
        ...(idempotencyKey !== null && { idempotencyKey }),
        ...traceparentOf(c.req.raw),
      }));
  },
};

async function send(
  c: CallContext,
  api: Api,
  group: string,
  payload: Payload,
  options: GroupSendOptions,
): Promise<Response> {
  const { repeated, ...result } = await api.publisher.sendToGroup(group, payload, options);
  return c.json(
    result,
    result.online > 0 ? 200 : 202,
    repeated ? { "idempotent-replayed": "true" } : {},
  );
}

/** How many are under way, by what they are answered with: that lives as long as a service does. */
const underWay = new WeakMap<Api, number>();

/** Does it unless too many are under way. */
async function inTurn(api: Api, work: () => Promise<Response>): Promise<Response> {
  const before = underWay.get(api) ?? 0;
  if (before >= api.maxGroupSends) {
    return problem(
      "too_many_requests",
      `${before} messages to groups are being sent by this process, as many as USERWIRE_MAX_GROUP_SENDS allows: ` +
        "nothing was sent, try again",
    );
  }
  underWay.set(api, before + 1);
  try {
    return await work();
  } finally {
    underWay.set(api, underWay.get(api)! - 1);
  }
}
