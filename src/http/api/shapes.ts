/** Shapes that several calls of the HTTP API share: they validate requests and write `/openapi.json`. */
import { MAX_UNACKED_MS } from "../../publisher/unacked_send.ts";
import { z } from "@hono/zod-openapi";
import { MESSAGE_ID, MESSAGE_ID_RULE } from "../../protocol/envelope.ts";

/** Longest time a message is kept, in seconds. */
export const MAX_TTL_S = 2_592_000;
/** Longest time until a message is told to be unacknowledged, in seconds. */
const MAX_UNACKED_S = MAX_UNACKED_MS / 1_000;

/** A whole number in a query. */
export function number(min: number, max: number) {
  return z.string().regex(/^\d{1,9}$/, "must be a whole number").transform(Number).pipe(
    z.number().int().min(min).max(max),
  ).openapi({ type: "integer", minimum: min, maximum: max });
}

export const username = z.string().openapi({
  description:
    "1–128 bytes of UTF-8 without white space, control characters or braces, not starting with `userwire:`",
  example: "alice",
});

export const id = z.string().regex(MESSAGE_ID, MESSAGE_ID_RULE);

export const UserParameter = z.object({
  username: username.openapi({ param: { name: "username", in: "path" } }),
});

export const GroupParameter = z.object({
  group: z.string().openapi({
    description: "Name of the group: what may be a username may be one",
    example: "team-7",
    param: { name: "group", in: "path" },
  }),
});

/** How long to wait for receipts, unless the sender says. */
export const DEFAULT_ACK_TIMEOUT_MS = 2_000;

/** What `wait=ack` needs, and how long a message is kept: of the query of every send. */
export const sendQuery = {
  wait: z.literal("ack").optional().openapi({
    description: "Answer when clients have acknowledged, with `acked`",
  }),
  timeout: number(1, 30_000).optional().openapi({
    description:
      "How long to wait for them, in milliseconds; 2000 if not given. Its passing is a result, not an error",
  }),
  unacked: number(0, MAX_UNACKED_S).optional().openapi({
    description:
      "Tell the backend by the webhook `message.unacked` when no client of the user has acknowledged it after so many " +
      "seconds; 0: at once, when the user is offline",
  }),
  ttl: number(1, MAX_TTL_S).optional().openapi({
    description: "How long the message is kept for a user who is away, in seconds",
  }),
};

/** A timeout needs something to wait for. */
export const TIMEOUT_RULE = { message: "needs wait=ack", path: ["timeout"] };

export const sockets = z.number().int().openapi({
  description: "How many sockets the message was handed to",
  example: 2,
});

export const nodes = z.number().int().openapi({
  description: "Instead of `sockets` with shared subscriptions: how many nodes hold at least one of them",
  example: 2,
}).optional();

export const seq = z.number().int().optional().openapi({
  description: "Place in the user's history; missing when none is kept",
  example: 42,
});
export const epoch = z.string().optional().openapi({
  description: "The history that `seq` counts in",
  example: "Zk3vQ9aB",
});

export const SendHeaders = z.object({
  "idempotency-key": z.string().optional().openapi({
    description: "Sends with the same key within five minutes are one; a repetition gets the first answer",
  }),
  traceparent: z.string().optional().openapi({
    description: "The span that the send is a part of (W3C Trace Context): clients get it with the message",
  }),
});

/** The trace parent in the headers of a send, for its options. */
export function traceparentOf({ headers }: Request): { traceparent?: string } {
  const traceparent = headers.get("traceparent");
  return traceparent === null ? {} : { traceparent };
}

export const Readiness = z.object({
  ready: z.boolean(),
  why: z.string().optional().openapi({ description: "What keeps it from being ready" }),
  broker: z.string().openapi({ example: "redis" }),
  node: z.string().openapi({ description: "Name of this node", example: "host:8765" }),
  open: z.boolean().openapi({
    description: "Open mode: every client that reaches this address may do everything",
  }),
  connections: z.number().int().openapi({ description: "Sockets of this node" }),
  warnings: z.array(z.string()).optional().openapi({
    description: "What Redis is set to that may lose data, and what is wrong while users can be served",
  }),
}).openapi("Readiness");

export const Node = z.object({
  node: z.string().openapi({ description: "Its name", example: "host:8765" }),
  version: z.string().openapi({ example: "1.2.0" }),
  since: z.string().openapi({ description: "When it was started", example: "2026-11-26T10:00:00.000Z" }),
  connections: z.number().int().openapi({ description: "Sockets that it holds" }),
  subscriptions: z.enum(["dedicated", "shared"]).optional().openapi({
    description: "How it is subscribed to Redis; missing in memory",
  }),
  draining: z.boolean().openapi({ description: "Whether it takes no more sockets" }),
}).openapi("Node");

export type NodeState = z.infer<typeof Node>;

/** One thing that was looked at. */
export interface Finding {
  readonly check: string;
  readonly state: "ok" | "warning" | "fault";
  readonly says: string;
  readonly remedy?: string;
}

export const Problem = z.object({
  type: z.string().openapi({ example: "urn:userwire:problem:invalid_username" }),
  title: z.string(),
  status: z.number().int(),
  code: z.string().openapi({ example: "invalid_username" }),
  detail: z.string().openapi({ description: "What was wrong with this request and what to do" }),
  request_id: z.string().optional().openapi({
    description:
      "Stands in the log beside what is said of this request, and in `X-Request-Id` of every answer",
  }),
}).openapi("Problem");

/** An answer of JSON. */
export function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { "application/json": { schema } } };
}

/** A body that is a payload. It is checked by hand, since any body of these types is one. */
export const PAYLOAD = {
  required: true,
  content: {
    "application/json": { schema: {} },
    "text/plain": { schema: { type: "string" } },
    "application/octet-stream": { schema: { type: "string", format: "binary" } },
  },
} as const;

/** The body that a call takes. */
export function bodyOf<T extends z.ZodType>(schema: T) {
  return { required: true, content: { "application/json": { schema } } };
}

/** A problem. */
export function no(description: string) {
  return { description, content: { "application/problem+json": { schema: Problem } } };
}

/** What nearly every call may be refused for. */
export const REFUSALS = {
  400: no("The request is not valid"),
  401: no("The key is missing or not known"),
  403: no("The key does not allow it, or pages of this origin may not call"),
  431: no("The headers are too large"),
  503: no("The broker is not available; try again"),
};

/** What a call with a body may be refused for, beside `REFUSALS`. */
export const BODY_REFUSALS = {
  408: no("The body did not come in time"),
  413: no("The body is too large"),
  415: no("The content type is not supported"),
};

/** Either is enough: without keys configured, in open mode, nobody needs one. */
export const SECURITY = [{ key: [] }, {}];

/** Checks a value against a schema: returns it, or a sentence that names the first field at fault. */
export function check<S extends z.ZodType>(
  schema: S,
  value: unknown,
): { value: z.output<S> } | { fault: string } {
  const result = schema.safeParse(value);
  if (result.success) return { value: result.data };
  const { path, message } = result.error.issues[0]!;
  const at = path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("").slice(1);
  return { fault: at === "" ? message : `${at}: ${message}` };
}
