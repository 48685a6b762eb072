/**
 * The last step of a delivery: gives one client its messages through the transport, counts them, and knows which of
 * them have a sender that waits for a receipt. In which order and whether at all is decided above, in `Replay` and
 * `BestEffort`.
 */
import { Buffer } from "node:buffer";
import { messageOf } from "../protocol/errors.ts";
import {
  frameOf,
  idOf,
  isEnvelope,
  partsOfReceipt,
  payloadOf,
  receiptOf,
  replayFrameOf,
  seqOf,
  traceParentIn,
  wrapForeign,
} from "../protocol/envelope.ts";
import { type BroadcastGapFrame, formatFrame, type GapFrame, type ServerFrame } from "../protocol/frames.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { ConnectionState } from "../publisher/connection_state.ts";
import type { BroadcastMessage } from "./broadcast_ring.ts";
import type { SessionContext } from "./context.ts";
import type { ReplayOutput } from "./replay.ts";
import type { Transport } from "./transport.ts";

/** Whose messages they are. */
export interface OutputOwner {
  readonly id: string;
  readonly username: string;
  /** The client takes no more now. */
  onFull(): void;
}

/** Receipts that wait for a client to acknowledge; one that never does must not fill the memory. */
const MAX_RECEIPTS = 1_000;

export class Output implements ReplayOutput {
  readonly #owner: OutputOwner;
  readonly #transport: Transport;
  readonly #context: SessionContext;
  readonly #metrics: Metrics;
  /** Messages that were written, and their bytes. */
  messages = 0;
  bytes = 0;
  /** Messages that were left out and that the client can't be told of. */
  missed = 0;
  #silentTicks = 0;
  /** To be confirmed when the client acknowledges; undefined while there are none. */
  #receipts: { seq: number; receipt: string }[] | undefined;

  constructor(owner: OutputOwner, transport: Transport, context: SessionContext) {
    this.#owner = owner;
    this.#transport = transport;
    this.#context = context;
    this.#metrics = context.metrics;
  }

  deliver(envelope: string, byteLength: number | undefined): boolean {
    const isReplayed = byteLength === undefined;
    const frame = isReplayed ? replayFrameOf(envelope) : frameOf(envelope);
    if (!this.#write(frame, byteLength ?? Buffer.byteLength(envelope))) {
      this.#owner.onFull();
      return false;
    }
    this.#silentTicks = 0;
    this.#trace(envelope, isReplayed);
    if (isReplayed) this.#metrics.replayed++;
    const receipt = receiptOf(envelope);
    if (receipt !== undefined) {
      this.#receipts ??= [];
      if (this.#receipts.push({ seq: seqOf(envelope), receipt }) > MAX_RECEIPTS) this.#receipts.shift();
    }
    return true;
  }

  /** Writes a message that has no place in the history, or whose client does not care; false when the client takes no more now. */
  pass(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): boolean {
    const { isFramed } = this.#transport;
    const frame = typeof payload === "string" && isEnvelope(payload)
      ? isFramed ? frameOf(payload) : payloadOf(payload)
      : isFramed
      ? wrapForeign(payload, Date.now())
      : payload;
    if (!this.#write(frame, byteLength)) return false;
    this.#trace(payload, false);
    this.#silentTicks = 0;
    return true;
  }

  /**
   * Writes a broadcast; false when the client takes no more now. It is no sign of life of the user's own channel, whose
   * position is still compared when nothing comes there.
   */
  broadcast(message: BroadcastMessage, isReplayed: boolean): boolean {
    const frame = !this.#transport.isFramed
      ? message.payload
      : isReplayed
      ? message.replayFrame
      : message.frame;
    if (this.#write(frame, message.byteLength)) return true;
    this.#owner.onFull();
    return false;
  }

  /** Writes a frame that is no message, however much waits. */
  send(frame: ServerFrame): void {
    this.#transport.send(formatFrame(frame));
  }

  gap(frame: GapFrame | BroadcastGapFrame): void {
    if (!this.#transport.isFramed) return this.miss(frame.count ?? 0);
    const { from, to, why: reason } = frame;
    this.#metrics.gaps[reason]++;
    this.#metrics.missed += frame.count ?? 0;
    this.#context.log.info("gap", {
      ...this.#who,
      from,
      to,
      reason,
      broadcasts: frame.t === "bgap" || undefined,
    });
    this.send(frame);
  }

  miss(count: number): void {
    this.missed += count;
    this.#metrics.missed += count;
  }

  onForeign(): void {
    this.#context.onForeign(this.#owner.username);
  }

  onReadFailed(error: unknown): void {
    this.#context.log.debug("history not readable", { ...this.#who, reason: messageOf(error) });
  }

  /** A message whose sender waits for receipts has arrived. Once for each, before it is known when it is delivered. */
  onHanded(receipt: string): void {
    const { receipts, log } = this.#context;
    const { waiter } = partsOfReceipt(receipt);
    if (waiter === undefined) return;
    // A sender that is not told waits until its time is over.
    receipts.handed(waiter, this.#owner.username).catch((error: unknown) => {
      log.warn("number of sockets not reported to the sender", { reason: messageOf(error) });
    });
  }

  /** A frame of the client has arrived that another node was given. */
  onTaken(receipt: string): void {
    this.#confirm(receipt);
  }

  /** Somebody asked what this connection is. */
  onAsked(asker: string, state: ConnectionState): void {
    this.#context.receipts.present(asker, state).catch((error: unknown) =>
      this.#context.log.warn("connection not reported", { conn: this.#owner.id, reason: messageOf(error) })
    );
  }

  /** The client has every message up to this number. */
  acknowledge(seq: number): void {
    this.#receipts = this.#receipts?.filter((entry) => {
      if (entry.seq > seq) return true;
      this.#confirm(entry.receipt);
      return false;
    });
  }

  /** Called once a second: whether no message was written in so many of them; then counts anew. */
  wasSilent(seconds: number): boolean {
    if (++this.#silentTicks < seconds) return false;
    this.#silentTicks = 0;
    return true;
  }

  /** Lets go of what was kept for the client. */
  stop(): void {
    this.#receipts = undefined;
  }

  get #who(): { conn: string; user: string } {
    return { conn: this.#owner.id, user: this.#owner.username };
  }

  #confirm(receipt: string): void {
    const { receipts, unacked, log } = this.#context;
    const { waiter, token } = partsOfReceipt(receipt);
    if (token !== undefined) void unacked?.unwatch(token, [this.#owner.username]);
    if (waiter === undefined) return;
    // Who is not told waits until its time is over.
    receipts.confirm(waiter, this.#owner.id).catch((error: unknown) =>
      log.warn("receipt not confirmed", { conn: this.#owner.id, reason: messageOf(error) })
    );
  }

  /** Says which message was written, where somebody listens. Its id leads to the line of the send. */
  #trace(payload: string | Uint8Array<ArrayBuffer>, isReplayed: boolean): void {
    const { log, spans } = this.#context;
    spans?.delivered(payload, {
      "userwire.user": this.#owner.username,
      "userwire.conn": this.#owner.id,
      "userwire.replayed": isReplayed,
    });
    if (log.level !== "debug") return;
    const ours = typeof payload === "string" && isEnvelope(payload) ? payload : undefined;
    log.debug("message delivered", {
      ...this.#who,
      id: ours && idOf(ours),
      seq: ours && (seqOf(ours) || undefined),
      replayed: isReplayed || undefined,
      traceparent: ours && traceParentIn(ours),
    });
  }

  #write(frame: string | Uint8Array<ArrayBuffer>, byteLength: number): boolean {
    if (!this.#transport.write(frame)) return false;
    this.messages++;
    this.bytes += byteLength;
    this.#metrics.delivered++;
    this.#metrics.deliveredBytes += byteLength;
    return true;
  }
}
