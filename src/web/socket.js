/**
 * One user's socket as the page sees it, on either wire, under one interface. The framed wire is the client's work;
 * the raw wire has none, and a raw socket that has ended stays closed until it is opened by hand. Knows nothing of the
 * page.
 */
import { accessOf, accessToken } from "./access.js";
import { connect } from "./client.js";

/** What close codes mean, in words for people. */
export const CLOSE_MEANINGS = new Map([
  [1000, "closed normally"],
  [1001, "the server is going away"],
  [1005, "closed without a reason"],
  [1006, "connection lost, without a goodbye"],
  [1009, "a frame was too big"],
  [1011, "an error at the server, or at a proxy before it"],
  [1012, "the node restarts"],
  [1013, "overloaded, or the broker can't be reached"],
  [4400, "protocol violation"],
  [4401, "token missing, invalid or expired"],
  [4403, "forbidden, or kicked"],
  [4408, "no identity in time"],
  [4409, "replaced by a newer connection"],
  [4429, "too many connections, or too fast"],
  [4508, "read too slowly"],
]);

/**
 * @typedef {{ phase: "connecting" } | { phase: "open", byToken?: boolean }
 *   | { phase: "closed", code: number, why: string, opened: boolean, byUs: boolean, retryAt?: number }} State
 *   `byToken`: only the token says whose messages come. `retryAt` is the Unix time in milliseconds at which it comes back; absent when it does not, or nobody knows.
 * @typedef {{ kind: "json" | "text" | "binary", data: unknown, id?: string, ts?: number, seq?: number,
 *   replayed?: boolean, isBroadcast?: boolean, group?: string }} Message
 *   `data` is text for "text", base64 for "binary"; a raw socket gives its text as it came, as "text".
 * @typedef {import("../protocol/frames.ts").GapFrame | import("../protocol/frames.ts").BroadcastGapFrame} Gap
 * @typedef {{ state(state: State): void, message(message: Message): void, gap(gap: Gap): void,
 *   hello(hello: { conn: string, node: string }): void,
 *   frame(direction: "up" | "down", data: unknown): void }} Listener
 *   `frame`: what went over the wire, as it is.
 * @typedef {{ open(): void, close(): void }} UserSocket
 *   `open` opens it, at once also when it was waiting to come back; does nothing while it is open. `close` closes
 *   it for good, or stops it from coming back; it can be opened again.
 */

/** `why` of a socket that waits for the browser to have a network. */
export const OFFLINE = "offline";

const BY_US = /** @type {const} */ ({ phase: "closed", code: 1000, why: "", opened: true, byUs: true });

/** @implements {UserSocket} */
export class FramedSocket {
  #username;
  #listener;
  #parse;
  /** @type {import("../client/mod.ts").Client | undefined} */
  #client;
  /** Where it goes on when it is opened again. @type {string | undefined} */
  #position;
  /** The same among the broadcasts. @type {string | undefined} */
  #broadcastPosition;

  /**
   * @param {string} username
   * @param {Listener} listener
   * @param {(text: string) => unknown} parse How frames are read.
   */
  constructor(username, listener, parse) {
    this.#username = username;
    this.#listener = listener;
    this.#parse = parse;
  }

  open() {
    if (this.#client?.state === "open" || this.#client?.state === "connecting") return;
    this.#letGo();
    const listener = this.#listener;
    /** @type {import("../client/mod.ts").Client} */
    let client;
    try {
      const token = accessOf(this.#username);
      const who = token === undefined ? { user: this.#username } : { token };
      // The name goes along: a token of another user is refused then, instead of showing that one's messages here.
      const address = `${location.origin}/ws?${new URLSearchParams({ username: this.#username })}`;
      client = connect(address, {
        ...who,
        resume: this.#position,
        resumeBroadcasts: this.#broadcastPosition,
        parse: this.#parse,
        WebSocket: tapped(listener),
      });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return listener.state({ phase: "closed", code: 4400, why, opened: false, byUs: false });
    }
    this.#client = client;
    const isCurrent = () => this.#client === client;
    /** @type {import("../client/mod.ts").Lost | undefined} */
    let lost;
    client.on("lost", (ending) => lost = ending);
    client.on("open", ({ conn, node }) => listener.hello({ conn, node }));
    client.on("message", (message) => listener.message(readMessage(message)));
    client.on("gap", (gap) => listener.gap(gap));
    client.on("broadcast", (message) => listener.message({ ...readMessage(message), isBroadcast: true }));
    client.on("broadcastGap", (gap) => listener.gap(gap));
    client.on("state", (phase) => {
      if (!isCurrent()) return;
      if (phase === "connecting" || phase === "open") return listener.state({ phase });
      const { code = 1006, reason = "", opened = false, retryMs } = lost ?? {};
      // Browsers don't tell a page why a handshake was refused.
      const isRefused = accessToken() !== "" && !opened && code === 1006 && reason === "";
      const why = phase === "offline" ? OFFLINE : isRefused ? refusalOf(this.#username) : reason;
      const state = { phase: /** @type {const} */ ("closed"), code, why, opened, byUs: false };
      const isTimed = phase === "waiting" && retryMs !== undefined;
      listener.state(isTimed ? { ...state, retryAt: Date.now() + retryMs } : state);
    });
    listener.state({ phase: "connecting" });
  }

  close() {
    this.#letGo();
    this.#listener.state(BY_US);
  }

  #letGo() {
    const client = this.#client;
    this.#client = undefined;
    this.#position = client?.position ?? this.#position;
    this.#broadcastPosition = client?.broadcastPosition ?? this.#broadcastPosition;
    client?.close();
  }
}

/** @implements {UserSocket} */
export class RawSocket {
  #username;
  #listener;
  /** @type {WebSocket | undefined} */
  #socket;

  /**
   * @param {string} username
   * @param {Listener} listener
   */
  constructor(username, listener) {
    this.#username = username;
    this.#listener = listener;
  }

  open() {
    if (this.#socket) return;
    const origin = location.origin.replace(/^http/, "ws");
    const token = accessOf(this.#username);
    const query = token === undefined ? `?${new URLSearchParams({ username: this.#username })}` : "";
    const socket = new (tapped(this.#listener))(`${origin}/ws${query}`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // Its first frame has no place for a name.
    const byToken = accessToken() !== "";
    let opened = false;
    this.#listener.state({ phase: "connecting" });

    socket.onopen = async () => {
      opened = true;
      if (token !== undefined) {
        try {
          const text = await token();
          if (this.#socket === socket) socket.send(JSON.stringify({ token: text }));
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error);
          if (this.#socket !== socket) return;
          this.#letGo();
          this.#listener.state({ phase: "closed", code: 4401, why, opened, byUs: false });
        }
      }
      if (this.#socket === socket) this.#listener.state({ phase: "open", byToken });
    };
    socket.onmessage = ({ data }) => {
      const isText = typeof data === "string";
      this.#listener.message(
        isText ? { kind: "text", data } : { kind: "binary", data: base64(new Uint8Array(data)) },
      );
    };
    socket.onclose = ({ code, reason }) => {
      this.#socket = undefined;
      this.#listener.state({ phase: "closed", code, why: reason, opened, byUs: false });
    };
  }

  close() {
    this.#letGo();
    this.#listener.state(BY_US);
  }

  #letGo() {
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket) {
      // The browser may take long to see the server's answer; nothing that still arrives concerns us.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(1000);
    }
  }
}

/** A WebSocket that shows what goes through it. */
function tapped(/** @type {Listener} */ listener) {
  return class extends WebSocket {
    /** @param {string} url @param {string[]} [protocols] */
    constructor(url, protocols) {
      super(url, protocols);
      this.addEventListener("message", ({ data }) => listener.frame("down", data));
    }

    /** @override */
    send(/** @type {string} */ data) {
      listener.frame("up", data);
      super.send(data);
    }
  };
}

function refusalOf(/** @type {string} */ username) {
  return `Refused, or no answer: the token must be one for ${username}, and still good`;
}

/** @returns {Message} */
function readMessage(
  /** @type {import("../client/mod.ts").Message} */ { data, id, ts, seq, replayed, group },
) {
  const isBytes = data instanceof Uint8Array;
  const kind = isBytes ? "binary" : typeof data === "string" ? "text" : "json";
  return { kind, data: isBytes ? base64(data) : data, id, ts, seq, replayed, group };
}

function base64(/** @type {Uint8Array} */ bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
