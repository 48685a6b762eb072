/**
 * A raw client that has not said who it is. Its first frame does, or it is closed in time. Then its transport is handed
 * on, and this is over: what a session is and does is not its business.
 */
import { Link } from "../async/chain.ts";
import type { Identity } from "../auth/auth.ts";
import type { SessionContext } from "./context.ts";
import {
  BrokerUnavailableError,
  KeysUnavailableError,
  messageOf,
  UnauthorizedError,
} from "../protocol/errors.ts";
import { InboundQuota } from "./inbound_quota.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import type { Member } from "./registry.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

export interface PendingSessionOptions {
  /** Seconds the client has to say who it is. */
  timeoutS: number;
  /** Who says this in the first frame. An answer that needs no waiting lets no later frame be missed. */
  identify(text: string): Identity | Promise<Identity>;
  /** Takes over the transport. */
  onIdentity(identity: Identity): void;
}

export class PendingSession extends Link<Member> implements Member, TransportEvents {
  addressKey: string | undefined = undefined;
  readonly #transport: Transport;
  readonly #context: SessionContext;
  readonly #options: PendingSessionOptions;
  readonly #quota: InboundQuota;
  #ticks = 0;
  #over = false;
  #isVerifying = false;

  constructor(transport: Transport, context: SessionContext, options: PendingSessionOptions) {
    super();
    this.#transport = transport;
    this.#context = context;
    this.#options = options;
    this.#quota = new InboundQuota(context.limits);
    transport.events = this;
  }

  tick(): void {
    if (++this.#ticks > this.#options.timeoutS) this.close(CLOSE.noIdentity);
  }

  close({ code, reason }: CloseReason, options: CloseOptions = {}): void {
    if (this.#over) return;
    this.#over = true;
    this.#context.registry.onEnd(this);
    this.#context.metrics.onFail(code);
    this.#context.log.info("connection closed before the client identified itself", { code, reason });
    const whenQuiet = options.whenQuiet === true && this.#context.registry.isPatient(this);
    this.#transport.close({ code, reason }, { whenQuiet });
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
    this.#context.registry.onFlood(this);
  }

  expired(): void {
    this.close(CLOSE.outlived);
  }

  gone(): void {
    if (!this.#over) this.#context.registry.onEnd(this);
    this.#over = true;
    this.#context.registry.onGone(this);
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
    this.close({ code, reason: messageOf(error) }, { whenQuiet: true });
  }
}
