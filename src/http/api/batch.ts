/** `POST /v1/messages`: many messages in one call. All are checked before the first is sent, then they are sent in portions. */
import { createHash } from "node:crypto";
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { BrokerUnavailableError, UserOfflineError } from "../../protocol/errors.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import { assertIdempotencyKey, type ManySendOptions, type SendResult } from "../../publisher/send.ts";
import { readJsonText } from "../body.ts";
import { Slices } from "../json_text.ts";
import { EFFECT_ON_FAILURE } from "../problem.ts";
import { BatchItem, type Item, MAX_BATCH_ITEMS, readBatch } from "./batch_items.ts";
import { authorize, type Call } from "./call.ts";
import {
  BODY_REFUSALS,
  bodyOf,
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

export const batch: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/messages",
    operationId: "sendMessages",
    security: SECURITY,
    summary: "Send many messages",
    description:
      "All are checked before the first is sent. `Idempotency-Key` is for the whole call: a repetition gets the first " +
      "answer for what was accepted, and sends the rest. A call of which nothing was accepted leaves the key free.",
    request: { headers: IdempotencyHeader, body: bodyOf(Batch) },
    responses: {
      422: no("The idempotency key was used for another call"),
      200: json(BatchResult, "One result per item, in order"),
      ...BODY_REFUSALS,
      ...REFUSALS,
    },
  }),
  effect: EFFECT_ON_FAILURE.send,
  async answer(c, api) {
    const caller = authorize(c, api, "send");
    const key = c.req.raw.headers.get("idempotency-key");
    const body = await readJsonText(c.req.raw, api.bodies.bulk);
    if (key !== null) assertIdempotencyKey(key);
    const items = await readBatch(body, api.publisher, {
      maxDataBytes: api.maxBodyBytes,
      maxFanoutBytes: api.maxFanoutBytes,
    });
    assertMayAddress(caller, items.flatMap(({ users }) => users));
    return await sendBatch(
      api.publisher,
      items,
      key === null ? undefined : {
        // With the caller's name, so that nobody gets in another's way. No key of a single send has a space in it.
        key: `call ${caller.name} ${key}`,
        fingerprint: createHash("sha256").update(body).digest("base64url"),
      },
    );
  },
};

type Outcomes = readonly PromiseSettledResult<SendResult>[];

/**
 * @param idempotency Under which the call may be repeated, and what tells it from others.
 * @throws {IdempotencyConflictError | BrokerUnavailableError} also when every item failed by the broker.
 */
async function sendBatch(
  publisher: Publisher,
  items: readonly Item[],
  idempotency: ManySendOptions["idempotency"],
): Promise<Response> {
  // Once for the whole call, so that another call with this key sends nothing at all; then each send is remembered by
  // itself, so that a repetition sends what the first try could not.
  if (idempotency) await publisher.claim(idempotency.key, idempotency.fingerprint);
  const slices = new Slices();
  // These tell failures as outcomes and do not reject: nobody would hear that before the last one has begun.
  const sending: Promise<Outcomes>[] = [];
  // In one line, so that they arrive in order, and leave room for what others send.
  const line = publisher.line();
  for (const [nth, { users, payload, id, ttlMs, expectOnline }] of items.entries()) {
    sending.push(publisher.sendToAll(users, payload, {
      id,
      line,
      ...(ttlMs !== undefined && { ttlMs }),
      ...(expectOnline && { expectOnline }),
      ...(idempotency && { idempotency: { ...idempotency, key: `${idempotency.key} ${nth}` } }),
    }));
    await slices.next();
  }
  const outcomes = await Promise.all(sending);
  const results = outcomes.map((one, nth) => resultOf(items[nth]!, one, publisher.counted));
  const all = outcomes.flat();
  /** Whether it is known that nothing was sent. */
  const isRefused = all.every((one) =>
    one.status === "rejected" && (one.reason instanceof UserOfflineError || one.reason.outcome === "refused")
  );
  // Who comes again with the key may say something else.
  if (idempotency && isRefused) await publisher.release(idempotency.key, idempotency.fingerprint);
  if (results.every(({ error }) => error?.code === "broker_unavailable")) {
    const outcome = isRefused ? "refused" : "unknown";
    throw new BrokerUnavailableError(results[0]!.error!.detail, { outcome });
  }
  const isRepeated = outcomes.every((one) => one.some(({ status }) => status === "fulfilled")) &&
    all.every((one) => one.status === "rejected" || one.value.repeated);
  return Response.json({ results }, { headers: isRepeated ? { "idempotent-replayed": "true" } : {} });
}

/** @throws what is neither the broker's failure nor a user who is offline. */
function resultOf({ users, isList, id }: Item, outcomes: Outcomes, counted: "sockets" | "nodes"): Result {
  const sent = outcomes.flatMap((one) => one.status === "fulfilled" ? [one.value] : []);
  const reasons = outcomes.flatMap((one) => one.status === "rejected" ? [one.reason] : []);
  const failed = reasons.find((reason) => !(reason instanceof UserOfflineError));
  if (failed && !(failed instanceof BrokerUnavailableError)) throw failed;
  const counts = outcomes.map((one) => one.status === "fulfilled" ? one.value.nodes ?? one.value.sockets : 0);
  const error = failed
    ? { code: "broker_unavailable", detail: failed.message }
    : sent.length === 0
    ? { code: "user_offline", detail: reasons[0].message }
    : undefined;
  return {
    id: sent[0]?.id ?? id,
    [counted]: counts.reduce((sum, count) => sum + count, 0),
    ...(!isList && { seq: sent[0]?.seq, epoch: sent[0]?.epoch }),
    ...(isList && { users: Object.fromEntries(users.map((user, i) => [user, counts[i]!])) }),
    ...(error && { error }),
  };
}
