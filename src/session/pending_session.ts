/**
 * A raw socket whose client has not said who it is. Its first frame does, or it is closed in time.
 * Then the socket is handed on, and this is over.
 */
import type { Identity } from "../auth/auth.ts";
import type { CloseOptions, ConnectionHost, Handshake, Session } from "./session.ts";
import {
  BrokerUnavailableError,
  KeysUnavailableError,
  messageOf,
  UnauthorizedError,
} from "../protocol/errors.ts";
import { FrameQuota, letGo } from "./inbound_quota.ts";
import { hangUp } from "./hang_up.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";

export interface NewcomerOptions {
  /** Seconds the client has to say who it is. */
  timeoutS: number;
  /** Who says this in the first frame. An answer that needs no waiting lets no later frame be missed. */
  identify(text: string): Identity | Promise<Identity>;
  /** Of its handshake. */
  readonly handshake: Handshake;
  /** Takes over the socket. */
  onIdentity(identity: Identity): void;
}

export class Newcomer implements Session {
  readonly #socket: WebSocket;
  readonly #host: ConnectionHost;
  readonly #options: NewcomerOptions;
  readonly #quota: FrameQuota;
  #ticks = 0;
  #over = false;
  #isVerifying = false;

  constructor(socket: WebSocket, host: ConnectionHost, options: NewcomerOptions) {
    this.#socket = socket;
    this.#host = host;
    this.#options = options;
    this.#quota = new FrameQuota(host.limits);
    socket.onmessage = (event) => this.#onFrame(event.data);
    socket.onclose = () => this.#leave();
    socket.addEventListener("open", () => options.handshake.opened(), { once: true });
  }

  tick(): void {
    if (++this.#ticks > this.#options.timeoutS) this.close(CLOSE.noIdentity);
  }

  close(reason: CloseReason, options: CloseOptions = {}): void {
    if (this.#over) return;
    this.#over = true;
    this.#host.onEnd(this);
    this.#host.metrics.onFail(reason.code);
    this.#host.log.info("connection closed before the client identified itself", {
      code: reason.code,
      why: reason.why,
    });
    const whenQuiet = options.whenQuiet === true && this.#host.isPatient(this);
    hangUp(this.#socket, reason, { whenQuiet, onFlood: () => this.#host.onFlood(this) });
    // When the client left before the handshake was answered, Deno never says anything.
    if (this.#socket.readyState === WebSocket.CONNECTING) this.#leave();
  }

  /** Ends it without a word: its client had left before the handshake was answered. */
  abandon(): void {
    if (!this.#over) this.#leave();
  }

  #onFrame(data: string | ArrayBuffer): void {
    if (this.#over) return letGo(data);
    const excess = this.#quota.take(data);
    if (excess) return this.close(excess, { whenQuiet: true });
    // Asked before it is known who asks, too: that says nothing about who it is, and gives no more time to say it.
    if (data === "ping") return this.#socket.send("pong");
    if (this.#isVerifying) return letGo(data);
    if (typeof data !== "string") {
      letGo(data);
      return this.close(CLOSE.protocol, { whenQuiet: true });
    }
    try {
      const identity = this.#options.identify(data);
      if (!(identity instanceof Promise)) return this.#handOver(identity);
      this.#isVerifying = true;
      identity.then((identity) => this.#handOver(identity), (error) => this.#refuse(error));
    } catch (error) {
      this.#refuse(error);
    }
  }

  #handOver(identity: Identity): void {
    if (this.#over) return;
    this.#leave();
    this.#socket.onmessage = this.#socket.onclose = null;
    if (this.#socket.readyState === WebSocket.OPEN) this.#options.onIdentity(identity);
  }

  #leave(): void {
    this.#options.handshake.end();
    if (!this.#over) this.#host.onEnd(this);
    this.#over = true;
    this.#host.onSocketGone(this);
  }

  #refuse(error: unknown): void {
    const { code } = error instanceof UnauthorizedError
      ? CLOSE.unauthorized
      : error instanceof BrokerUnavailableError || error instanceof KeysUnavailableError
      ? CLOSE.overloaded
      : CLOSE.protocol;
    this.close({ code, why: messageOf(error) }, { whenQuiet: true });
  }
}
