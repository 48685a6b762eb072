/**
 * What carries a client's connections: WebSockets, or server-sent events where something in between blocks those. That is
 * so when handshakes fail, again and again, of which the service says by plain HTTP that it would let them in. The
 * position goes with each attempt, so that nothing is lost over a change.
 *
 * WebSockets are tried again after a while, at the next time that a stream ends, and in another network at once.
 */
import type { Address } from "./address.ts";
import type { Transport } from "./options.ts";
import type { Socket, SocketConstructor } from "./session.ts";

/** For so long WebSockets are not tried, once they are blocked, in milliseconds. */
const AVOID_MS = 600_000;

export class Transports {
  readonly #wanted: Transport;
  readonly #WebSocket: SocketConstructor | undefined;
  readonly #onError: (error: Error) => void;
  #last: Exclude<Transport, "auto"> = "websocket";
  /** Until then WebSockets are not tried, by the wall clock; undefined where they are not known to be blocked. */
  #avoidUntil: number | undefined;

  /** @throws {TypeError} when there are no WebSockets and nothing else is wanted. */
  constructor(
    wanted: Transport,
    WebSocket: SocketConstructor | undefined,
    onError: (error: Error) => void,
  ) {
    if (!["auto", "websocket", "sse"].includes(wanted)) {
      throw new TypeError(`There is no transport "${wanted}": give "auto", "websocket" or "sse"`);
    }
    if (wanted === "websocket" && !WebSocket) {
      throw new TypeError(`There is no WebSocket here: give one as the option "WebSocket"`);
    }
    this.#wanted = wanted;
    this.#WebSocket = WebSocket;
    this.#onError = onError;
  }

  /** Begins a connection. @throws whatever the constructor of the socket throws. */
  open(address: Address): Socket | Promise<Socket> {
    const WebSocket = this.#WebSocket;
    const isBlocked = this.#wanted === "auto" && Date.now() < (this.#avoidUntil ?? 0);
    if (this.#wanted === "sse" || !WebSocket || isBlocked) {
      this.#last = "sse";
      return this.#stream(address);
    }
    this.#last = "websocket";
    return new WebSocket(address.url, address.protocols);
  }

  /** Few clients ever need it, so it is not loaded before. */
  async #stream(address: Address): Promise<Socket> {
    const { EventStream } = await import("./event_stream.ts");
    return new EventStream(address, this.#onError);
  }

  /** The connection is open. */
  opened(): void {
    if (this.#last === "websocket") this.#avoidUntil = undefined;
  }

  /**
   * It never opened.
   * @returns To be called when by plain HTTP the service would let it in; says whether something else can be tried.
   */
  failed(): () => boolean {
    // By the time that it is known another attempt may have begun, with another transport.
    const tried = this.#last;
    // They were tried again, and are blocked as before: no reason to find it out anew.
    if (tried === "websocket" && this.#avoidUntil !== undefined) this.#blocked(tried);
    return () => this.#blocked(tried);
  }

  #blocked(tried: Transport): boolean {
    const isNews = this.#wanted === "auto" && tried === "websocket";
    this.#avoidUntil = isNews ? Date.now() + AVOID_MS : undefined;
    return isNews;
  }

  /** The network is another one, or may be. */
  moved(): void {
    this.#avoidUntil = undefined;
  }
}
