/** The senders of broadcasts who counted this node, and are told how many of its connections got their message. */
import type { Log } from "../log/log.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Receipts } from "../publisher/receipts.ts";
import type { BroadcastMessage } from "./broadcast_ring.ts";

/** Whose message is not handed out yet; one that never is must not fill the memory. */
const MAX_COUNTED = 1_000;

export class BroadcastSenders {
  readonly #receipts: Pick<Receipts, "report">;
  readonly #log: Log;
  /** Receipts of what came on the channel: there the node was counted, however the message then comes to be handed out. */
  readonly #counted = new Set<string>();
  /** Messages whose senders are still to be told, and their indexes. */
  readonly #due: { index: number; message: BroadcastMessage }[] = [];

  constructor({ receipts, log }: { receipts: Pick<Receipts, "report">; log: Log }) {
    this.#receipts = receipts;
    this.#log = log;
  }

  /** A message came on the channel. @param receipt Where its sender waits, if it does. */
  count(receipt: string | undefined): void {
    if (receipt === undefined) return;
    if (this.#counted.size >= MAX_COUNTED) this.#counted.delete(this.#counted.values().next().value!);
    this.#counted.add(receipt);
  }

  /** A message has its place among those that all connections are given. */
  handedOut(index: number, message: BroadcastMessage): void {
    const { receipt } = message;
    if (receipt !== undefined && this.#counted.delete(receipt)) this.#due.push({ index, message });
  }

  /** All connections have been given what is before this index. */
  tell(served: number): void {
    while (this.#due.length > 0 && this.#due[0]!.index < served) {
      const { receipt, handed } = this.#due.shift()!.message;
      // A sender that is not told says that a node did not answer.
      this.#receipts.report(receipt!, handed).catch((error: unknown) => {
        this.#log.warn("number of sockets not reported to the sender", { reason: messageOf(error) });
      });
    }
  }
}
