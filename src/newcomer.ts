/**
 * A raw socket whose client has not said who it is. Its first frame does, or it is closed in time.
 * Then the socket is handed on, and this is over.
 */
import type { CloseOptions, ConnectionHost, Session } from "./connection.ts";
import { messageOf } from "./errors.ts";
import { hangUp } from "./hang_up.ts";
import { CLOSE, type CloseReason, parseIdentityFrame } from "./protocol.ts";

export interface NewcomerOptions {
  /** Seconds the client has to say who it is. */
  timeoutS: number;
  foldUsernames: boolean;
  /** Takes over the socket; called in the same turn as the frame arrives, so that no later frame is missed. */
  onIdentity(username: string): void;
}

export class Newcomer implements Session {
  readonly #socket: WebSocket;
  readonly #host: ConnectionHost;
  readonly #options: NewcomerOptions;
  #ticks = 0;
  #over = false;

  constructor(socket: WebSocket, host: ConnectionHost, options: NewcomerOptions) {
    this.#socket = socket;
    this.#host = host;
    this.#options = options;
    socket.onmessage = (event) => this.#onFrame(event.data);
    socket.onclose = () => this.#leave();
    socket.onerror = () => {}; // a broken socket closes too
  }

  tick(): void {
    if (++this.#ticks > this.#options.timeoutS) this.close(CLOSE.noIdentity);
  }

  close(reason: CloseReason, options: CloseOptions = {}): void {
    if (this.#over) return;
    this.#over = true;
    this.#host.onEnd(this);
    this.#host.log.info("socket closed before its client said who it is", {
      code: reason.code,
      why: reason.why,
    });
    hangUp(this.#socket, reason, options);
    // When the client left before the handshake was answered, Deno never says anything.
    if (this.#socket.readyState === WebSocket.CONNECTING) this.#leave();
  }

  #onFrame(data: unknown): void {
    if (this.#over) return;
    let username: string;
    try {
      // Longer than any name with its braces could be: not worth a parse.
      if (typeof data !== "string" || data.length > this.#host.limits.maxFrameBytes) {
        return this.close(typeof data === "string" ? CLOSE.tooBig : CLOSE.protocol, { whenQuiet: true });
      }
      username = parseIdentityFrame(data, { fold: this.#options.foldUsernames });
    } catch (error) {
      return this.close({ code: CLOSE.protocol.code, why: messageOf(error) }, { whenQuiet: true });
    }
    this.#leave();
    this.#options.onIdentity(username);
  }

  #leave(): void {
    if (!this.#over) this.#host.onEnd(this);
    this.#over = true;
    this.#host.onSocketGone(this);
  }
}
