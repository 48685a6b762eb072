/**
 * A WebSocket as a transport: send buffer with backpressure, and a close that its peer learns the reason of.
 *
 * `send()` never blocks and never fails on a stuck client, and Deno has no event for room: so `bufferedAmount` is looked
 * at before each message, and once a second. Left alone, Deno gets in the way of a close: one before `open` is lost, and
 * a frame that arrives after it makes Deno drop the socket together with our Close frame.
 */
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import { formatFrame } from "../protocol/frames.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

/** Told how the handshake of a socket goes on. */
export interface Handshake {
  /** The socket is open. */
  opened(): void;
  /** Nobody waits for it to open any more. */
  end(): void;
  /** Its client left before it was answered: the socket will never open, and Deno never frees it. */
  lost(): void;
}

/** A socket on which `open` did not fire this many ticks after the handshake was answered has lost its client. */
const OPEN_TICKS = 3;
/** Room for the reason in a Close frame (RFC 6455, 5.5). */
const MAX_REASON_BYTES = 123;
/** How long a peer must have sent nothing to count as quiet, and how often that is waited for. */
const QUIET_MS = 50;
const MAX_WAITS = 20;
/** What a peer may go on to send meanwhile: what was on its way. Then it is closed, whether it reads why or not. */
const MAX_FRAMES = 10_000;
const MAX_BYTES = 1_048_576;

/** By the `readyState` of a socket: one that is closing is as good as closed. */
const STATES = ["opening", "open", "closed", "closed"] as const;

const encoder = new TextEncoder();

/** Nobody has taken the transport over yet, or it is gone. */
const NOBODY: TransportEvents = { opened() {}, frame() {}, flooded() {}, expired() {}, gone() {} };

export class WebSocketTransport implements Transport, EventListenerObject {
  events: TransportEvents = NOBODY;
  readonly #maxBytes: number;
  #socket: WebSocket | undefined;
  #handshake: Handshake | undefined;
  /** Bytes that waited when it was last looked at: fewer since then mean that the client takes some. */
  #bytes = 0;
  #hasTaken = false;
  /** Ticks in a row in which it did not open, or its client took nothing. */
  #stuckTicks = 0;

  /**
   * A transport whose client has not been answered: `attach` gives it the socket.
   * @param maxBytes May wait at most, but for a single frame that is larger.
   */
  constructor(readonly isFramed: boolean, maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get mode(): "raw" | "v1" {
    return this.isFramed ? "v1" : "raw";
  }

  get state(): Transport["state"] {
    return this.#socket ? STATES[this.#socket.readyState]! : "unanswered";
  }

  get hasRoom(): boolean {
    return this.#socket!.bufferedAmount <= this.#maxBytes / 2;
  }

  get buffered(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Gives the transport its socket, whose handshake has been answered. */
  attach(socket: WebSocket, handshake: Handshake): void {
    this.#socket = socket;
    this.#handshake = handshake;
    // One listener, this object, for all: a function per event would be a fifth of an idle socket's heap.
    socket.addEventListener("message", this);
    socket.addEventListener("close", this);
    socket.addEventListener("open", this);
  }

  /** The client left before it could be answered. */
  abandon(): void {
    if (this.state !== "opening") return;
    this.#giveUp();
    this.#handshake?.lost();
  }

  write(frame: string | Uint8Array<ArrayBuffer>): boolean {
    const socket = this.#socket!;
    const waiting = this.#look(socket);
    // A frame that is larger than the mark goes alone.
    if (waiting > 0 && waiting + frame.length > this.#maxBytes) return false;
    socket.send(frame);
    this.#bytes = socket.bufferedAmount;
    return true;
  }

  send(frame: string): void {
    this.#socket!.send(frame);
  }

  tick(isLate: boolean): number {
    const { state } = this;
    // Deno says nothing when the client left before the handshake was answered: no open, no close.
    if (state === "opening" && !isLate && ++this.#stuckTicks >= OPEN_TICKS) this.#giveUp();
    if (state !== "open") return 0;
    const isWaiting = this.#look(this.#socket!) > 0;
    if (!isWaiting || this.#hasTaken) this.#stuckTicks = 0;
    // A process that was stopped has written nothing either.
    else if (!isLate) this.#stuckTicks++;
    this.#hasTaken = false;
    return this.#stuckTicks;
  }

  close({ code, reason }: CloseReason, { retryMs, whenQuiet = false }: CloseOptions = {}): void {
    const socket = this.#socket;
    if (!socket) return this.#leave(undefined);
    if (this.isFramed && socket.readyState === WebSocket.OPEN) {
      const retry = retryMs === undefined ? {} : { retry_ms: Math.round(retryMs) };
      this.send(formatFrame({ t: "bye", code, why: reason, ...retry }));
    }
    const fits = encoder.encodeInto(reason, new Uint8Array(MAX_REASON_BYTES)).read;
    const close = () => socket.close(code, reason.slice(0, fits));
    if (socket.readyState !== WebSocket.CONNECTING) return whenQuiet ? this.#closeWhenQuiet(close) : close();
    socket.onopen = close;
    // One that is not open yet may never be, and Deno would not say so.
    this.#leave(undefined);
  }

  /** From the socket. A broken one closes too, which is where that is handled. */
  handleEvent(event: Event): void {
    switch (event.type) {
      case "message": {
        const { data } = event as MessageEvent;
        this.events.frame(data);
        return releaseFrame(data);
      }
      case "close":
        return this.#leave((event as CloseEvent).code);
      case "open":
        this.#socket!.removeEventListener("open", this);
        this.#handshake?.opened();
        this.#handshake = undefined;
        this.#stuckTicks = 0;
        return this.events.opened();
    }
  }

  /** It may open all the same, when nobody waits for it any more. */
  #giveUp(): void {
    this.close(CLOSE.overloaded);
  }

  /** After an idle timeout Deno fires `close` twice. */
  #leave(code: number | undefined): void {
    this.#handshake?.end();
    const { events } = this;
    this.events = NOBODY;
    events.gone(code);
  }

  #closeWhenQuiet(close: () => void): void {
    const socket = this.#socket!;
    let isQuiet = true;
    let waits = 0;
    let frames = 0;
    let bytes = 0;
    const endMs = performance.now() + MAX_WAITS * QUIET_MS;
    socket.removeEventListener("message", this);
    // No timer runs while Deno hands over frame after frame, so a flood must end here. Deno drops a socket whose frames
    // come after `close()`: the next one cuts it.
    socket.onmessage = ({ data }) => {
      isQuiet = false;
      bytes += typeof data === "string" ? data.length : data.byteLength;
      releaseFrame(data);
      if (++frames <= MAX_FRAMES && bytes <= MAX_BYTES && performance.now() <= endMs) return;
      this.events.flooded();
      end();
    };
    const timer = setInterval(() => {
      if (isQuiet || ++waits === MAX_WAITS) end();
      isQuiet = true;
    }, QUIET_MS);
    const end = () => {
      clearInterval(timer);
      socket.onmessage = null;
      socket.addEventListener("message", this);
      close();
    };
    socket.addEventListener("close", () => clearInterval(timer));
  }

  #look({ bufferedAmount }: WebSocket): number {
    if (bufferedAmount < this.#bytes) this.#hasTaken = true;
    return this.#bytes = bufferedAmount;
  }
}

/**
 * Frees the memory of a frame at once. Fragments are put together before we see them, whatever their sum; the garbage
 * collector, for which a buffer is a small object, may leave gigabytes lying about for minutes.
 */
function releaseFrame(data: unknown): void {
  if (data instanceof ArrayBuffer && !data.detached) data.transfer(0);
}
