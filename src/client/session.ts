/**
 * One socket of a client, from the handshake to its end. Reads frames, notices a server that went silent, and ends
 * exactly once, whatever ends it; it never waits for a peer that does not answer.
 *
 * Whether to connect again is `Link`'s business, what the frames mean is `Client`'s.
 */
import { InvalidFrameError } from "../protocol/errors.ts";
import { type ByeFrame, type ClientFrame, formatFrame, type ServerFrame } from "../protocol/frames.ts";

/**
 * What a client needs of a socket. Each implementation has event types of its own, so that what listens is not typed; and
 * not every program that is type-checked knows the browser's `WebSocket`.
 */
export interface Socket {
  readonly readyState?: number;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** What sockets are made with: the global `WebSocket`, that of the package `ws`, or one like them. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** How a connection, or the attempt to have one, ended. */
export interface Ending {
  /** The close code; 1006 when the connection broke or never came about. */
  readonly code: number;
  readonly reason: string;
  /** When the server wants to see the client again, in milliseconds. */
  readonly retryMs: number | undefined;
  /** How long it was open, in milliseconds; undefined when it never was. */
  readonly openMs: number | undefined;
}

export interface SessionOptions {
  /** Reads the text of a frame. */
  readonly parse: (text: string) => unknown;
  /** How late the server's sign of life may be, and how long the first frame may take, in milliseconds. */
  readonly timeoutMs: number;
}

export interface SessionHost {
  /** @param size Length of the frame's text. */
  onFrame(frame: ServerFrame, size: number): void;
  onError(error: Error): void;
  /** The last call, and the only one of its kind. */
  onEnd(ending: Ending): void;
}

/** How long the server may take to answer a Close frame, in milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000;
/** A timer this late says that nothing ran meanwhile: frames may have come that were not read yet. */
const LATE_MS = 1_000;
/** How long such frames are given, in milliseconds. */
const SECOND_LOOK_MS = 2_000;
const DEFAULT_PING_S = 25;
const ABNORMAL = 1006;
/** Of a socket's `readyState`: until its handshake is answered, and when it is no more. */
const CONNECTING = 0, CLOSED = 3;

export class Session {
  readonly #socket: Socket;
  readonly #host: SessionHost;
  readonly #options: SessionOptions;
  #openedAt: number | undefined;
  #bye: ByeFrame | undefined;
  /** What the runtime said about a failure; browsers say nothing. */
  #trouble = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Silence of this length is the end. */
  #limitMs: number;
  // By the wall clock, which goes on while a machine sleeps.
  #heardAt = Date.now();
  #dueAt = 0;
  #lookedTwice = false;

  constructor(socket: Socket, host: SessionHost, options: SessionOptions) {
    this.#host = host;
    this.#options = options;
    this.#limitMs = options.timeoutMs;
    this.#socket = socket;
    socket.onmessage = ({ data }: { data: unknown }) => this.#onMessage(data);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) =>
      this.#end(code, reason || this.#trouble);
    socket.onerror = ({ message }: { message?: unknown }) => {
      if (typeof message === "string") this.#trouble = message;
      // A close follows at once; but not in Node 22 for a handshake that failed, and not in Chromium for an address that
      // the page's policy forbids.
      if (socket.readyState !== CONNECTING && socket.readyState !== CLOSED) return;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#end(ABNORMAL, this.#trouble), 0);
    };
    this.#watch(this.#limitMs);
  }

  send(frame: ClientFrame): void {
    this.#socket.send(formatFrame(frame));
  }

  /** Closes in good order, with a limit to its patience: `onEnd` is called when the server has answered. */
  close(): void {
    this.#socket.onmessage = null;
    clearTimeout(this.#timer);
    this.#socket.onclose = () => this.#end(1000, "");
    this.#timer = setTimeout(() => this.#end(1000, ""), CLOSE_TIMEOUT_MS);
    this.#socket.close(1000);
  }

  /** Lets go of the socket now and asks it to close. */
  drop(reason: string): void {
    this.#end(ABNORMAL, reason);
    this.#socket.close(1000, reason);
  }

  #onMessage(data: unknown): void {
    this.#heardAt = Date.now();
    this.#lookedTwice = false;
    const frame = this.#read(data);
    if (frame === undefined) return;
    if (frame.t === "bye") this.#bye = frame;
    if (frame.t === "hi") {
      this.#openedAt = Date.now();
      this.#limitMs = (frame.ping > 0 ? frame.ping : DEFAULT_PING_S) * 1_000 + this.#options.timeoutMs;
    }
    this.#host.onFrame(frame, (data as string).length);
  }

  #read(data: unknown): ServerFrame | undefined {
    try {
      const frame = this.#options.parse(data as string) as { t?: unknown } | null | undefined;
      if (typeof frame?.t === "string") return frame as ServerFrame;
      throw new InvalidFrameError('It has no "t"');
    } catch (cause) {
      this.#host.onError(new InvalidFrameError(`Can't read a frame from the server: "${data}"`, { cause }));
      return undefined;
    }
  }

  // One timer that looks when it fires, instead of one that every frame sets anew.
  #watch(ms: number): void {
    this.#dueAt = Date.now() + ms;
    this.#timer = setTimeout(() => this.#look(), ms);
  }

  #look(): void {
    const now = Date.now();
    const silentMs = now - this.#heardAt;
    if (silentMs < 0) this.#heardAt = now; // the clock was set back
    if (silentMs < this.#limitMs) {
      this.#watch(Math.min(this.#limitMs, this.#limitMs - silentMs));
    } else if (now - this.#dueAt > LATE_MS && !this.#lookedTwice) {
      this.#lookedTwice = true;
      this.#watch(SECOND_LOOK_MS);
    } else {
      const what = this.#openedAt === undefined ? "did not answer" : "was silent";
      this.drop(`The server ${what} for ${Math.ceil(silentMs / 1_000)} s`);
    }
  }

  #end(code: number, reason: string): void {
    clearTimeout(this.#timer);
    this.#socket.onmessage = this.#socket.onclose = null;
    // A socket that is dropped early may still fail, which some implementations throw when nobody listens.
    this.#socket.onerror = () => {};
    const bye = this.#bye;
    // Deno's code for a broken connection is 0. If it broke after a `bye`, that has said how it is meant.
    const isAbnormal = code === 0 || code === ABNORMAL;
    this.#host.onEnd({
      code: isAbnormal ? bye?.code ?? ABNORMAL : code,
      reason: bye?.why || reason,
      retryMs: bye?.retry_ms,
      openMs: this.#openedAt === undefined ? undefined : Date.now() - this.#openedAt,
    });
  }
}
