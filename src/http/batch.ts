/** Many messages in one request: all are checked before the first is sent, then they are sent in portions. */
import { Buffer } from "node:buffer";
import type { z } from "@hono/zod-openapi";
import { BrokerUnavailableError } from "../errors.ts";
import type { Publisher, SendResult } from "../publisher.ts";
import { FATE, problem, problemOf } from "./problem.ts";
import { type Batch, type BatchResult, MAX_BATCH_RECIPIENTS } from "./schemas.ts";

type Result = z.infer<typeof BatchResult>["results"][number];

export async function sendBatch(
  publisher: Publisher,
  batch: z.infer<typeof Batch>,
  options: { maxDataBytes: number; maxFanoutBytes: number },
): Promise<Response> {
  const items: { users: string[]; isList: boolean; text: string; id: string }[] = [];
  let recipients = 0;
  let fanoutBytes = 0;
  for (const [i, { to, data, id }] of batch.items.entries()) {
    // Whoever is named twice is meant once.
    const users = typeof to === "string" ? [to] : [...new Set(to)];
    for (const user of users) {
      try {
        publisher.channel(user);
      } catch (error) {
        return problem("invalid_username", `items[${i}].to: ${(error as Error).message}`);
      }
    }
    recipients += users.length;
    const text = JSON.stringify(data);
    const dataBytes = Buffer.byteLength(text);
    fanoutBytes += dataBytes * users.length;
    if (dataBytes > options.maxDataBytes) {
      return problem(
        "too_large",
        `items[${i}].data: a payload must have at most ${options.maxDataBytes} bytes`,
      );
    }
    items.push({ users, isList: typeof to !== "string", text, id: id ?? crypto.randomUUID() });
  }
  if (recipients > MAX_BATCH_RECIPIENTS) {
    return problem(
      "too_large",
      `A batch may reach at most ${MAX_BATCH_RECIPIENTS} users: this one names ${recipients}`,
    );
  }
  if (fanoutBytes > options.maxFanoutBytes) {
    return problem(
      "too_large",
      `A batch may send at most ${options.maxFanoutBytes} bytes, each payload counted once for each of its users: ` +
        `this one has ${fanoutBytes}. Send it in several, or raise USERWIRE_MAX_FANOUT_BYTES`,
    );
  }

  /** Whether it is known that nothing was sent. */
  let isRefused = true;
  // In one line, so that they arrive in order, and leave room for what others send.
  const line = publisher.line();
  const sends = await Promise.all(items.map(async ({ users, isList, text, id }): Promise<Result> => {
    const outcomes = await publisher.sendToAll(users, { kind: "json", text }, { id, line });
    const counts = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? outcome.value.nodes ?? outcome.value.sockets : 0
    );
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed && !(failed.reason instanceof BrokerUnavailableError)) throw failed.reason;
    isRefused &&= outcomes.every((outcome) =>
      outcome.status === "rejected" && outcome.reason.outcome === "refused"
    );
    return {
      id,
      [publisher.counted]: counts.reduce((sum, count) => sum + count, 0),
      ...(!isList && outcomes[0]!.status === "fulfilled" && placeOf(outcomes[0]!.value)),
      ...(isList && { users: Object.fromEntries(users.map((user, i) => [user, counts[i]!])) }),
      ...(failed && { error: { code: "broker_unavailable", detail: failed.reason.message } }),
    };
  }));
  if (sends.every((send) => send.error)) {
    const error = new BrokerUnavailableError(sends[0]!.error!.detail, {
      outcome: isRefused ? "refused" : "unknown",
    });
    return problemOf(error, FATE.send)!;
  }
  return Response.json({ results: sends });
}

function placeOf({ seq, epoch }: SendResult) {
  return seq === undefined || epoch === undefined ? {} : { seq, epoch };
}
