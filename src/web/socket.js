/**
 * One user's socket as the page sees it: opens it, reads frames of both wires, and comes back by the rule of
 * the protocol. Knows nothing of the page. It stands in for the client SDK and is meant to be replaced by it, so
 * it does no more than a console needs: no resume, no acknowledgements, no tokens.
 *
 * The rule: 1000 and 44xx stop, everything else reconnects after the `retry_ms` of a `bye`, else after full
 * jitter of min(30 s, 0.5 s · 2ⁿ); n starts again after 10 s connected.
 */

const SUBPROTOCOL = "userwire.v1";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const STEADY_MS = 10_000;

/** What close codes mean, in words for people. */
export const CLOSE_MEANINGS = new Map([
  [1000, "closed normally"],
  [1001, "the server is going away"],
  [1005, "closed without a reason"],
  [1006, "connection lost, without a goodbye"],
  [1009, "a frame was too big"],
  [1011, "server error"],
  [1012, "the instance restarts"],
  [1013, "overloaded, or the broker can't be reached"],
  [4400, "protocol violation"],
  [4401, "token missing, invalid or expired"],
  [4403, "forbidden, or kicked"],
  [4408, "no identity in time"],
  [4409, "replaced by a newer connection"],
  [4429, "too many connections, or too fast"],
  [4503, "the broker was lost"],
  [4508, "read too slowly"],
]);

/** Whether a client comes back after this code. */
export function shouldReconnect(/** @type {number} */ code) {
  return code !== 1000 && !(code >= 4400 && code < 4500);
}

/**
 * @typedef {{ phase: "connecting" } | { phase: "open" }
 *   | { phase: "closed", code: number, why: string, opened: boolean, byUs: boolean, retryAt?: number }} State
 *   `retryAt` is the Unix time in milliseconds at which it comes back; absent when it does not.
 * @typedef {{ kind: "json" | "text" | "binary", data: unknown, id?: string, ts?: number, seq?: number,
 *   replayed?: boolean }} Message
 *   `data` is text for "text", base64 for "binary"; a raw socket gives its text as it came, as "text".
 * @typedef {{ state(state: State): void, message(message: Message): void,
 *   hello(hello: { conn: string, node: string }): void }} Listener
 */

export class UserSocket {
  #url;
  #framed;
  #listener;
  #parse;
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {number | undefined} */
  #retry;
  #attempt = 0;

  /**
   * @param {string} url With the username.
   * @param {Listener} listener
   * @param {{ framed: boolean, parse?: (text: string) => any }} options `framed`: speak `userwire.v1`;
   *   `parse`: how frames are read, when not by plain `JSON.parse`.
   */
  constructor(url, listener, { framed, parse = JSON.parse }) {
    this.#url = url;
    this.#framed = framed;
    this.#listener = listener;
    this.#parse = parse;
  }

  /** Opens it, at once also when it was waiting to come back. Does nothing while it is open. */
  open() {
    if (this.#socket) return;
    clearTimeout(this.#retry);
    const socket = new WebSocket(this.#url, this.#framed ? [SUBPROTOCOL] : []);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let openedAt = 0;
    /** @type {{ code: number, why: string, retry_ms?: number } | undefined} */
    let bye;
    this.#listener.state({ phase: "connecting" });

    socket.onopen = () => {
      openedAt = Date.now();
      this.#listener.state({ phase: "open" });
    };
    socket.onmessage = ({ data }) => {
      if (!this.#framed) return this.#listener.message(readRaw(data));
      const frame = this.#readFrame(data);
      if (frame?.t === "hi") this.#listener.hello({ conn: String(frame.conn), node: String(frame.node) });
      if (frame?.t === "bye") bye = frame;
      if (frame?.t === "m") this.#listener.message(readMessage(frame));
    };
    socket.onclose = (event) => {
      this.#socket = undefined;
      const { code } = event;
      const state = {
        phase: /** @type {const} */ ("closed"),
        code,
        why: bye?.why ?? event.reason,
        opened: openedAt > 0,
        byUs: false,
      };
      if (!shouldReconnect(code)) return this.#listener.state(state);
      if (openedAt > 0 && Date.now() - openedAt >= STEADY_MS) this.#attempt = 0;
      const waitMs = bye?.retry_ms ??
        Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempt);
      this.#attempt++;
      this.#retry = setTimeout(() => this.open(), waitMs);
      this.#listener.state({ ...state, retryAt: Date.now() + waitMs });
    };
  }

  /** Closes it for good, or stops it from coming back. */
  close() {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#attempt = 0;
    if (socket) {
      // The browser may take long to see the server's answer; nothing that still arrives concerns us.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(1000);
    }
    this.#listener.state({ phase: "closed", code: 1000, why: "", opened: true, byUs: true });
  }

  /** @returns {any} A frame, or undefined for what is none. */
  #readFrame(/** @type {unknown} */ data) {
    try {
      const frame = this.#parse(String(data));
      return typeof frame === "object" ? frame : undefined;
    } catch {
      return undefined; // Broken frames are the server's fault and no reason to stop reading.
    }
  }
}

/** @returns {Message} */
function readRaw(/** @type {string | ArrayBuffer} */ data) {
  if (typeof data === "string") return { kind: "text", data };
  let binary = "";
  for (const byte of new Uint8Array(data)) binary += String.fromCharCode(byte);
  return { kind: "binary", data: btoa(binary) };
}

/** @returns {Message} */
function readMessage(/** @type {any} */ frame) {
  const kind = frame.enc === "base64" ? "binary" : typeof frame.data === "string" ? "text" : "json";
  const { data, id, ts, seq } = frame;
  return { kind, data, id, ts, seq, replayed: frame.r === 1 };
}
