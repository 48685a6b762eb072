/**
 * A message to everybody who is connected: how it is put on its way, and what its sender learns of it. It has a channel and
 * a history of its own, so it is sent as a user's message is; the broker's count is that of the nodes, and each node then
 * says to how many sockets it handed the message.
 */
import { broadcastChannelOf } from "../protocol/username.ts";
import type { Appender } from "./appender.ts";
import { payloadFrom, type Sendable } from "./payload.ts";
import type { Receipts } from "./receipts.ts";
import { checkedId, idempotencyOf, outgoingMessage, type SendOptions } from "./send.ts";

export interface BroadcastOptions
  extends Pick<SendOptions, "id" | "ttlMs" | "idempotencyKey" | "traceparent"> {
  /** How long to wait for the nodes to say their numbers, in milliseconds. @default 2000 */
  timeoutMs?: number;
}

/** What became of a broadcast. */
export interface BroadcastResult {
  /** Id of the message, the same that clients see in its `b` frame. */
  id: string;
  /** Its number among the broadcasts; missing when no history is kept. */
  seq?: number;
  epoch?: string;
  /** How many nodes it was handed to, counted in the same step as it was sent. */
  nodes: number;
  /** How many sockets these handed it to, or keep it for; missing while one has not said so, and of a repetition. */
  sockets?: number;
  /** How many nodes have said their number in time, when it is not all of them. */
  heard?: number;
  /** This is the result of an earlier broadcast with the same idempotency key; nothing was sent now. */
  repeated?: true;
}

const DEFAULT_TIMEOUT_MS = 2_000;

/** @throws as `Publisher.broadcast`. */
export async function broadcast(
  { appender, receipts, channelPrefix }: { appender: Appender; receipts: Receipts; channelPrefix: string },
  message: Sendable,
  options: BroadcastOptions,
): Promise<BroadcastResult> {
  const { ttlMs, idempotencyKey, traceparent, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const { payload, id, idempotency } = appender.checked(() => {
    const payload = payloadFrom(message);
    return {
      payload,
      id: checkedId(options.id),
      idempotency: idempotencyKey === undefined ? undefined : idempotencyOf(idempotencyKey, payload),
    };
  });
  using wait = await receipts.wait();
  const { sockets, nodes = sockets!, ...result } = await appender.append(
    broadcastChannelOf(channelPrefix),
    outgoingMessage(payload, id, { receipt: wait.receipt, ttlMs, traceparent }),
    { ...(ttlMs !== undefined && { ttlMs }), ...(idempotency && { idempotency }) },
  );
  if (result.repeated) return { ...result, nodes };
  return { ...result, nodes, ...await wait.handed(nodes, timeoutMs) };
}
