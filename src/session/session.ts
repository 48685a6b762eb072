/**
 * One client session from open to closed. It owns a transport and a subscription and frees both on one path, whatever
 * ends the session. Who the client is and how long that holds is kept in its `CredentialWatch`, what it may send in its
 * `InboundQuota`; what it has had of the history and gets next in its `Replay`; messages beside that in `BestEffort`, and
 * how far it has come in the broadcasts in its `BroadcastReader`.
 *
 * Nothing in this room knows HTTP, Redis, or who sent a message and why; nothing but the transport knows a socket. A
 * session has no timer of its own: the heartbeat calls `tick()` once a second.
 *
 *     opening ──▶ live ──▶ closing ──▶ closed
 *        └───────────────────▲
 *
 * *opening*: the subscription is being confirmed or the transport is not open yet; messages queue. *live*: messages go
 * to the transport; those of a framed client through its replay, which may be reading or full for a while. *closing*:
 * everything is freed but the transport, which has been asked to close. *closed*: it is gone too. Deno can't terminate a
 * socket whose peer does not answer, so nothing ever waits for *closed* without a deadline.
 */
import type { Identity } from "../auth/auth.ts";
import type { Broker, Subscriber, Subscription } from "../broker/broker.ts";
import { Link } from "../async/chain.ts";
import type { History } from "../history/history.ts";
import {
  type AskOrder,
  CLOSE,
  type CloseOrder,
  type CloseReason,
  type FrameOrder,
} from "../protocol/close_codes.ts";
import { isEnvelope, isOrder, orderOf, receiptOf, seqOf } from "../protocol/envelope.ts";
import { InvalidFrameError, messageOf } from "../protocol/errors.ts";
import {
  parseClientFrame,
  PING_FRAME,
  PROTOCOL_VERSION,
  type ReadRequest,
  type ReplyFrame,
} from "../protocol/frames.ts";
import type { Position } from "../protocol/position.ts";
import { BestEffort, type BestEffortOwner } from "./best_effort.ts";
import { type BroadcastPlace, BroadcastReader } from "./broadcast_reader.ts";
import type { BroadcastRing } from "./broadcast_ring.ts";
import { openState, stateOf } from "./connection_state.ts";
import type { SessionContext } from "./context.ts";
import { CredentialWatch, type WatchedSession } from "./credential_watch.ts";
import { InboundQuota } from "./inbound_quota.ts";
import { Output, type OutputOwner } from "./output.ts";
import type { Member } from "./registry.ts";
import { Replay, type ReplayOptions } from "./replay.ts";
import { RequestLine, type RequestLineOwner } from "./request_line.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

/**
 * A client that reads, but too slowly for what comes, is closed after so many times the seconds without progress: an
 * order to close must not lie behind its messages for ever. With the default that is the minute of patience that Redis
 * has as it ships.
 */
const MAX_PAUSE_TIMEOUTS = 6;

/** When the client of a transport that has lasted long enough comes back, about, in milliseconds. */
const OUTLIVED_RETRY_MS = 300;

/** While the subscription is not read, revocations are asked for each time so many ticks have passed. */
const PAUSED_RECHECK_TICKS = 5;

interface SessionOptions {
  /** Where the history of the user is read, for a client that gets each message once and in order. */
  readonly replay?: ReplayOptions & { history: History } | undefined;
  /** After how many seconds of silence a framed client gets `p`. @default `limits.pingS` */
  readonly pingS?: number | undefined;
}

export class Session extends Link<Member>
  implements
    Member,
    Subscriber,
    TransportEvents,
    WatchedSession,
    OutputOwner,
    BestEffortOwner,
    RequestLineOwner {
  readonly id: string = crypto.randomUUID();
  readonly username: string;
  addressKey: string | undefined = undefined;
  readonly #transport: Transport;
  readonly #context: SessionContext;
  readonly #credential: CredentialWatch;
  readonly #quota: InboundQuota;
  readonly #output: Output;
  readonly #bestEffort: BestEffort;
  readonly #replay: Replay | undefined;
  readonly #pingS: number;
  #broadcasts: BroadcastReader | undefined;
  #requests: RequestLine | undefined;
  #state: "opening" | "live" | "closing" | "closed" = "opening";
  #subscription: Subscription | undefined;
  #openedMs = 0;
  #interruptions = 0;
  #ignoredFrames = 0;

  constructor(
    transport: Transport,
    identity: Identity,
    context: SessionContext,
    { replay, pingS = context.limits.pingS }: SessionOptions = {},
  ) {
    super();
    this.username = identity.username;
    this.#transport = transport;
    this.#context = context;
    this.#credential = new CredentialWatch(this, identity, context);
    this.#quota = new InboundQuota(context.limits);
    this.#output = new Output(this, transport, context);
    this.#bestEffort = new BestEffort(this, this.#output, context.limits.maxBufferedBytes);
    this.#replay = replay && new Replay(replay.history, this.#output, replay);
    this.#pingS = pingS;
    transport.events = this;
  }

  get state(): "opening" | "live" | "closing" | "closed" {
    return this.#state;
  }

  /**
   * Subscribes to the user's channel and reads where the client stands: before or after, as `Replay.load` says. What
   * comes from then on waits for `goLive`.
   * @param options.resume The position to resume from, if any.
   * @param options.signal Aborts; the promise then rejects with the signal's reason.
   * @throws {BrokerUnavailableError}
   */
  async subscribe(
    broker: Pick<Broker, "subscribe">,
    channel: string,
    { resume, signal }: { resume?: Position | undefined; signal?: AbortSignal | undefined },
  ): Promise<void> {
    if (!resume) await this.#replay?.load(undefined);
    const subscription = await broker.subscribe(channel, this, signal ? { signal } : {});
    this.#subscription = subscription;
    if (this.#hasEnded) void subscription.close();
    if (resume) await this.#replay?.load(resume);
  }

  /** Gets broadcasts from there on; what comes from now on waits for `goLive`. */
  listenTo(ring: BroadcastRing, place: BroadcastPlace): void {
    if (!this.#hasEnded) this.#broadcasts = new BroadcastReader(ring, this.#output, place);
  }

  /** Says hello and sends what has waited. Call it when the client may come in and its transport is open. */
  goLive(): void {
    if (this.#state !== "opening" || this.#transport.state !== "open") return;
    this.#state = "live";
    this.#openedMs = performance.now();
    const { log, limits, metrics, node } = this.#context;
    const { mode } = this.#transport;
    metrics.onOpen(mode);
    this.#context.presence?.opened(this.username);
    log.info("connection opened", { conn: this.id, user: this.username, mode });
    if (this.#transport.isFramed) {
      const { exp } = this.#credential;
      this.#output.send({
        t: "hi",
        v: PROTOCOL_VERSION,
        conn: this.id,
        user: this.username,
        node,
        ...(this.#replay?.greeting() ?? { resumed: false, replay: 0 }),
        ...this.#broadcasts?.greeting(),
        ping: this.#pingS,
        max: limits.maxFrameBytes,
        ...(exp !== undefined && { exp }),
        ...(this.#context.requests && { req: 1 }),
      });
    }
    this.#replay?.run();
    this.#bestEffort.start(this.#replay ? undefined : this.#subscription);
    this.#broadcasts?.run();
  }

  // ------------------------------------------------------------------------------------------------------
  // From the broker

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (this.#hasEnded) return;
    let seq = 0;
    if (typeof payload === "string" && isEnvelope(payload)) {
      if (isOrder(payload)) return this.#obey(orderOf(payload));
      const receipt = receiptOf(payload);
      if (receipt !== undefined) this.#output.onHanded(receipt);
      seq = seqOf(payload);
      if (seq > 0 && this.#replay) return this.#replay.live(seq, payload, byteLength);
    }
    this.#bestEffort.message(payload, byteLength, seq);
  }

  #obey(order: CloseOrder | FrameOrder | AskOrder | undefined): void {
    if (order === undefined) return;
    if ("asker" in order) return this.#answer(order);
    if (!("conn" in order)) return this.#credential.onCloseOrder(order);
    if (order.conn !== this.id || this.#state !== "live") return;
    this.#output.onTaken(order.receipt);
    this.frame(order.frame);
  }

  #answer({ asker, close }: AskOrder): void {
    this.#output.onAsked(asker, {
      conn: this.id,
      node: this.#context.node,
      ...stateOf(this.#transport, this.#bestEffort),
      ...(this.#state === "live" && openState(this.#openedMs, this.#replay)),
      ...(this.#credential.exp !== undefined && { exp: this.#credential.exp }),
    });
    if (close?.conn === this.id) this.close(close);
  }

  lost(reason: string): void {
    this.#interruptions++;
    this.#context.metrics.interruptions++;
    this.#context.log.debug("subscription lost", { conn: this.id, user: this.username, reason });
  }

  restored(): void {
    // Whatever was sent meanwhile is in the history, but for orders to close.
    this.#replay?.verify();
    this.#credential.recheck();
    // Without it nobody was counted here, and the user may have been told offline.
    if (this.#state === "live") this.#context.presence?.opened(this.username);
    this.#context.log.debug("subscription restored", { conn: this.id, user: this.username });
  }

  verify(): void {
    this.#replay?.verify();
  }

  hear(): void {
    if (this.#state === "live") this.#broadcasts?.take();
  }

  // ------------------------------------------------------------------------------------------------------
  // To the client

  /** Answers a request of the client. */
  send(frame: ReplyFrame): void {
    this.#output.send(frame);
  }

  reply(frame: string): void {
    this.#transport.send(frame);
  }

  onFull(): void {
    this.#context.registry.heartbeat.watch(this);
  }

  get takesMore(): boolean {
    return this.#transport.hasRoom;
  }

  /** Goes on with what waits, if the client has taken enough; whether it needs no more asking. */
  hasRoom(): boolean {
    if (this.#state !== "live") return true;
    if (!this.#transport.hasRoom) return false;
    this.#bestEffort.resume();
    if (this.#replay?.isFull) this.#replay.resume();
    this.#broadcasts?.resume();
    this.#requests?.resume();
    return !this.#bestEffort.isPaused && !this.#replay?.isFull && !this.#broadcasts?.isBehind &&
      !this.#requests?.isPaused;
  }

  // ------------------------------------------------------------------------------------------------------
  // From the client

  opened(): void {
    this.goLive();
  }

  frame(data: string | ArrayBuffer): void {
    if (this.#hasEnded) return;
    const excess = this.#quota.take(data);
    if (excess) return this.close(excess, { whenQuiet: true });
    if (!this.#transport.isFramed) {
      if (data === "ping") this.#transport.send("pong");
      else this.#ignoredFrames++;
      return;
    }
    try {
      if (typeof data !== "string") throw new InvalidFrameError("Frames must be text");
      const frame = parseClientFrame(data);
      if (frame?.t === "ack") this.#output.acknowledge(frame.seq);
      else if (frame?.t === "req") this.#ask(frame, data);
      else if (frame?.t === "auth") void this.#credential.refresh(frame.token, frame.id ?? "auth");
      else if (frame === undefined) this.#ignoredFrames++;
    } catch (error) {
      this.close({ code: CLOSE.protocol.code, reason: messageOf(error) }, { whenQuiet: true });
    }
  }

  #ask(request: ReadRequest, frame: string): void {
    const { requests } = this.#context;
    if (requests) (this.#requests ??= new RequestLine(this, requests)).take(request, frame);
    else {
      const { id } = request;
      this.send({ t: "re", id, ok: false, code: "unsupported", err: "This service takes no requests" });
    }
  }

  /** Once a second: finds slow clients and those whose token has ended; sends `p` into silence. */
  tick(isLate: boolean): void {
    if (this.#hasEnded) return;
    const stuckTicks = this.#transport.tick(isLate);
    if (this.#state !== "live") return;
    const { limits } = this.#context;
    // Between two looks a client that catches up takes all there is: one found paused each time is still behind.
    const pausedTicks = this.#bestEffort.tick();
    if (pausedTicks >= MAX_PAUSE_TIMEOUTS * limits.slowTimeoutS) {
      return this.close({ code: CLOSE.slow.code, reason: "slow reader: behind for too long" });
    }
    // Orders to close wait with the messages.
    if (pausedTicks % PAUSED_RECHECK_TICKS === 1) this.#credential.recheck();
    this.#credential.tick();
    if (this.#state !== "live") return;
    if (stuckTicks >= limits.slowTimeoutS) return this.close(CLOSE.slow);
    if (this.#replay?.hasFailed) this.#replay.resume();
    if (this.#transport.isFramed && this.#output.wasSilent(this.#pingS)) {
      this.#transport.send(PING_FRAME);
      // A message may have been lost with none after it to show the hole.
      this.#replay?.verify();
    }
  }

  // ------------------------------------------------------------------------------------------------------
  // The end

  /** Frees everything at once and asks the transport to close. */
  close(reason: CloseReason, options: CloseOptions = {}): void {
    if (this.#hasEnded) return;
    this.#end(reason);
    const whenQuiet = options.whenQuiet === true && this.#context.registry.isPatient(this);
    this.#transport.close(reason, { ...options, whenQuiet });
  }

  expired(): void {
    this.close(CLOSE.outlived, { retryMs: OUTLIVED_RETRY_MS * (0.5 + Math.random()) });
  }

  flooded(): void {
    this.#context.registry.onFlood(this);
  }

  gone(code: number | undefined): void {
    const reason = code === 1001 ? "silence or going away" : code === 0 ? "connection lost" : "client";
    this.#end(code === undefined ? { reason: "the client left" } : { code, reason });
    this.#state = "closed";
    this.#context.registry.onGone(this);
  }

  /** Frees everything but the transport, once. */
  #end({ code, reason }: Partial<CloseReason>): void {
    if (this.#hasEnded) return;
    const wasLive = this.#state === "live";
    this.#state = "closing";
    this.#bestEffort.stop();
    this.#replay?.stop();
    this.#broadcasts?.stop();
    this.#requests?.stop();
    this.#output.stop();
    void this.#subscription?.close();
    const { log, metrics, registry } = this.#context;
    registry.onEnd(this);
    if (wasLive) {
      metrics.onClose(this.#transport.mode, code ?? 0);
      this.#context.presence?.closed(this.username);
    } else if (this.#transport.state !== "unanswered" && code !== undefined) metrics.onFail(code);
    log.info(wasLive ? "connection closed" : "connection failed while opening", {
      conn: this.id,
      user: this.username,
      code,
      reason,
      seconds: wasLive ? Math.round((performance.now() - this.#openedMs) / 100) / 10 : undefined,
      messages: this.#output.messages,
      bytes: this.#output.bytes,
      interruptions: this.#interruptions || undefined,
      missed: this.#output.missed || undefined,
      ignored_frames: this.#ignoredFrames || undefined,
    });
  }

  get #hasEnded(): boolean {
    return this.#state === "closing" || this.#state === "closed";
  }
}
