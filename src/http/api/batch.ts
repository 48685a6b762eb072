/** `POST /v1/messages`: many messages in one call. All are checked before the first is sent, then they are sent in portions. */
import { createHash } from "node:crypto";
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { BrokerUnavailableError, UserOfflineError } from "../../protocol/errors.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import { assertIdempotencyKey, type ManySendOptions } from "../../publisher/send.ts";
import { assertUnencoded, mediaTypeOf, readJsonText } from "../body.ts";
import { Slices } from "../json_text.ts";
import { EFFECT_ON_FAILURE } from "../problem.ts";
import { BatchItem, type Item, MAX_BATCH_ITEMS, readBatch } from "./batch_items.ts";
import { MAX_LINES, NDJSON } from "./batch_lines.ts";
import { ItemResult, type Outcomes, resultOf } from "./batch_result.ts";
import { authorize, type Call } from "./call.ts";
import { BODY_REFUSALS, no, REFUSALS, SECURITY, SendHeaders, traceparentOf } from "./shapes.ts";

/**
 * Large batches of one API key that are read and sent at one time. The others wait before their bodies are read: eighty of
 * 3.6 MB had taken 1.4 GB of memory, and take half of that so, and less time.
 */
export const MAX_LARGE_BATCHES = 8;
/** In bytes. Smaller ones are many before they take much. */
const LARGE = 256 * 1024;

const Batch = z.strictObject({
  items: z.array(BatchItem).min(1).max(MAX_BATCH_ITEMS),
}).openapi("Batch");

const BatchResult = z.object({ results: z.array(ItemResult) }).openapi("BatchResult");

export const batch: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/messages",
    operationId: "sendMessages",
    security: SECURITY,
    summary: "Send many messages",
    description:
      "All are checked before the first is sent. `Idempotency-Key` is for the whole call: a repetition gets the first " +
      "answer for what was accepted, and sends the rest. A call of which nothing was accepted leaves the key free. " +
      `As \`${NDJSON}\` the body has one item a line, up to ${MAX_LINES}, and the answer one result a line in the same ` +
      "order. Each line is sent when it is read, and stands for itself: one that is wrong has an `error` in its place.",
    request: {
      headers: SendHeaders,
      body: {
        required: true,
        content: { "application/json": { schema: Batch }, [NDJSON]: { schema: { type: "string" } } },
      },
    },
    responses: {
      422: no("The idempotency key was used for another call"),
      200: {
        description: "One result per item, in order",
        content: { "application/json": { schema: BatchResult }, [NDJSON]: { schema: ItemResult } },
      },
      ...BODY_REFUSALS,
      ...REFUSALS,
    },
  }),
  effect: EFFECT_ON_FAILURE.send,
  async answer(c, api) {
    const caller = authorize(c, api, "send");
    const key = c.req.raw.headers.get("idempotency-key");
    if (key !== null) assertIdempotencyKey(key);
    if (mediaTypeOf(c.req.raw.headers.get("content-type")) === NDJSON) {
      assertUnencoded(c.req.raw);
      return api.lines.answer(c.req.raw, api, caller, key);
    }
    const send = async () => {
      const body = await readJsonText(c.req.raw, api.bodies.bulk);
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
        traceparentOf(c.req.raw),
      );
    };
    const length = c.req.raw.headers.get("content-length");
    const isLarge = length === null || Number(length) > LARGE;
    return await (isLarge ? api.largeBatches.run(caller.name, send) : send());
  },
};

/**
 * @param idempotency Under which the call may be repeated, and what tells it from others.
 * @param trace The span that it is a part of, for the options of each send.
 * @throws {IdempotencyConflictError | BrokerUnavailableError} also when every item failed by the broker.
 */
async function sendBatch(
  publisher: Publisher,
  items: readonly Item[],
  idempotency: ManySendOptions["idempotency"],
  trace: Pick<ManySendOptions, "traceparent">,
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
      ...trace,
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
