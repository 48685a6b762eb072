/**
 * Broadcasts as this node has them: messages to everybody who is connected. They come on one channel of their own, which
 * every node subscribes to once, and have a history of their own, as a user's messages do. So one `Replay` puts them in
 * order for the whole node and finds what is missing; what it delivers goes into a ring, from which each connection reads
 * at its own pace (`broadcast_reader.ts`).
 *
 * All connections are served in slices, in passes: a pass comes to each connection once, and gives it all that the ring has
 * for it by then. What comes meanwhile is seen to by the next pass. When a pass is over, the senders of what was there when
 * it began are told how many connections got it.
 */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import { ticker } from "../async/ticker.ts";
import type { Broker, Subscriber, Subscription } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { Spans } from "../metrics/spans.ts";
import { isEnvelope, isOrder, receiptOf, seqOf, tagIn } from "../protocol/envelope.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { GapFrame } from "../protocol/frames.ts";
import type { Position } from "../protocol/position.ts";
import { broadcastChannelOf } from "../protocol/username.ts";
import type { Receipts } from "../publisher/receipts.ts";
import type { BroadcastPlace } from "./broadcast_reader.ts";
import { type BroadcastMessage, BroadcastRing } from "./broadcast_ring.ts";
import { BroadcastSenders } from "./broadcast_senders.ts";
import { holds, placeIn } from "./place.ts";
import type { Registry } from "./registry.ts";
import { Replay, type ReplayOutput } from "./replay.ts";

export interface BroadcastsParts {
  readonly broker: Pick<Broker, "subscribe">;
  readonly history: History;
  readonly registry: Pick<Registry, "hear">;
  readonly receipts: Pick<Receipts, "report">;
  readonly metrics: Pick<Metrics, "broadcasts">;
  readonly log: Log;
  readonly spans?: Pick<Spans, "delivered"> | undefined;
  readonly channelPrefix: string;
  /** Messages that are replayed to a client at most. */
  readonly maxReplay: number;
  /** Seconds of silence after which the position is compared with the history. */
  readonly pingS: number;
  /** On the channel came a message with a number that is not of this installation's history. */
  onForeign(channel: string): void;
}

/** Messages that the ring keeps at most, and their bytes. */
const MAX_ENTRIES = 100;
const MAX_BYTES = 8 * 1024 * 1024;
const TICK_MS = 1_000;
const BACKOFF = { baseMs: 50, maxMs: 1_000 };

const NOT_YET = "The node has not subscribed to broadcasts yet";
const CANT = "The node can't subscribe to broadcasts: ";
const LOST = "The node's subscription to broadcasts is lost: they come when it is restored";

export class Broadcasts implements Subscriber, ReplayOutput {
  readonly channel: string;
  readonly ring: BroadcastRing;
  readonly #parts: BroadcastsParts;
  readonly #entries: number;
  /** None while no history is kept: then broadcasts have no numbers. */
  readonly #replay: Replay | undefined;
  #state: "opening" | "open" | "closed" = "opening";
  #isLost = false;
  /** Why the last attempt to subscribe failed. */
  #reason: string | undefined;
  #subscription: Subscription | undefined;
  #opening: Promise<void> | undefined;
  readonly #closing = new AbortController();
  #stopTicking: (() => void) | undefined;
  #silentTicks = 0;
  #isServing = false;
  /** All connections have been given what is before this index. */
  #served = 0;
  readonly #senders: BroadcastSenders;

  /** @param parts Stay the caller's to close. */
  constructor(parts: BroadcastsParts) {
    const { history, channelPrefix, maxReplay } = parts;
    const { count, ttlMs } = history.limits;
    this.#parts = parts;
    this.channel = broadcastChannelOf(channelPrefix);
    this.#senders = new BroadcastSenders(parts);
    this.#entries = Math.min(MAX_ENTRIES, maxReplay, count || Infinity);
    this.ring = new BroadcastRing({ entries: this.#entries, bytes: MAX_BYTES, ttlMs });
    if (count === 0) return;
    this.#replay = new Replay(history, this, { channel: this.channel, maxReplay: this.#entries });
  }

  /** Why nobody can be served, as a sentence without a full stop; undefined once the node has subscribed. */
  unready(): string | undefined {
    if (this.#state === "open") return undefined;
    return this.#reason === undefined ? NOT_YET : CANT + this.#reason;
  }

  /**
   * What is wrong while users can be served all the same: sentences without a full stop. On a cluster the master of this one
   * channel may be away, and others not; nobody misses anything by that.
   */
  faults(): string[] {
    return this.#state === "open" && this.#isLost ? [LOST] : [];
  }

  /** Subscribes; tries again, in the background, until that has succeeded. Resolves after the first attempt. */
  async start(): Promise<void> {
    if (!await this.#attempt()) void this.#insist();
  }

  /**
   * Where a client begins that gets broadcasts from now on.
   * @param wanted Where it stands, if it says so.
   * @throws {BrokerUnavailableError} when the node has not subscribed, and can't just now.
   */
  async placeOf(wanted: Position | undefined): Promise<BroadcastPlace> {
    if (this.#state !== "open") await this.#open();
    const { ring } = this;
    // Without numbers there is nothing to go on from.
    if (!wanted || !this.#replay) return { position: ring.position };
    if (ring.find(wanted) !== undefined) return { position: wanted };
    // Perhaps this node has not heard yet what another one has: both learn it from the history.
    this.#replay.verify();
    const page = await this.#parts.history.since(this.channel, wanted.seq, 1, {
      proof: wanted.tag !== undefined,
    });
    if (holds(page, wanted)) return { position: wanted };
    return { position: { epoch: page.epoch, seq: placeIn(page, wanted) }, instead: wanted };
  }

  /** Compares with the history, and hands out or announces what is missing. */
  verify(): void {
    if (this.#state === "open") this.#replay?.verify();
  }

  async close(): Promise<void> {
    this.#state = "closed";
    this.#stopTicking?.();
    this.#closing.abort();
    this.#replay?.stop();
    await this.#opening?.catch(() => {});
    await this.#subscription?.close();
  }

  // ------------------------------------------------------------------------------------------------------
  // From the broker

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (typeof payload === "string" && isEnvelope(payload)) {
      // Nobody gives such orders here.
      if (isOrder(payload)) return;
      this.#senders.count(receiptOf(payload));
      const seq = seqOf(payload);
      if (seq > 0 && this.#replay) return this.#replay.live(seq, payload, byteLength);
    }
    this.#handOut(this.ring.pushUnnumbered(payload, byteLength));
  }

  lost(reason: string): void {
    this.#isLost = true;
    this.#parts.log.debug("broadcasts lost", { channel: this.channel, reason });
  }

  restored(): void {
    this.#isLost = false;
    this.#replay?.verify();
    this.#parts.log.debug("broadcasts restored", { channel: this.channel });
  }

  // ------------------------------------------------------------------------------------------------------
  // From the replay

  deliver(envelope: string, byteLength: number | undefined): boolean {
    const position = { epoch: this.#replay!.position.epoch, seq: seqOf(envelope), tag: tagIn(envelope) };
    this.#handOut(this.ring.push(position, envelope, byteLength, byteLength === undefined));
    return true;
  }

  gap({ why }: GapFrame): void {
    const { position } = this.#replay!;
    if (why === "epoch") this.ring.beginEpoch(position);
    else this.ring.skipTo(position);
    void this.#serve();
  }

  onForeign(): void {
    this.#parts.onForeign(this.channel);
  }

  onReadFailed(error: unknown): void {
    this.#parts.log.debug("history not readable", { channel: this.channel, reason: messageOf(error) });
  }

  // ------------------------------------------------------------------------------------------------------
  // To the connections

  #handOut(message: BroadcastMessage): void {
    this.#silentTicks = 0;
    this.#parts.metrics.broadcasts++;
    // One for all connections of this node.
    this.#parts.spans?.delivered(message.source, { "userwire.broadcast": true });
    this.#senders.handedOut(this.ring.end - 1, message);
    void this.#serve();
  }

  async #serve(): Promise<void> {
    if (this.#isServing) return;
    this.#isServing = true;
    const { registry, log } = this.#parts;
    const onError = (error: unknown) =>
      log.error("subscriber failed", { channel: this.channel, reason: messageOf(error) });
    while (this.#served < this.ring.end) {
      const end = this.ring.end;
      await registry.hear(onError);
      this.#served = end;
      this.#senders.tell(end);
    }
    this.#isServing = false;
  }

  // ------------------------------------------------------------------------------------------------------
  // The subscription

  #open(): Promise<void> {
    if (this.#state === "closed") return Promise.reject(new BrokerUnavailableError("The node is closed"));
    return this.#opening ??= this.#subscribe().finally(() => this.#opening = undefined);
  }

  async #subscribe(): Promise<void> {
    const { broker } = this.#parts;
    this.#isLost = false;
    const subscription = await broker.subscribe(this.channel, this);
    try {
      await this.#fill();
    } catch (error) {
      void subscription.close();
      throw error;
    }
    this.#subscription = subscription;
    if (this.#state === "closed") return;
    this.#state = "open";
    this.#stopTicking = ticker.every(TICK_MS, () => this.#tick());
    this.#replay?.run();
  }

  /** Takes from the history what a node that was there would have in its ring. */
  async #fill(): Promise<void> {
    const replay = this.#replay;
    if (!replay) return;
    const { history } = this.#parts;
    const { last, epoch } = await history.since(this.channel, undefined, 0);
    const from = Math.max(0, last - this.#entries);
    let page = await history.since(this.channel, from, this.#entries);
    const items = [...page.items];
    while (page.upTo < page.last) {
      page = await history.since(this.channel, page.upTo, this.#entries);
      items.push(...page.items);
    }
    if (page.epoch !== epoch) throw new BrokerUnavailableError("Redis has other data than a moment ago");
    await replay.load({ epoch, seq: page.last, tag: page.lastTag || undefined });
    this.ring.begin({ epoch, seq: from });
    for (const { seq, envelope } of items) {
      this.ring.push({ epoch, seq, tag: tagIn(envelope) }, envelope, undefined, true);
    }
    if (page.last > this.ring.position.seq) this.ring.skipTo({ epoch, seq: page.last, tag: page.lastTag });
    this.#served = this.ring.end;
    replay.greeting();
  }

  /** Whether it is subscribed. */
  async #attempt(): Promise<boolean> {
    try {
      await this.#open();
      return true;
    } catch (error) {
      this.#reason = messageOf(error);
      this.#parts.log.debug("broadcasts not subscribed", { channel: this.channel, reason: this.#reason });
      return false;
    }
  }

  async #insist(): Promise<void> {
    for (let failures = 0; this.#state === "opening"; failures++) {
      await sleep(backoffMs(failures, BACKOFF), this.#closing.signal);
      if (this.#state === "opening" && await this.#attempt()) return;
    }
  }

  #tick(): void {
    if (this.#replay?.hasFailed) this.#replay.resume();
    // A message may have been lost with none after it to show the hole.
    if (++this.#silentTicks < this.#parts.pingS) return;
    this.#silentTicks = 0;
    this.verify();
  }
}
