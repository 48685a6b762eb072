/**
 * One client session from open to closed. It owns a transport and a subscription and frees both on one path,
 * whatever ends the session. What a framed client has had and gets next is kept in its `Replay`; who the client is,
 * in its `SignIn`.
 *
 * It knows one transport and one user, and nothing about who sent a message or why. It has no timer of its own:
 * `Connections` calls `tick()` once a second.
 *
 *     opening ──▶ live ──▶ closing ──▶ closed
 *        └───────────────────▲
 *
 * *opening*: the subscription is being confirmed or the transport is not open yet; messages queue. *live*: messages
 * go to the transport; those of a framed client through its replay, which may be reading or full for a while.
 * *closing*: everything is freed but the transport, which has been asked to close. *closed*: it is gone too.
 * Deno can't terminate a socket whose peer does not answer, so nothing ever waits for *closed* without a deadline.
 */
import { Buffer } from "node:buffer";
import type { Identity } from "../auth/auth.ts";
import type { Subscriber, Subscription } from "../broker/broker.ts";
import { InvalidFrameError, messageOf } from "../protocol/errors.ts";
import { type FrameLimits, FrameQuota } from "./inbound_quota.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import {
  closeOrderOf,
  frameOf,
  isEnvelope,
  payloadOf,
  receiptOf,
  replayFrameOf,
  seqOf,
  wrapForeign,
} from "../protocol/envelope.ts";
import {
  formatFrame,
  type GapFrame,
  parseClientFrame,
  PING_FRAME,
  PROTOCOL_VERSION,
  type ServerFrame,
} from "../protocol/frames.ts";
import type { Replay, ReplayHost } from "./replay.ts";
import { type SignedIn, SignIn, type SignInHost } from "./credential_watch.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

/** `v1` speaks frames (`userwire.v1`); `raw` gets payloads as they are. */
export type Mode = "raw" | "v1";

/** What `Connections` keeps: anything that holds a client's socket. */
export interface Session {
  /** Whose it is, when that is known. */
  readonly username?: string;
  /** Ends it; idempotent. */
  close(reason: CloseReason, options?: CloseOptions): void;
  /**
   * Called once a second.
   * @param isLate The process is short of time: a peer's silence says nothing.
   */
  tick(isLate: boolean): void;
  /** Its position may be wrong: compares it with the history. */
  verify?(): void;
}

export interface ConnectionLimits extends FrameLimits {
  /** Bytes that may wait for the client before it counts as a slow reader. */
  maxBufferedBytes: number;
  /** Seconds of silence after which a v1 client gets `p`. */
  pingS: number;
  /** Seconds without progress after which a slow reader is closed. */
  slowTimeoutS: number;
}

/** What a connection needs from the house it lives in. */
export interface ConnectionHost extends SignInHost {
  readonly limits: ConnectionLimits;
  readonly node: string;
  readonly metrics: Metrics;
  /** A connection was handed a message whose sender waits for receipts. Called once for each, when it arrives. */
  onHanded(receipt: string): void;
  /** On the channel came a message with a number that is not of this installation's history. */
  onForeign(connection: Connection): void;
  /** A client has a message whose sender waits for a receipt. */
  onReceipt(receipt: string, connection: Connection): void;
  /** The client takes no more: `hasRoom` is to be asked until it does. */
  onFull(connection: Connection): void;
  /** The client, told to close, went on sending as fast as it could. */
  onFlood(session: Session): void;
  /** Whether a client that is refused may go on sending for a moment, so that it reads why. */
  isPatient(session: Session): boolean;
  /** The session has ended: it counts no longer. Called once. */
  onEnd(session: Session): void;
  /** The socket is gone. Called once, after `onEnd`; never for a peer that does not answer. */
  onSocketGone(session: Session): void;
}

/** Receipts that wait for a client to acknowledge; one that never does must not fill the memory. */
const MAX_RECEIPTS = 1_000;

/**
 * A client that reads, but too slowly for what comes, is closed after so many times the seconds without progress: an
 * order to close must not lie behind its messages for ever. With the default that is the minute of patience that Redis
 * has as it ships.
 */
const MAX_PAUSE_TIMEOUTS = 6;

/** While the subscription is not read, revocations are asked for each time so many ticks have passed. */
const PAUSED_VERIFY_TICKS = 5;

export class Connection implements Subscriber, Session, ReplayHost, SignedIn, TransportEvents {
  readonly id: string = crypto.randomUUID();
  readonly mode: Mode;
  readonly username: string;
  readonly #transport: Transport;
  readonly #host: ConnectionHost;
  readonly #signIn: SignIn;
  readonly #quota: FrameQuota;
  #state: "opening" | "live" | "closing" | "closed" = "opening";
  #subscription: Subscription | undefined;
  #replay: Replay | undefined;
  /** Messages without a sequence number, or for a raw client, that came while opening or paused. */
  #waiting: [payload: string | Uint8Array<ArrayBuffer>, byteLength: number][] = [];
  #waitingBytes = 0;
  #isPaused = false;

  #openedMs = 0;
  #messages = 0;
  #bytes = 0;
  #interruptions = 0;
  /** The number heard last, and how many were missed: raw clients can't be told, so the log is. */
  #heard = 0;
  #missed = 0;
  /** Receipts to be confirmed when the client acknowledges. */
  #receipts: { seq: number; receipt: string }[] = [];
  #ignoredFrames = 0;

  #idleTicks = 0;
  #pausedTicks = 0;

  constructor(transport: Transport, username: string, host: ConnectionHost) {
    this.username = username;
    this.mode = transport.isFramed ? "v1" : "raw";
    this.#transport = transport;
    this.#host = host;
    this.#signIn = new SignIn(this, host);
    this.#quota = new FrameQuota(host.limits);
    transport.events = this;
  }

  get state(): "opening" | "live" | "closing" | "closed" {
    return this.#state;
  }

  /** Gives the connection what its client was let in by, which may end before it does. Before its subscription. */
  attachIdentity(identity: Identity): void {
    this.#signIn.begin(identity);
  }

  /** Gives a framed connection its place in the history, opened. Before its transport opens. */
  attachReplay(replay: Replay): void {
    this.#replay = replay;
  }

  /** Gives the connection its confirmed subscription. When the session has ended meanwhile, closes it. */
  attachSubscription(subscription: Subscription): void {
    this.#subscription = subscription;
    if (this.#state === "closing" || this.#state === "closed") void subscription.close();
    else this.#goLive();
  }

  /** Ends a session whose client was never answered. */
  fail(reason: string): void {
    this.#end({ why: reason });
    this.#transport.close(CLOSE.overloaded);
  }

  // ------------------------------------------------------------------------------------------------------
  // From the broker

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    if (typeof payload === "string" && isEnvelope(payload)) {
      const order = closeOrderOf(payload);
      if (order) return this.#signIn.obey(order);
      const receipt = receiptOf(payload);
      if (receipt !== undefined) this.#host.onHanded(receipt);
      const seq = seqOf(payload);
      if (seq > 0) {
        if (this.#replay) return this.#replay.live(seq, payload, byteLength);
        if (this.#heard > 0 && seq > this.#heard + 1) this.#miss(seq - this.#heard - 1);
        this.#heard = seq;
      }
    }
    this.#pass(payload, byteLength);
  }

  lost(why: string): void {
    this.#interruptions++;
    this.#host.metrics.interruptions++;
    this.#host.log.debug("subscription lost", { conn: this.id, user: this.username, reason: why });
  }

  restored(): void {
    // Whatever was sent meanwhile is in the history, but for orders to close.
    this.#replay?.verify();
    this.#signIn.verify();
    this.#host.log.debug("subscription restored", { conn: this.id, user: this.username });
  }

  verify(): void {
    this.#replay?.verify();
  }

  // ------------------------------------------------------------------------------------------------------
  // To the client

  #goLive(): void {
    if (this.#state !== "opening" || !this.#subscription || this.#transport.state !== "open") return;
    this.#state = "live";
    this.#openedMs = performance.now();
    const { log, limits, metrics, node } = this.#host;
    metrics.onOpen(this.mode);
    log.info("connection opened", { conn: this.id, user: this.username, mode: this.mode });
    if (this.mode === "v1") {
      const { exp } = this.#signIn;
      this.send({
        t: "hi",
        v: PROTOCOL_VERSION,
        conn: this.id,
        user: this.username,
        node,
        ...(this.#replay?.start() ?? { resumed: false, replay: 0 }),
        ping: limits.pingS,
        max: limits.maxFrameBytes,
        ...(exp !== undefined && { exp }),
      });
    }
    this.#replay?.begin();
    this.#unpause();
  }

  /** Sends a message that comes once or never, when it is its turn. */
  #pass(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (this.#state === "live" && !this.#isPaused) this.#push(payload, byteLength);
    else this.#wait(payload, byteLength);
  }

  #wait(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    this.#waiting.push([payload, byteLength]);
    this.#waitingBytes += byteLength;
    const isMuch = this.#waitingBytes > this.#host.limits.maxBufferedBytes;
    if (isMuch && this.#waiting.length > 1) this.close(CLOSE.slow);
  }

  #push(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    const isFramed = this.mode === "v1";
    const frame = typeof payload === "string" && isEnvelope(payload)
      ? isFramed ? frameOf(payload) : payloadOf(payload)
      : isFramed
      ? wrapForeign(payload, Date.now())
      : payload;
    if (this.#write(frame, byteLength)) return;
    if (this.#replay) {
      // The history needs the subscription no less than before: only this message is lost.
      this.#miss(1);
    } else if (this.#subscription?.pause) {
      // This message waits here, what follows waits in Redis.
      this.#wait(payload, byteLength);
      this.#subscription.pause();
      this.#isPaused = true;
      this.#host.onFull(this);
    } else {
      this.close(CLOSE.slow);
    }
  }

  /** Sends what has waited, as far as the client takes it. */
  #unpause(): void {
    this.#isPaused = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (const [payload, byteLength] of waiting) {
      if (this.#state !== "live") return;
      this.#pass(payload, byteLength);
    }
    if (!this.#isPaused) this.#subscription?.resume?.();
  }

  deliver(envelope: string, byteLength: number | undefined): boolean {
    if (this.#state !== "live") return false;
    const isReplayed = byteLength === undefined;
    const frame = isReplayed ? replayFrameOf(envelope) : frameOf(envelope);
    if (!this.#write(frame, byteLength ?? Buffer.byteLength(envelope))) {
      this.#host.onFull(this);
      return false;
    }
    if (isReplayed) this.#host.metrics.replayed++;
    const receipt = receiptOf(envelope);
    if (receipt !== undefined) {
      this.#receipts.push({ seq: seqOf(envelope), receipt });
      if (this.#receipts.length > MAX_RECEIPTS) this.#receipts.shift();
    }
    return true;
  }

  gap(frame: GapFrame): void {
    if (this.#state !== "live") return;
    const { log, metrics } = this.#host;
    metrics.gaps[frame.why]++;
    metrics.missed += frame.count ?? 0;
    log.info("gap", {
      conn: this.id,
      user: this.username,
      from: frame.from,
      to: frame.to,
      why: frame.why,
    });
    this.send(frame);
  }

  onForeign(): void {
    this.#host.onForeign(this);
  }

  onReadFailed(error: unknown): void {
    this.#host.log.debug("history not readable", {
      conn: this.id,
      user: this.username,
      reason: messageOf(error),
    });
  }

  /** Goes on with what waits in the history, if the client has taken enough; whether it needs no more asking. */
  hasRoom(): boolean {
    if (this.#state !== "live") return true;
    if (!this.#transport.hasRoom) return false;
    if (this.#isPaused) this.#unpause();
    if (this.#replay?.isFull) this.#replay.resume();
    return !this.#isPaused && !this.#replay?.isFull;
  }

  /** False when the client has not taken what it was given before. */
  #write(frame: string | Uint8Array<ArrayBuffer>, byteLength: number): boolean {
    if (!this.#transport.write(frame)) return false;
    this.#messages++;
    this.#bytes += byteLength;
    this.#idleTicks = 0;
    const { metrics } = this.#host;
    metrics.delivered++;
    metrics.deliveredBytes += byteLength;
    return true;
  }

  #miss(count: number): void {
    this.#missed += count;
    this.#host.metrics.missed += count;
  }

  /** Sends a frame that is no message, however much waits. */
  send(frame: ServerFrame): void {
    this.#transport.send(formatFrame(frame));
  }

  // ------------------------------------------------------------------------------------------------------
  // From the client

  opened(): void {
    this.#goLive();
  }

  frame(data: string | ArrayBuffer): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const excess = this.#quota.take(data);
    if (excess) return this.close(excess, { whenQuiet: true });
    if (this.mode === "raw") {
      if (data === "ping") this.#transport.send("pong");
      else this.#ignoredFrames++;
      return;
    }
    try {
      if (typeof data !== "string") throw new InvalidFrameError("Frames must be text");
      const frame = parseClientFrame(data);
      if (frame?.t === "ack") this.#onAck(frame.seq);
      else if (frame?.t === "auth") void this.#signIn.refresh(frame.token, frame.id ?? "auth");
      else if (frame === undefined) this.#ignoredFrames++;
    } catch (error) {
      this.close({ code: CLOSE.protocol.code, why: messageOf(error) }, { whenQuiet: true });
    }
  }

  #onAck(seq: number): void {
    if (this.#receipts.length === 0) return;
    for (const entry of this.#receipts) if (entry.seq <= seq) this.#host.onReceipt(entry.receipt, this);
    this.#receipts = this.#receipts.filter((entry) => entry.seq > seq);
  }

  // ------------------------------------------------------------------------------------------------------
  // Time

  /**
   * Once a second: finds clients that vanished while opening, slow ones and those whose token has ended; sends `p`
   * into silence.
   */
  tick(isLate: boolean): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const stuckTicks = this.#transport.tick(isLate);
    if (this.#state !== "live") return;
    const { limits } = this.#host;
    // Between two looks a client that catches up takes all there is: one found paused each time is still behind.
    this.#pausedTicks = this.#isPaused ? this.#pausedTicks + 1 : 0;
    if (this.#pausedTicks >= MAX_PAUSE_TIMEOUTS * limits.slowTimeoutS) {
      return this.close({ code: CLOSE.slow.code, why: "slow reader: behind for too long" });
    }
    // Orders to close wait with the messages.
    if (this.#pausedTicks % PAUSED_VERIFY_TICKS === 1) this.#signIn.verify();
    this.#signIn.tick();
    if (this.#state !== "live") return;
    if (stuckTicks >= limits.slowTimeoutS) return this.close(CLOSE.slow);
    if (this.#replay?.hasFailed) this.#replay.resume();
    if (++this.#idleTicks >= limits.pingS && this.mode === "v1") {
      this.#idleTicks = 0;
      this.#transport.send(PING_FRAME);
      // A message may have been lost with none after it to show the hole.
      this.#replay?.verify();
    }
  }

  // ------------------------------------------------------------------------------------------------------
  // The end

  /** Frees everything at once and asks the transport to close. */
  close(reason: CloseReason, options: CloseOptions = {}): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#end(reason);
    const whenQuiet = options.whenQuiet === true && this.#host.isPatient(this);
    this.#transport.close(reason, { ...options, whenQuiet });
  }

  flooded(): void {
    this.#host.onFlood(this);
  }

  gone(code: number | undefined): void {
    this.#end(
      code === undefined
        ? { why: "the client left" }
        : { code, why: code === 1001 ? "silence or going away" : code === 0 ? "connection lost" : "client" },
    );
    this.#state = "closed";
    this.#host.onSocketGone(this);
  }

  /** Frees everything but the transport, once. */
  #end(reason: Partial<CloseReason>): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const opened = this.#state === "live";
    this.#state = "closing";
    this.#waiting = [];
    this.#receipts = [];
    this.#replay?.stop();
    void this.#subscription?.close();
    const { log, metrics } = this.#host;
    this.#host.onEnd(this);
    if (opened) metrics.onClose(this.mode, reason.code ?? 0);
    else if (this.#transport.state !== "unanswered" && reason.code !== undefined) metrics.onFail(reason.code);
    log.info(opened ? "connection closed" : "connection failed while opening", {
      conn: this.id,
      user: this.username,
      code: reason.code,
      why: reason.why,
      seconds: opened ? Math.round((performance.now() - this.#openedMs) / 100) / 10 : undefined,
      messages: this.#messages,
      bytes: this.#bytes,
      interruptions: this.#interruptions || undefined,
      missed: this.#missed || undefined,
      ignored_frames: this.#ignoredFrames || undefined,
    });
  }
}
