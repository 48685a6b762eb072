/** What the HTTP API is: each call with its schemas. `/openapi.json` is written from this, `routes.ts` answers. */
import { createRoute, type z } from "@hono/zod-openapi";
import { METRICS_TYPE } from "../metrics.ts";
import {
  Batch,
  BatchResult,
  Closed,
  CloseQuery,
  Health,
  History,
  HistoryQuery,
  IdempotencyHeader,
  OfflineReceipt,
  Online,
  OnlineCounts,
  OnlineQuery,
  Problem,
  Readiness,
  Receipt,
  RevocationQuery,
  Revoked,
  SendQuery,
  Ticket,
  TicketQuery,
  UserParameter,
} from "./schemas.ts";

function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } };
}

function no(description: string) {
  return { description, content: { "application/problem+json": { schema: Problem } } };
}

const REFUSALS = {
  400: no("The request is not valid"),
  401: no("The key is missing or not known"),
  403: no("The key does not allow it, or pages of this origin may not call"),
  431: no("The headers are too large"),
  503: no("The broker is not available; try again"),
};

/** Either is enough: without keys configured, in open mode, nobody needs one. */
const security = [{ key: [] }, {}];
/** Whoever balances the load has no key. */
const nobody: never[] = [];

export const send = createRoute({
  method: "post",
  path: "/v1/users/{username}/messages",
  operationId: "sendMessage",
  security,
  summary: "Send a message to a user",
  description: "The body is the payload. JSON reaches raw sockets byte for byte.",
  request: {
    params: UserParameter,
    query: SendQuery,
    headers: IdempotencyHeader,
    // Checked by hand, since any body of these types is a payload.
    body: {
      required: true,
      content: {
        "application/json": { schema: {} },
        "text/plain": { schema: { type: "string" } },
        "application/octet-stream": { schema: { type: "string", format: "binary" } },
      },
    },
  },
  responses: {
    200: json(Receipt, "The message was handed to that many sockets"),
    202: json(OfflineReceipt, "The user is offline"),
    404: no("`expect=online`, and the user is offline"),
    422: no("The idempotency key was used for another message"),
    408: no("The body did not come in time"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

export const batch = createRoute({
  method: "post",
  path: "/v1/messages",
  operationId: "sendMessages",
  security,
  summary: "Send many messages",
  description:
    "All are checked before the first is sent. `Idempotency-Key` is for the whole call: a repetition gets the first " +
    "answer for what was accepted, and sends the rest. A call of which nothing was accepted leaves the key free.",
  request: {
    headers: IdempotencyHeader,
    body: { required: true, content: { "application/json": { schema: Batch } } },
  },
  responses: {
    422: no("The idempotency key was used for another call"),
    200: json(BatchResult, "One result per item, in order"),
    408: no("The body did not come in time"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

export const user = createRoute({
  method: "get",
  path: "/v1/users/{username}",
  operationId: "getUser",
  security,
  summary: "Whether a user is online",
  request: { params: UserParameter },
  responses: { 200: json(Online, "Sockets of the user over all instances"), ...REFUSALS },
});

export const userHead = createRoute({
  method: "head",
  path: "/v1/users/{username}",
  operationId: "headUser",
  security,
  summary: "Whether a user is online, by the status alone",
  request: { params: UserParameter },
  responses: {
    200: { description: "The user is online" },
    404: { description: "The user is offline" },
    400: { description: "The request is not valid" },
    401: { description: "The key is missing or not known" },
    403: { description: "The key does not allow it, or pages of this origin may not call" },
    431: { description: "The headers are too large" },
    503: { description: "The broker is not available; try again" },
  },
});

export const online = createRoute({
  method: "post",
  path: "/v1/users/online",
  operationId: "getOnline",
  security,
  summary: "Which of many users are online",
  request: { body: { required: true, content: { "application/json": { schema: OnlineQuery } } } },
  responses: {
    200: json(OnlineCounts, "Sockets of each user"),
    408: no("The body did not come in time"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

export const health = createRoute({
  method: "get",
  path: "/healthz",
  operationId: "getHealth",
  security: nobody,
  summary: "Whether the process lives",
  responses: {
    200: json(Health, "It does; a lost broker does not change that"),
    403: no("Pages of this origin may not call"),
    431: no("The headers are too large"),
  },
});

export const ready = createRoute({
  method: "get",
  path: "/readyz",
  operationId: "getReadiness",
  security: nobody,
  summary: "Whether this instance should get traffic",
  responses: {
    200: json(Readiness, "It should"),
    403: no("Pages of this origin may not call"),
    431: no("The headers are too large"),
    503: json(Readiness, "It should not: `why` says what is missing"),
  },
});

export const metrics = createRoute({
  method: "get",
  path: "/metrics",
  operationId: "getMetrics",
  security,
  summary: "What this instance has done and how it is, for Prometheus",
  responses: {
    200: {
      description: "Its text format",
      content: { [METRICS_TYPE]: { schema: { type: "string" } } },
    },
    401: REFUSALS[401],
    403: REFUSALS[403],
    431: REFUSALS[431],
  },
});

export const history = createRoute({
  method: "get",
  path: "/v1/users/{username}/messages",
  operationId: "getMessages",
  security,
  summary: "What is kept of a user's messages",
  request: { params: UserParameter, query: HistoryQuery },
  responses: {
    200: json(History, "Messages, oldest first"),
    410: no("The position is of another epoch: the history was lost or set back"),
    ...REFUSALS,
  },
});

export const close = createRoute({
  method: "delete",
  path: "/v1/users/{username}/connections",
  operationId: "closeConnections",
  security,
  summary: "Close every connection of a user",
  request: { params: UserParameter, query: CloseQuery },
  responses: { 200: json(Closed, "They were told to close"), ...REFUSALS },
});

export const ticket = createRoute({
  method: "post",
  path: "/v1/tickets",
  operationId: "createTicket",
  security,
  summary: "Get a ticket, with which one socket connects as a user",
  request: { body: { required: true, content: { "application/json": { schema: TicketQuery } } } },
  responses: {
    201: json(Ticket, "The ticket"),
    408: no("The body did not come in time"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});

export const revocation = createRoute({
  method: "post",
  path: "/v1/users/{username}/revocations",
  operationId: "createRevocation",
  security,
  summary: "Let a user's tokens in no more, and close the sockets they let in",
  request: {
    params: UserParameter,
    body: { required: true, content: { "application/json": { schema: RevocationQuery } } },
  },
  responses: {
    201: json(Revoked, "Known to every instance from now on"),
    408: no("The body did not come in time"),
    413: no("The body is too large"),
    415: no("The content type is not supported"),
    ...REFUSALS,
  },
});
