/**
 * A raw socket whose client has not said who it is. Its first frame does, or it is closed in time.
 * Then the socket is handed on, and this is over.
 */
import type { Identity } from "../auth/auth.ts";
import type { ConnectionHost, Session } from "./session.ts";
import {
  BrokerUnavailableError,
  KeysUnavailableError,
  messageOf,
  UnauthorizedError,
} from "../protocol/errors.ts";
import { FrameQuota } from "./inbound_quota.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

export interface NewcomerOptions {
  /** Seconds the client has to say who it is. */
  timeoutS: number;
  /** Who says this in the first frame. An answer that needs no waiting lets no later frame be missed. */
  identify(text: string): Identity | Promise<Identity>;
  /** Takes over the transport. */
  onIdentity(identity: Identity): void;
}

export class Newcomer implements Session, TransportEvents {
  readonly #transport: Transport;
  readonly #host: ConnectionHost;
  readonly #options: NewcomerOptions;
  readonly #quota: FrameQuota;
  #ticks = 0;
  #over = false;
  #isVerifying = false;

  constructor(transport: Transport, host: ConnectionHost, options: NewcomerOptions) {
    this.#transport = transport;
    this.#host = host;
    this.#options = options;
    this.#quota = new FrameQuota(host.limits);
    transport.events = this;
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
    this.#transport.close(reason, { whenQuiet });
  }

  opened(): void {}

  frame(data: string | ArrayBuffer): void {
    if (this.#over) return;
    const excess = this.#quota.take(data);
    if (excess) return this.close(excess, { whenQuiet: true });
    // Asked before it is known who asks, too: that says nothing about who it is, and gives no more time to say it.
    if (data === "ping") return this.#transport.send("pong");
    if (this.#isVerifying) return;
    if (typeof data !== "string") return this.close(CLOSE.protocol, { whenQuiet: true });
    try {
      const identity = this.#options.identify(data);
      if (!(identity instanceof Promise)) return this.#handOver(identity);
      this.#isVerifying = true;
      identity.then((identity) => this.#handOver(identity), (error) => this.#refuse(error));
    } catch (error) {
      this.#refuse(error);
    }
  }

  flooded(): void {
    this.#host.onFlood(this);
  }

  gone(): void {
    if (!this.#over) this.#host.onEnd(this);
    this.#over = true;
    this.#host.onSocketGone(this);
  }

  #handOver(identity: Identity): void {
    if (this.#over || this.#transport.state !== "open") return;
    this.gone();
    this.#options.onIdentity(identity);
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
