/** `/v1/users/{username}/connections`: shows a user's connections on all nodes, and closes one or all. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { CLOSE, type CloseReason, isCloseCode } from "../../protocol/close_codes.ts";
import { EFFECT_ON_FAILURE, problem, RequestFault } from "../problem.ts";
import { type Api, authorize, type Call, type CallContext, queryOf, segmentOf, usernameIn } from "./call.ts";
import { check, json, no, number, REFUSALS, SECURITY, UserParameter } from "./shapes.ts";

const CloseQuery = z.strictObject({
  code: number(1_000, 4_999).refine(isCloseCode, {
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

const Connection = z.object({
  conn: z.string().openapi({ description: "Its id, as in `hi` and in the log" }),
  node: z.string().openapi({ description: "Name of the node that holds it", example: "host:8765" }),
  since: z.string().optional().openapi({
    description: "Since when it has been open; missing while it is being opened",
    example: "2026-11-26T10:00:00.000Z",
  }),
  mode: z.enum(["raw", "v1", "sse"]).openapi({ description: "What it is, as metrics and logs call it" }),
  transport: z.enum(["websocket", "sse"]),
  buffered: z.number().int().openapi({
    description: "Bytes on the node that the client has not taken, about",
  }),
  position: z.string().optional().openapi({
    description:
      "How far it has come in the user's history; missing where it has no place there, as raw ones",
    example: "Zk3vQ9aB.17",
  }),
  behind: z.number().int().optional().openapi({
    description: "How many messages of the history come after that",
  }),
  exp: z.number().optional().openapi({ description: "When its token ends, in Unix seconds" }),
}).openapi("Connection");

const Connections = z.object({
  items: z.array(Connection),
  sockets: z.number().int().optional().openapi({
    description: "How many connections were asked",
    example: 2,
  }),
  nodes: z.number().int().optional().openapi({
    description:
      "Instead of `sockets` with shared subscriptions: how many nodes were asked for all they hold",
  }),
  unanswered: z.number().int().openapi({
    description: "How many of these did not answer in 2 s: 0 when the list is complete",
    example: 0,
  }),
}).openapi("Connections");

const ConnectionParameter = UserParameter.extend({
  conn: z.string().openapi({ param: { name: "conn", in: "path" }, description: "Id of the connection" }),
});

/** The id of a connection in the path: a broken one is nobody's. */
function connIn(c: CallContext): string {
  const segment = segmentOf(c, 5);
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export const connections: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/users/{username}/connections",
    operationId: "getConnections",
    security: SECURITY,
    summary: "Every connection of a user",
    description: "Each is asked now, on whichever node it is: nothing of it is kept.",
    request: { params: UserParameter },
    responses: { 200: json(Connections, "Those that have answered"), ...REFUSALS },
  }),
  async answer(c, api) {
    const caller = authorize(c, api, "read");
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const { items, asked, unanswered } = await api.publisher.connections(username);
    return c.json({ items, [api.publisher.counted]: asked, unanswered });
  },
};

export const closeConnection: Call = {
  route: createRoute({
    method: "delete",
    path: "/v1/users/{username}/connections/{conn}",
    operationId: "closeConnection",
    security: SECURITY,
    summary: "Close one connection of a user",
    request: { params: ConnectionParameter, query: CloseQuery },
    responses: {
      200: json(Closed.pick({ closed: true }).required().openapi("ClosedOne"), "It was told to close"),
      404: no("The user has no such connection"),
      ...REFUSALS,
      503: no("The broker is not available, or not all that may have it have answered; try again"),
    },
  }),
  effect: EFFECT_ON_FAILURE.close,
  async answer(c, api) {
    const { username, reason } = closeAsked(c, api);
    const { publisher } = api;
    const close = { conn: connIn(c), ...reason };
    const { closed, asked, unanswered } = await publisher.closeConnection(username, close);
    if (closed) return c.json({ closed: 1 });
    if (unanswered === 0) {
      return problem(
        "connection_not_found",
        "The user has no such connection: GET …/connections lists those there are",
      );
    }
    return problem(
      "nodes_silent",
      `${unanswered} of ${asked} ${publisher.counted} did not answer in time: where the connection is one of theirs it ` +
        "is closed as soon as they do",
    );
  },
};

/**
 * Whose connections are to close, and why clients are to see that.
 * @throws {RequestFault} and what keeps the caller from it.
 */
function closeAsked(c: CallContext, api: Api): { username: string; reason: CloseReason } {
  const caller = authorize(c, api, "admin");
  const query = check(CloseQuery, queryOf(c.req.raw) ?? {});
  if ("fault" in query) throw new RequestFault("invalid_request", query.fault);
  const { code = CLOSE.kicked.code, why: reason = CLOSE.kicked.reason } = query.value;
  const username = usernameIn(c);
  assertMayAddress(caller, [username]);
  return { username, reason: { code, reason } };
}

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
    const { username, reason } = closeAsked(c, api);
    const told = await api.publisher.closeConnections(username, reason);
    return c.json(api.publisher.counted === "sockets" ? { closed: told } : { nodes: told });
  },
};
