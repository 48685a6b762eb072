/**
 * One client session from open to closed. It owns a WebSocket and a subscription and frees both on one path,
 * whatever ends the session. What a framed client has had and gets next is kept in its `Replay`.
 *
 * It knows one socket and one user, and nothing about who sent a message or why. It has no timer of its own:
 * `Connections` calls `tick()` once a second.
 *
 *     opening ──▶ live ──▶ closing ──▶ closed
 *        └───────────────────▲
 *
 * *opening*: the subscription is being confirmed or the socket is not open yet; messages queue. *live*: messages
 * go to the socket; those of a framed client through its replay, which may be reading or full for a while. *closing*: everything is freed but the socket, which has been asked to close. *closed*: the
 * socket is gone too. Deno can't terminate a socket whose peer does not answer, so nothing ever waits for
 * *closed* without a deadline.
 */
import type { Identity } from "./auth/auth.ts";
import type { Subscriber, Subscription } from "./broker/broker.ts";
import { BrokerUnavailableError, InvalidFrameError, messageOf, UnauthorizedError } from "./errors.ts";
import { hangUp } from "./hang_up.ts";
import type { Log } from "./log.ts";
import {
  CLOSE,
  type CloseOrder,
  closeOrderOf,
  type CloseReason,
  formatFrame,
  frameOf,
  type GapFrame,
  isEnvelope,
  parseClientFrame,
  payloadOf,
  PING_FRAME,
  PROTOCOL_VERSION,
  receiptOf,
  replayFrameOf,
  seqOf,
  wrapForeign,
} from "./protocol.ts";
import type { Replay, ReplayHost } from "./replay.ts";

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
}

export interface CloseOptions {
  /** When the client should come back, in milliseconds from now. */
  retryMs?: number;
  /** As in `hangUp`. @default false */
  whenQuiet?: boolean;
}

export interface ConnectionLimits {
  /** Largest inbound frame, in bytes. */
  maxFrameBytes: number;
  /** Inbound frames per second. */
  maxFramesPerSecond: number;
  /** Inbound bytes per second. */
  maxBytesPerSecond: number;
  /** Bytes that may wait for the client before it counts as a slow reader. */
  maxBufferedBytes: number;
  /** Seconds of silence after which a v1 client gets `p`. */
  pingS: number;
  /** Seconds without progress after which a slow reader is closed. */
  slowTimeoutS: number;
}

/** What a connection needs from the house it lives in. */
export interface ConnectionHost {
  readonly limits: ConnectionLimits;
  readonly node: string;
  readonly log: Log;
  /**
   * Who shows this token.
   * @throws {UnauthorizedError | BrokerUnavailableError}
   */
  authenticate(token: string): Promise<Identity>;
  /** Whether what let a client in has been revoked. @throws {BrokerUnavailableError} */
  isRevoked(identity: Identity): Promise<boolean>;
  /** A client has a message whose sender waits for a receipt. */
  onReceipt(receipt: string, connection: Connection): void;
  /** The client takes no more: `hasRoom` is to be asked until it does. */
  onFull(connection: Connection): void;
  /** The session has ended: it counts no longer. Called once. */
  onEnd(session: Session): void;
  /** The socket is gone. Called once, after `onEnd`; never for a peer that does not answer. */
  onSocketGone(session: Session): void;
}

const encoder = new TextEncoder();

/** Receipts that wait for a client to acknowledge; one that never does must not fill the memory. */
const MAX_RECEIPTS = 1_000;

/** A socket on which `open` did not fire this many ticks after the handshake was answered has lost its client. */
const OPEN_TICKS = 3;

export class Connection implements Subscriber, Session, ReplayHost {
  readonly id: string = crypto.randomUUID();
  readonly mode: Mode;
  readonly username: string;
  readonly #host: ConnectionHost;
  #state: "opening" | "live" | "closing" | "closed" = "opening";
  #socket: WebSocket | undefined;
  #subscription: Subscription | undefined;
  #replay: Replay | undefined;
  /** Who the client is, when it has shown a token or a ticket. */
  #identity: Identity | undefined;
  #isRefreshing = false;
  /** An order to close may have been missed. */
  #mayBeRevoked = false;
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

  #openingTicks = 0;
  #idleTicks = 0;
  #stuckTicks = 0;
  /** Bytes that waited for the client when it was last looked at: fewer since then mean that it takes some. */
  #buffered = 0;
  #hasTaken = false;
  #framesThisTick = 0;
  #bytesThisTick = 0;

  constructor(username: string, mode: Mode, host: ConnectionHost) {
    this.username = username;
    this.mode = mode;
    this.#host = host;
  }

  get state(): "opening" | "live" | "closing" | "closed" {
    return this.#state;
  }

  /** Gives the connection what its client was let in by, which may end before it does. Before its subscription. */
  attachIdentity(identity: Identity): void {
    this.#identity = identity;
  }

  /** Gives a framed connection its place in the inbox, opened. Before its socket. */
  attachReplay(replay: Replay): void {
    this.#replay = replay;
  }

  /** Gives the connection its confirmed subscription. When the session has ended meanwhile, closes it. */
  attachSubscription(subscription: Subscription): void {
    this.#subscription = subscription;
    if (this.#state === "closing" || this.#state === "closed") void subscription.close();
    else this.#goLive();
  }

  /** Gives the connection its socket, which may be open already. */
  attachSocket(socket: WebSocket): void {
    this.#socket = socket;
    socket.onmessage = (event) => this.#onFrame(event.data);
    socket.onclose = (event) => this.#onSocketClose(event.code);
    // A broken socket closes too, which is where it is handled.
    socket.onerror = () => {};
    if (socket.readyState === WebSocket.OPEN) this.#goLive();
    else socket.onopen = () => this.#goLive();
  }

  /** Ends a session that never got an open socket. */
  abandon(why: string): void {
    this.#end({ why });
    // It may open all the same, when nobody waits for it any more.
    if (this.#socket) hangUp(this.#socket, CLOSE.overloaded);
    this.#settle();
  }

  // ------------------------------------------------------------------------------------------------------
  // From the broker

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    if (typeof payload === "string" && isEnvelope(payload)) {
      const order = closeOrderOf(payload);
      if (order) return this.#obey(order);
      const seq = seqOf(payload);
      if (seq > 0) {
        if (this.#replay) return this.#replay.live(seq, payload, byteLength);
        if (this.#heard > 0 && seq > this.#heard + 1) this.#missed += seq - this.#heard - 1;
        this.#heard = seq;
      }
    }
    if (this.#state === "live" && !this.#isPaused) this.#push(payload, byteLength);
    else this.#wait(payload, byteLength);
  }

  lost(why: string): void {
    this.#interruptions++;
    this.#host.log.debug("subscription lost", { conn: this.id, user: this.username, reason: why });
  }

  restored(): void {
    // Whatever was sent meanwhile is in the inbox, but for orders to close.
    this.#replay?.verify();
    this.#mayBeRevoked = this.#identity !== undefined;
    this.#host.log.debug("subscription restored", { conn: this.id, user: this.username });
  }

  // ------------------------------------------------------------------------------------------------------
  // To the client

  #goLive(): void {
    if (this.#state !== "opening" || !this.#subscription || this.#socket?.readyState !== WebSocket.OPEN) {
      return;
    }
    this.#state = "live";
    this.#openedMs = performance.now();
    const { log, limits, node } = this.#host;
    log.info("connection opened", { conn: this.id, user: this.username, mode: this.mode });
    if (this.mode === "v1") {
      this.#socket.send(formatFrame({
        t: "hi",
        v: PROTOCOL_VERSION,
        conn: this.id,
        user: this.username,
        node,
        ...(this.#replay?.start() ?? { resumed: false, replay: 0 }),
        ping: limits.pingS,
        max: limits.maxFrameBytes,
        ...(this.#identity?.exp !== undefined && { exp: this.#identity.exp }),
      }));
    }
    this.#replay?.begin();
    this.#unpause();
  }

  #wait(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    this.#waiting.push([payload, byteLength]);
    this.#waitingBytes += byteLength;
    const isMuch = this.#waitingBytes > this.#host.limits.maxBufferedBytes;
    if (isMuch && this.#waiting.length > 1) this.close(CLOSE.slow);
  }

  /** Sends a message that comes once or never. */
  #push(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    const isFramed = this.mode === "v1";
    const frame = typeof payload === "string" && isEnvelope(payload)
      ? isFramed ? frameOf(payload) : payloadOf(payload)
      : isFramed
      ? wrapForeign(payload, Date.now())
      : payload;
    if (this.#write(frame, byteLength)) return;
    if (this.#subscription?.pause) {
      // This message waits here, what follows waits in Redis.
      this.#wait(payload, byteLength);
      this.#subscription.pause();
      this.#isPaused = true;
      this.#host.onFull(this);
    } else if (this.#replay) {
      // The connection has a way to go on: only this message is lost.
      this.#missed++;
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
    for (const [payload, byteLength] of waiting) this.message(payload, byteLength);
    if (!this.#isPaused) this.#subscription?.resume?.();
  }

  deliver(envelope: string, byteLength: number | undefined): boolean {
    if (this.#state !== "live") return false;
    const isReplayed = byteLength === undefined;
    const frame = isReplayed ? replayFrameOf(envelope) : frameOf(envelope);
    if (!this.#write(frame, byteLength ?? encoder.encode(envelope).length)) {
      this.#host.onFull(this);
      return false;
    }
    const receipt = receiptOf(envelope);
    if (receipt !== undefined) {
      this.#receipts.push({ seq: seqOf(envelope), receipt });
      if (this.#receipts.length > MAX_RECEIPTS) this.#receipts.shift();
    }
    return true;
  }

  gap(frame: GapFrame): void {
    if (this.#state !== "live") return;
    this.#host.log.info("gap", {
      conn: this.id,
      user: this.username,
      from: frame.from,
      to: frame.to,
      why: frame.why,
    });
    this.#socket!.send(formatFrame(frame));
  }

  onReadFailed(error: unknown): void {
    this.#host.log.debug("inbox not readable", {
      conn: this.id,
      user: this.username,
      reason: messageOf(error),
    });
  }

  /** Goes on with what waits in the inbox, if the client has taken enough; whether it needs no more asking. */
  hasRoom(): boolean {
    if (this.#state !== "live") return true;
    if (this.#socket!.bufferedAmount > this.#host.limits.maxBufferedBytes / 2) return false;
    if (this.#isPaused) this.#unpause();
    if (this.#replay?.isFull) this.#replay.resume();
    return !this.#isPaused && !this.#replay?.isFull;
  }

  /** False when the client has not taken what it was given before. */
  #write(frame: string | Uint8Array<ArrayBuffer>, byteLength: number): boolean {
    const socket = this.#socket!;
    // send() never blocks and never fails on a stuck client: the bytes would pile up here.
    const buffered = this.#look();
    // A frame that is larger than the mark goes alone.
    if (buffered > 0 && buffered + frame.length > this.#host.limits.maxBufferedBytes) return false;
    socket.send(frame);
    this.#buffered = socket.bufferedAmount;
    this.#messages++;
    this.#bytes += byteLength;
    this.#idleTicks = 0;
    return true;
  }

  /** Bytes that wait for the client. */
  #look(): number {
    const { bufferedAmount } = this.#socket!;
    if (bufferedAmount < this.#buffered) this.#hasTaken = true;
    return this.#buffered = bufferedAmount;
  }

  // ------------------------------------------------------------------------------------------------------
  // From the client

  #onFrame(data: string | ArrayBuffer): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const { limits } = this.#host;
    const size = sizeOf(data, limits.maxFrameBytes);
    if (size > limits.maxFrameBytes) {
      letGo(data);
      return this.close(CLOSE.tooBig, { whenQuiet: true });
    }
    if (++this.#framesThisTick > limits.maxFramesPerSecond) {
      return this.close(CLOSE.tooFast, { whenQuiet: true });
    }
    if ((this.#bytesThisTick += size) > limits.maxBytesPerSecond) {
      return this.close(CLOSE.tooMuch, { whenQuiet: true });
    }
    if (this.mode === "raw") {
      if (data === "ping") this.#socket!.send("pong");
      else this.#ignoredFrames++;
      return;
    }
    try {
      if (typeof data !== "string") throw new InvalidFrameError("Frames must be text");
      const frame = parseClientFrame(data);
      if (frame?.t === "ack") this.#onAck(frame.seq);
      else if (frame?.t === "auth") void this.#refresh(frame.token, frame.id ?? "auth");
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
  // Who it is

  /** Puts a fresh token in the place of the one that ends. Never rejects. */
  async #refresh(token: string, id: string): Promise<void> {
    const refuse = (err: string) => {
      if (this.#state === "live") this.#socket!.send(formatFrame({ t: "re", id, ok: false, err }));
    };
    if (this.#isRefreshing) return refuse("A token is being verified already: wait for its answer");
    this.#isRefreshing = true;
    try {
      const identity = await this.#host.authenticate(token);
      if (this.#state !== "live") return;
      if (identity.username !== this.username) {
        refuse("The token is for another user");
        return this.close(CLOSE.forbidden);
      }
      this.#identity = identity;
      this.#socket!.send(formatFrame({ t: "re", id, ok: true, data: { exp: identity.exp } }));
    } catch (error) {
      const isExpected = error instanceof UnauthorizedError || error instanceof BrokerUnavailableError;
      if (!isExpected) {
        this.#host.log.error("token not verified", { conn: this.id, reason: messageOf(error) });
      }
      refuse(isExpected ? error.message : "The token could not be verified");
    } finally {
      this.#isRefreshing = false;
    }
  }

  #obey(order: CloseOrder): void {
    const { revoked, code, why } = order;
    const { jti, iat } = this.#identity ?? {};
    const isMeant = revoked === undefined ||
      ("jti" in revoked ? jti === revoked.jti : this.#identity !== undefined && (iat ?? 0) < revoked.before);
    if (isMeant) return this.close({ code, why });
    // The token that is being verified may have been looked up just before it was revoked.
    if (this.#isRefreshing) this.#mayBeRevoked = true;
  }

  /** Asks whether an order to close was missed. Asked again with the next tick when there was no answer. */
  #checkRevoked(): void {
    this.#mayBeRevoked = false;
    this.#host.isRevoked(this.#identity!).then((isRevoked) => {
      if (isRevoked) this.close(CLOSE.revoked);
    }, () => {
      this.#mayBeRevoked = true;
    });
  }

  // ------------------------------------------------------------------------------------------------------
  // Time

  /**
   * Once a second: finds clients that vanished while opening, slow ones and those whose token has ended; sends `p`
   * into silence.
   */
  tick(isLate: boolean): void {
    this.#framesThisTick = 0;
    this.#bytesThisTick = 0;
    if (this.#state === "opening") {
      // Deno says nothing when the client left before the handshake was answered: no open, no close.
      if (this.#socket?.readyState !== WebSocket.CONNECTING || isLate) return;
      if (++this.#openingTicks >= OPEN_TICKS) {
        this.abandon("the client left");
      }
      return;
    }
    if (this.#state !== "live") return;
    const { limits } = this.#host;
    const exp = this.#identity?.exp;
    if (exp !== undefined && Date.now() >= exp * 1_000) return this.close(CLOSE.tokenExpired);
    if (this.#mayBeRevoked && !this.#isRefreshing) this.#checkRevoked();
    const isWaiting = this.#look() > 0;
    this.#stuckTicks = isWaiting && !this.#hasTaken ? this.#stuckTicks + 1 : 0;
    this.#hasTaken = false;
    if (this.#stuckTicks >= limits.slowTimeoutS) return this.close(CLOSE.slow);
    if (this.#replay?.hasFailed) this.#replay.resume();
    if (++this.#idleTicks >= limits.pingS && this.mode === "v1") {
      this.#idleTicks = 0;
      this.#socket!.send(PING_FRAME);
      // A message may have been lost with none after it to show the hole.
      this.#replay?.verify();
    }
  }

  // ------------------------------------------------------------------------------------------------------
  // The end

  /** Frees everything at once and asks the socket to close. */
  close(reason: CloseReason, options: CloseOptions = {}): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#end(reason);
    const socket = this.#socket;
    if (!socket) return this.#settle();
    if (socket.readyState === WebSocket.OPEN && this.mode === "v1") {
      const retry = options.retryMs === undefined ? {} : { retry_ms: Math.round(options.retryMs) };
      socket.send(formatFrame({ t: "bye", code: reason.code, why: reason.why, ...retry }));
    }
    hangUp(socket, reason, options);
    // One that is not open yet may never be, and Deno would not say so.
    if (socket.readyState === WebSocket.CONNECTING) this.#settle();
  }

  #onSocketClose(code: number): void {
    // After an idle timeout Deno fires `close` twice.
    if (this.#state === "closed") return;
    this.#end({
      code,
      why: code === 1001 ? "silence or going away" : code === 0 ? "connection lost" : "client",
    });
    this.#settle();
  }

  /** Frees everything but the socket, once. */
  #end(reason: Partial<CloseReason>): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const opened = this.#state === "live";
    this.#state = "closing";
    this.#waiting = [];
    this.#receipts = [];
    this.#replay?.stop();
    void this.#subscription?.close();
    this.#host.onEnd(this);
    this.#host.log.info(opened ? "connection closed" : "connection given up while opening", {
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

  #settle(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#host.onSocketGone(this);
  }
}

/**
 * Frees the memory of a frame at once. Fragments are put together before we see them, whatever their sum; the garbage
 * collector, for which a buffer is a small object, may leave gigabytes lying about for minutes.
 */
export function letGo(data: unknown): void {
  if (data instanceof ArrayBuffer) data.transfer(0);
}

/** Size of a frame in bytes; exact only where it decides. */
function sizeOf(data: string | ArrayBuffer, max: number): number {
  if (typeof data !== "string") return data.byteLength;
  // A UTF-16 unit takes one to three bytes.
  return data.length > max || data.length * 3 <= max ? data.length : encoder.encode(data).length;
}
