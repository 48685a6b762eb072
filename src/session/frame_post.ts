/**
 * The way of a client's frame to its connection, for a client whose connection carries nothing upwards: it is given to
 * any node, and comes to the one that holds the connection on the user's channel. What a frame asks for is answered on
 * the connection itself.
 */
import type { Broker } from "../broker/broker.ts";
import { formatFrameOrder } from "../protocol/envelope.ts";
import { channelOf } from "../protocol/username.ts";
import type { Receipts } from "../publisher/receipts.ts";
import type { Registry } from "./registry.ts";

export interface FramePostParts {
  readonly registry: Pick<Registry, "find">;
  readonly broker: Pick<Broker, "publish" | "kind">;
  readonly receipts: Pick<Receipts, "wait">;
  readonly channelPrefix: string;
}

/** How long another node may take to say that it has the frame, in milliseconds. */
const TAKEN_WITHIN_MS = 2_000;

/**
 * Gives a frame to a connection of a user.
 * @param conn Id of the connection: one of another user is none of this one.
 * @returns Whether it was taken; where not, no such connection is live, or its node did not answer in time.
 * @throws {BrokerUnavailableError}
 */
export async function postFrame(
  { registry, broker, receipts, channelPrefix }: FramePostParts,
  { username, conn, frame }: { username: string; conn: string; frame: string },
): Promise<boolean> {
  const session = registry.find(username, conn);
  if (session?.frame) {
    session.frame(frame);
    return true;
  }
  // In memory there is no other node.
  if (broker.kind === "memory") return false;
  using wait = await receipts.wait();
  const order = formatFrameOrder({ conn, frame, receipt: wait.receipt });
  const heard = await broker.publish(channelOf(username, channelPrefix), order, { onlyIfHeard: true });
  return heard > 0 && await wait.taken(TAKEN_WITHIN_MS);
}
