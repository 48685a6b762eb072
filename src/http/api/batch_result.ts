/** What became of an item of a batch, and how that is said. */
import { z } from "@hono/zod-openapi";
import { BrokerUnavailableError, UserOfflineError } from "../../protocol/errors.ts";
import type { SendResult } from "../../publisher/send.ts";
import type { Item } from "./batch_items.ts";
import { epoch, id, nodes, seq, sockets } from "./shapes.ts";

const Failure = z.object({ code: z.string(), detail: z.string() });

export const ItemResult = z.object({
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
}).openapi("ItemResult");

type Result = z.infer<typeof ItemResult>;

export type Outcomes = readonly PromiseSettledResult<SendResult>[];

/** @throws what is neither the broker's failure nor a user who is offline. */
export function resultOf(
  { users, isList, id }: Item,
  outcomes: Outcomes,
  counted: "sockets" | "nodes",
): Result {
  const [first] = outcomes;
  // Most items are for one user, and most are sent.
  if (!isList && first?.status === "fulfilled") {
    const { id, nodes, sockets, seq, epoch } = first.value;
    return { id, [counted]: nodes ?? sockets, seq, epoch };
  }
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
