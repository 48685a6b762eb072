/** The shapes of the HTTP API: they validate requests and write `/openapi.json`. */
import { z } from "@hono/zod-openapi";

export const MAX_BATCH_ITEMS = 1_000;
/** Recipients of one item of a batch, and of a whole batch. */
export const MAX_ITEM_RECIPIENTS = 1_000;
export const MAX_BATCH_RECIPIENTS = 10_000;
export const MAX_ONLINE_USERS = 10_000;

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

export const Receipt = z.object({
  id: id.openapi({ example: "0b6b5b6e-6a5f-4a6e-9a57-3d9d7a8b4f0e" }),
  sockets,
}).openapi("Receipt");

export const OfflineReceipt = z.object({
  id,
  sockets: z.literal(0),
  stored: z.boolean().openapi({ description: "Whether the message waits for the user's return" }),
}).openapi("OfflineReceipt");

export const Batch = z.strictObject({
  items: z.array(z.strictObject({
    to: z.union([username, z.array(username).min(1).max(MAX_ITEM_RECIPIENTS)], {
      error: `must be a username or a list of 1 to ${MAX_ITEM_RECIPIENTS} usernames`,
    }),
    data: z.unknown().refine((data) => data !== undefined, "is missing").openapi({
      description: "The payload: any JSON value",
      example: { order: 7 },
    }),
    id: id.optional(),
  })).min(1).max(MAX_BATCH_ITEMS),
}).openapi("Batch");

const Failure = z.object({ code: z.string(), detail: z.string() });

export const BatchResult = z.object({
  results: z.array(z.object({
    id,
    sockets,
    users: z.record(z.string(), z.number().int()).optional().openapi({
      description: "Sockets reached for each user, when `to` is a list",
    }),
    error: Failure.optional().openapi({ description: "Set when the broker failed for this item" }),
  })),
}).openapi("BatchResult");

export const Online = z.object({ online: z.boolean(), sockets: z.number().int() }).openapi("Online");

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
export function check<T>(schema: z.ZodType<T>, value: unknown): { value: T } | { fault: string } {
  const result = schema.safeParse(value);
  if (result.success) return { value: result.data };
  const issue = result.error.issues[0]!;
  const at = issue.path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("").slice(
    1,
  );
  return { fault: at === "" ? issue.message : `${at}: ${issue.message}` };
}
