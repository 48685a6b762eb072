/** `POST /v1/messages`: many messages in one call. All are checked before the first is sent, then they are sent in portions. */
import { createHash } from "node:crypto";
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { BrokerUnavailableError, UserOfflineError } from "../../protocol/errors.ts";
import { Slices } from "../json_text.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import { assertIdempotencyKey, type SendResult } from "../../publisher/send.ts";
import { readJsonText } from "../body.ts";
import { EFFECT_ON_FAILURE, problemOf } from "../problem.ts";
import { BatchItem, type Item, MAX_BATCH_ITEMS, readBatch } from "./batch_items.ts";
import { authorize, type Call } from "./call.ts";
import {
  BODY_REFUSALS,
  epoch,
  id,
  IdempotencyHeader,
  json,
  no,
  nodes,
  REFUSALS,
  SECURITY,
  seq,
  sockets,
} from "./shapes.ts";

const Batch = z.strictObject({
  items: z.array(BatchItem).min(1).max(MAX_BATCH_ITEMS),
}).openapi("Batch");

const Failure = z.object({ code: z.string(), detail: z.string() });

const BatchResult = z.object({
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

type Result = z.infer<typeof BatchResult>["results"][number];

const ROUTE = createRoute({
  method: "post",
  path: "/v1/messages",
  operationId: "sendMessages",
  security: SECURITY,
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
    ...BODY_REFUSALS,
    ...REFUSALS,
  },
});

export const batch: Call = {
  route: ROUTE,
  effect: EFFECT_ON_FAILURE.send,
  async answer(c, api) {
    const caller = authorize(c, api, "send");
    const key = c.req.raw.headers.get("idempotency-key");
    const body = await readJsonText(c.req.raw, api.bodies.bulk);
    const repeatable = repeatableBy(key, body, caller.name);
    const items = await readBatch(body, api.publisher, {
      maxDataBytes: api.maxBodyBytes,
      maxFanoutBytes: api.maxFanoutBytes,
    });
    assertMayAddress(caller, items.flatMap(({ users }) => users));
    return await sendBatch(api.publisher, items, repeatable);
  },
};

/** The key under which a call may be repeated, and what tells it from others. */
interface Repeatable {
  readonly key: string;
  readonly fingerprint: string;
}

/**
 * What the header says for the whole call.
 * @param caller Name of the API key: nobody gets in another's way.
 * @throws {InvalidMessageError} when it is no key.
 */
function repeatableBy(key: string | null, body: string, caller: string): Repeatable | undefined {
  if (key === null) return undefined;
  assertIdempotencyKey(key);
  // No key of a single send has a space in it.
  return {
    key: `call ${caller} ${key}`,
    fingerprint: createHash("sha256").update(body).digest("base64url"),
  };
}

/** @throws {IdempotencyConflictError | BrokerUnavailableError} before anything is sent. */
async function sendBatch(
  publisher: Publisher,
  items: readonly Item[],
  repeatable: Repeatable | undefined,
): Promise<Response> {
  // Once for the whole call, so that another call with this key sends nothing at all; then each send is remembered by
  // itself, so that a repetition sends what the first try could not.
  if (repeatable) await publisher.claim(repeatable.key, repeatable.fingerprint);
  /** Whether it is known that nothing was sent. */
  let isRefused = true;
  let isRepeated = true;
  const slices = new Slices();
  const sending: Promise<Result>[] = [];
  // In one line, so that they arrive in order, and leave room for what others send.
  const line = publisher.line();
  for (const [i, item] of items.entries()) {
    sending.push(sendItem(item, i));
    await slices.next();
  }
  const sends = await Promise.all(sending);
  // Who comes again with the key may say something else.
  if (repeatable && isRefused) await publisher.release(repeatable.key, repeatable.fingerprint);

  async function sendItem(
    { users, isList, payload, id, ttlMs, expectOnline }: Item,
    nth: number,
  ): Promise<Result> {
    const outcomes = await publisher.sendToAll(users, payload, {
      id,
      line,
      ...(ttlMs !== undefined && { ttlMs }),
      ...(expectOnline && { expectOnline }),
      ...(repeatable && { idempotency: { ...repeatable, key: `${repeatable.key} ${nth}` } }),
    });
    const sent = outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? [outcome.value] : []);
    const counts = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? outcome.value.nodes ?? outcome.value.sockets : 0
    );
    const failures = outcomes.flatMap((outcome) => outcome.status === "rejected" ? [outcome.reason] : []);
    const isOffline = (reason: unknown) => reason instanceof UserOfflineError;
    const failed = failures.find((reason) => !isOffline(reason));
    if (failed && !(failed instanceof BrokerUnavailableError)) throw failed;
    isRefused &&= sent.length === 0 &&
      failures.every((reason) => isOffline(reason) || reason.outcome === "refused");
    isRepeated &&= sent.length > 0 && sent.every(({ repeated }) => repeated);
    const error = failed
      ? { code: "broker_unavailable", detail: failed.message }
      : sent.length === 0
      ? { code: "user_offline", detail: failures[0].message }
      : undefined;
    return {
      id: sent[0]?.id ?? id,
      [publisher.counted]: counts.reduce((sum, count) => sum + count, 0),
      ...(!isList && sent[0] && placeOf(sent[0])),
      ...(isList && { users: Object.fromEntries(users.map((user, i) => [user, counts[i]!])) }),
      ...(error && { error }),
    };
  }

  if (sends.every(({ error }) => error?.code === "broker_unavailable")) {
    const error = new BrokerUnavailableError(sends[0]!.error!.detail, {
      outcome: isRefused ? "refused" : "unknown",
    });
    return problemOf(error, EFFECT_ON_FAILURE.send)!;
  }
  return Response.json({ results: sends }, {
    headers: isRepeated ? { "idempotent-replayed": "true" } : {},
  });
}

function placeOf({ seq, epoch }: SendResult) {
  return seq === undefined || epoch === undefined ? {} : { seq, epoch };
}
