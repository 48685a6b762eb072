/** The shapes of the HTTP API: they validate requests and write `/openapi.json`. */
import { z } from "@hono/zod-openapi";
import { MAX_TICKET_TTL_S, MAX_TOKEN_ID_LENGTH } from "../auth/auth.ts";

export const MAX_BATCH_ITEMS = 1_000;
/** Recipients of one item of a batch, and of a whole batch. */
export const MAX_ITEM_RECIPIENTS = 1_000;
export const MAX_BATCH_RECIPIENTS = 10_000;
/** Longest time a message is kept, in seconds. */
const MAX_TTL_S = 2_592_000;
export const MAX_ONLINE_USERS = 10_000;

/** A whole number in a query. */
function number(min: number, max: number) {
  return z.string().regex(/^\d{1,9}$/, "must be a whole number").transform(Number).pipe(
    z.number().int().min(min).max(max),
  ).openapi({ type: "integer", minimum: min, maximum: max });
}

const username = z.string().openapi({
  description:
    "1–128 bytes of UTF-8 without white space, control characters or braces, not starting with `userwire:`",
  example: "alice",
});

const id = z.string().regex(/^[\w.:-]{1,64}$/, "must have 1 to 64 letters, digits or . _ : -");

export const UserParameter = z.object({
  username: username.openapi({ param: { name: "username", in: "path" } }),
});

const sockets = z.number().int().openapi({
  description: "How many sockets the message was handed to",
  example: 2,
});

const nodes = z.number().int().openapi({
  description: "Instead of `sockets` with shared subscriptions: how many instances hold at least one of them",
  example: 2,
}).optional();

const seq = z.number().int().optional().openapi({
  description: "Place in the user's history; missing when none is kept",
  example: 42,
});
const epoch = z.string().optional().openapi({
  description: "The history that `seq` counts in",
  example: "Zk3vQ9aB",
});

export const SendQuery = z.strictObject({
  expect: z.literal("online").optional().openapi({
    description: "Only send when the user is online; else 404 and nothing is stored",
  }),
  wait: z.literal("ack").optional().openapi({
    description: "Answer when clients have acknowledged, with `acked`",
  }),
  timeout: number(1, 30_000).optional().openapi({
    description:
      "How long to wait for them, in milliseconds; 2000 if not given. Its passing is a result, not an error",
  }),
  ttl: number(1, MAX_TTL_S).optional().openapi({
    description: "How long the message is kept for a user who is away, in seconds",
  }),
}).refine(({ wait, timeout }) => timeout === undefined || wait === "ack", {
  message: "needs wait=ack",
  path: ["timeout"],
});

export const DEFAULT_ACK_TIMEOUT_MS = 2_000;

export const IdempotencyHeader = z.object({
  "idempotency-key": z.string().optional().openapi({
    description: "Sends with the same key within five minutes are one; a repetition gets the first answer",
  }),
});

export const Receipt = z.object({
  id: id.openapi({ example: "0b6b5b6e-6a5f-4a6e-9a57-3d9d7a8b4f0e" }),
  sockets: sockets.optional(),
  nodes,
  seq,
  epoch,
  acked: z.number().int().optional().openapi({
    description:
      "Of how many sockets the clients have acknowledged, with `wait=ack`; `sockets` is there then " +
      "even beside `nodes`, once all instances have said how many they hold",
  }),
}).openapi("Receipt");

export const OfflineReceipt = z.object({
  id,
  sockets: z.literal(0).optional(),
  nodes,
  seq,
  epoch,
  stored: z.boolean().openapi({ description: "Whether the message waits for the user's return" }),
}).openapi("OfflineReceipt");

export const HistoryQuery = z.strictObject({
  after: z.string().regex(
    /^(\d{1,15}|[\w-]{1,32}\.\d{1,15}(\.[\w-]{8})?)$/,
    "must be a number, or a position such as Zk3vQ9aB.17",
  )
    .optional().openapi({
      param: { name: "after", in: "query" },
      description:
        "Sequence number or position to begin after, with or without its tag; a position of another epoch, or with another message's tag, is 410",
    }),
  limit: number(1, 1_000).optional().openapi({ description: "At most so many messages; 100 if not given" }),
});

export const History = z.object({
  epoch: z.string().openapi({ description: "Empty when the user was never seen" }),
  first: z.number().int().openapi({ description: "Number of the first item; 0 without items" }),
  last: z.number().int().openapi({
    description: "Number of the newest message ever sent; 0 before the first",
  }),
  items: z.array(
    z.object({
      t: z.literal("m"),
      seq: z.number().int(),
      tag: z.string().optional().openapi({ description: "Proof for a position after this message" }),
      id: z.string(),
      ts: z.number(),
      data: z.unknown(),
    }),
  ),
}).openapi("History");

export const CloseQuery = z.strictObject({
  code: number(1_000, 4_999).refine((code) => code === 1_000 || code === 1_012 || code >= 3_000, {
    message: "must be 1000, 1012 or 3000 to 4999",
  }).optional().openapi({
    description: "Close code, 1000, 1012 or 3000 to 4999; 4403 if not given, which clients take as final",
  }),
  why: z.string().min(1).refine((why) => new TextEncoder().encode(why).length <= 120, {
    message: "must have at most 120 bytes",
  }).optional().openapi({ description: 'Reason that clients see; "kicked" if not given' }),
});

export const Closed = z.object({
  closed: z.number().int().optional().openapi({ description: "Connections that were told to close" }),
  nodes: z.number().int().optional().openapi({
    description:
      "Instead of `closed` with shared subscriptions: how many instances were told to close all they hold",
  }),
}).openapi("Closed");

export const TicketQuery = z.strictObject({
  user: username,
  ttl: z.number().int().min(1).max(MAX_TICKET_TTL_S).optional().openapi({
    description: "How long the ticket is good for, in seconds; USERWIRE_TICKET_TTL_S if not given",
  }),
}).openapi("TicketQuery");

export const Ticket = z.object({
  ticket: z.string().openapi({ description: "Good for one connection" }),
  url: z.string().openapi({
    description:
      "Where to connect with it: at USERWIRE_PUBLIC_URL if that is set, else at the address by which this " +
      "call came, to a proxy of USERWIRE_TRUSTED_PROXIES if it says so in X-Forwarded-Proto and X-Forwarded-Host",
    example: "wss://push.example.com/ws?ticket=…",
  }),
}).openapi("Ticket");

export const RevocationQuery = z.strictObject({
  jti: z.string().min(1).max(MAX_TOKEN_ID_LENGTH).optional().openapi({
    description: "Id of the one token that is meant",
  }),
  issued_before: z.number().int().min(1).max(9_999_999_999).optional().openapi({
    description:
      "Unix seconds: every token and ticket of the user that is older is meant. If not given: until now, by any " +
      "clock within USERWIRE_JWT_CLOCK_TOLERANCE_S",
  }),
}).refine(({ jti, issued_before }) => jti === undefined || issued_before === undefined, {
  message: "can't stand beside jti",
  path: ["issued_before"],
}).openapi("RevocationQuery");

export const Revoked = z.object({
  jti: z.string().optional(),
  issued_before: z.number().int().optional().openapi({
    description: "Tokens whose `iat` is below it are let in no more; tickets made from now on are",
  }),
}).openapi("Revoked");

/** An item is checked by itself; that one of the three payloads is there, where it is read. */
export const BatchItem = z.strictObject({
  to: z.union([username, z.array(username).min(1).max(MAX_ITEM_RECIPIENTS)], {
    error: `must be a username or a list of 1 to ${MAX_ITEM_RECIPIENTS} usernames`,
  }),
  data: z.unknown().optional().openapi({
    description: "The payload: any JSON value. Each item has it, or `text`, or `base64`",
    example: { order: 7 },
  }),
  text: z.string().optional().openapi({ description: "Instead of `data`: a payload of text" }),
  base64: z.string().optional().openapi({
    description: "Instead of `data`: a payload of bytes, in base64",
    format: "byte",
  }),
  id: id.optional(),
  ttl: z.number().int().min(1).max(MAX_TTL_S).optional().openapi({
    description: "How long the message is kept for users who are away, in seconds",
  }),
  expect: z.literal("online").optional().openapi({
    description: "Only send to users who are online; for the others nothing is stored",
  }),
});

export const Batch = z.strictObject({
  items: z.array(BatchItem).min(1).max(MAX_BATCH_ITEMS),
}).openapi("Batch");

const Failure = z.object({ code: z.string(), detail: z.string() });

export const BatchResult = z.object({
  results: z.array(z.object({
    id,
    sockets: sockets.optional(),
    nodes,
    seq,
    epoch,
    users: z.record(z.string(), z.number().int()).optional().openapi({
      description: "Sockets, or `nodes`, reached for each user, when `to` is a list",
    }),
    error: Failure.optional().openapi({
      description: "Set when the broker failed for this item, or with `expect` all its users are offline",
    }),
  })),
}).openapi("BatchResult");

export const Online = z.object({ online: z.boolean(), sockets: sockets.optional(), nodes }).openapi("Online");

export const OnlineQuery = z.strictObject({
  users: z.array(username).max(MAX_ONLINE_USERS),
}).openapi("OnlineQuery");

export const OnlineCounts = z.record(z.string(), z.number().int()).openapi("OnlineCounts", {
  example: { alice: 2, bob: 0 },
});

export const Health = z.object({ status: z.literal("ok") }).openapi("Health");

export const Readiness = z.object({
  ready: z.boolean(),
  why: z.string().optional().openapi({ description: "What keeps it from being ready" }),
  broker: z.string().openapi({ example: "redis" }),
  node: z.string().openapi({ description: "Name of this instance", example: "host:8765" }),
  open: z.boolean().openapi({ description: "Open mode: whoever reaches this address may do everything" }),
  connections: z.number().int().openapi({ description: "Sockets of this instance" }),
  warnings: z.array(z.string()).optional().openapi({
    description: "What Redis is set to that may lose data",
  }),
}).openapi("Readiness");

export const Problem = z.object({
  type: z.string().openapi({ example: "urn:userwire:problem:invalid_username" }),
  title: z.string(),
  status: z.number().int(),
  code: z.string().openapi({ example: "invalid_username" }),
  detail: z.string().openapi({ description: "What was wrong with this request and what to do" }),
}).openapi("Problem");

/**
 * Checks a value against a schema.
 * @returns The value, or a sentence that names the first field at fault.
 */
export function check<S extends z.ZodType>(
  schema: S,
  value: unknown,
): { value: z.output<S> } | { fault: string } {
  const result = schema.safeParse(value);
  if (result.success) return { value: result.data };
  const issue = result.error.issues[0]!;
  const at = issue.path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("").slice(
    1,
  );
  return { fault: at === "" ? issue.message : `${at}: ${issue.message}` };
}
