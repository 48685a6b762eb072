/**
 * A bare WebSocket peer for the bad cases: it shares nothing with the WebSocket class, answers nothing by itself
 * (no pong, no Close, no end of the TCP connection) and sends whatever bytes it is told to.
 *
 * `reset()` is a real TCP reset: `node:net` sets SO_LINGER to 0 before it closes, so that the kernel sends RST and
 * no FIN. `Deno.Conn` can't do that, its `close()` always sends FIN first; hence `node:net` here.
 */
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { Bell, endOf, withDeadline } from "./deadline.ts";

export const OPCODE = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const;

export interface Frame {
  readonly opcode: number;
  readonly payload: Uint8Array;
  readonly fin: boolean;
  /** The three reserved bits, 0 to 7. */
  readonly reserved: number;
  readonly masked: boolean;
}

export interface FrameToSend {
  readonly opcode: number;
  /** Text is sent as UTF-8. @default "" */
  readonly payload?: string | Uint8Array;
  /** @default true */
  readonly fin?: boolean;
  /** @default 0 */
  readonly reserved?: number;
  /** Clients must mask. @default true */
  readonly masked?: boolean;
  /** Length to claim in the header, in bytes. @default the length of the payload */
  readonly claimedLength?: number;
}

export interface Handshake {
  /** Added to the usual headers or put in their place; null leaves one out. */
  readonly headers?: Readonly<Record<string, string | null>>;
  /** @default "GET" */
  readonly method?: string;
}

export interface HandshakeAnswer {
  readonly statusLine: string;
  readonly status: number;
  readonly headers: Headers;
  /** Empty when the status is 101. */
  readonly body: string;
}

/** How the TCP connection ended: the server's FIN, a reset, or by our own doing. */
export type End = "fin" | "reset" | "own";

const WAIT_MS = 20_000;

export class RawSocket implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #url: URL;
  readonly #closed: Promise<void>;
  readonly #ended = Promise.withResolvers<End>();
  readonly #bell = new Bell();
  #unread: Buffer = Buffer.alloc(0);
  #endedBy: End | undefined;
  #answer: HandshakeAnswer | undefined;

  private constructor(socket: Socket, url: URL) {
    this.#socket = socket;
    this.#url = url;
    socket.on("data", (chunk: Buffer) => {
      this.#unread = Buffer.concat([this.#unread, chunk]);
      this.#bell.ring();
    });
    socket.on("end", () => this.#end("fin"));
    socket.on("error", () => this.#end("reset"));
    this.#closed = new Promise((resolve) =>
      socket.on("close", () => {
        this.#end("own");
        resolve();
      })
    );
  }

  /** Opens the TCP connection and sends nothing. */
  static async dial(url: string | URL): Promise<RawSocket> {
    const target = new URL(url);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connect({ host: target.hostname, port: Number(target.port || 80), allowHalfOpen: true });
    const raw = new RawSocket(socket, target);
    socket.once("connect", resolve);
    socket.once("error", reject);
    await withDeadline(
      promise,
      WAIT_MS,
      `a connection to ${target.host}`,
      () => `the socket is ${socket.readyState}`,
    );
    return raw;
  }

  /** Dials, does the handshake and resolves with its answer in `answer`, whatever its status. */
  static async open(url: string | URL, handshake: Handshake = {}): Promise<RawSocket> {
    const raw = await RawSocket.dial(url);
    try {
      raw.sendHandshake(handshake);
      await raw.readAnswer();
      return raw;
    } catch (error) {
      await raw.closeAbruptly();
      throw error;
    }
  }

  /** What the server answered to the handshake. */
  get answer(): HandshakeAnswer {
    if (this.#answer === undefined) {
      throw new Error("The handshake was not answered yet: call readAnswer() first");
    }
    return this.#answer;
  }

  /** Resolves when the TCP connection has ended, at least in the direction from the server. */
  get ended(): PromiseLike<End> {
    return endOf(
      this.#ended.promise,
      `the connection to ${this.#url.host} to end`,
      () => `it is ${this.#socket.readyState}, and ${this.#unread.length} bytes are there`,
    );
  }

  sendHandshake(handshake: Handshake = {}): void {
    const headers = {
      "Host": this.#url.host,
      "Connection": "Upgrade",
      "Upgrade": "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": crypto.getRandomValues(new Uint8Array(16)).toBase64(),
      ...handshake.headers,
    };
    const lines = Object.entries(headers).filter(([, value]) => value !== null).map((pair) =>
      pair.join(": ")
    );
    const target = this.#url.pathname + this.#url.search;
    this.sendBytes([`${handshake.method ?? "GET"} ${target} HTTP/1.1`, ...lines, "", ""].join("\r\n"));
  }

  async readAnswer(ms = WAIT_MS): Promise<HandshakeAnswer> {
    await this.#buffered(() => this.#unread.includes("\r\n\r\n"), "the answer to the handshake", ms);
    const [head] = this.#unread.toString("latin1").split("\r\n\r\n", 1);
    const [statusLine = "", ...lines] = head!.split("\r\n");
    this.#take(head!.length + 4);
    const headers = new Headers(lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    }));
    const status = Number(statusLine.split(" ")[1]);
    const body = status === 101 ? "" : await this.#readBody(headers, ms);
    return this.#answer = { statusLine, status, headers, body };
  }

  /** Sends any bytes, outside of any frame. A string goes out as UTF-8. */
  sendBytes(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  send(frame: FrameToSend): void {
    this.sendBytes(encodeFrame(frame));
  }

  sendText(text: string): void {
    this.send({ opcode: OPCODE.text, payload: text });
  }

  /**
   * Sends several at one time. One by one they may be apart on a busy machine: one that comes to a socket after it was closed
   * makes Deno drop it, and with it the Close frame.
   */
  sendTexts(texts: readonly string[]): void {
    this.sendBytes(Buffer.concat(texts.map((payload) => encodeFrame({ opcode: OPCODE.text, payload }))));
  }

  /** Sends a Close frame and leaves the TCP connection open. */
  sendClose(code: number, reason = ""): void {
    const payload = Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]);
    this.send({ opcode: OPCODE.close, payload });
  }

  /** The next frame of any kind; undefined when the connection ended before a whole one came. */
  async readFrame(ms = WAIT_MS): Promise<Frame | undefined> {
    let frame: { frame: Frame; length: number } | undefined;
    await this.#buffered(
      () => (frame = decodeFrame(this.#unread)) !== undefined || this.#endedBy !== undefined,
      "a frame",
      ms,
    );
    if (frame === undefined) return undefined;
    this.#take(frame.length);
    return frame.frame;
  }

  /** The payload of the next frame with this opcode as text. Frames of other kinds are passed over. */
  async readText(opcode: number = OPCODE.text, ms = WAIT_MS): Promise<string> {
    return (await this.#readKind(opcode, ms)).toString();
  }

  /** The code and reason of the server's Close frame; code 1005 when it has none. Other frames are passed over. */
  async readClose(ms = WAIT_MS): Promise<{ code: number; reason: string }> {
    const payload = await this.#readKind(OPCODE.close, ms);
    return payload.length < 2
      ? { code: 1005, reason: "" }
      : { code: payload.readUInt16BE(), reason: payload.subarray(2).toString() };
  }

  /** Stops taking bytes from the kernel, as a stalled reader does: soon the server can't send any more. */
  stopReading(): void {
    this.#socket.pause();
  }

  resumeReading(): void {
    this.#socket.resume();
  }

  /** Ends the TCP connection without a Close frame: the server sees an early end of the stream. */
  async closeAbruptly(): Promise<void> {
    this.#socket.destroy();
    await withDeadline(
      this.#closed,
      WAIT_MS,
      "the socket to be closed",
      () => `it is ${this.#socket.readyState}`,
    );
  }

  /** Resets the TCP connection: the server sees an error, and what is on its way is lost. */
  async reset(): Promise<void> {
    this.#socket.resetAndDestroy();
    await withDeadline(
      this.#closed,
      WAIT_MS,
      "the socket to be closed",
      () => `it is ${this.#socket.readyState}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.closeAbruptly();
  }

  /** The first cause counts. */
  #end(how: End): void {
    this.#endedBy ??= how;
    this.#ended.resolve(this.#endedBy);
    this.#bell.ring();
  }

  /** Waits for bytes from the server until the condition holds. */
  async #buffered(condition: () => boolean, what: string, ms: number): Promise<void> {
    await this.#bell.until(
      () => {
        if (condition()) return true;
        if (this.#endedBy !== undefined) {
          throw new Error(`The connection ended (${this.#endedBy}) before ${what} came`);
        }
        return false;
      },
      what,
      ms,
      () =>
        `${this.#unread.length} bytes are there: ${JSON.stringify(this.#unread.toString("latin1", 0, 200))}`,
    );
  }

  #take(length: number): Buffer {
    const bytes = this.#unread.subarray(0, length);
    this.#unread = this.#unread.subarray(length);
    return bytes;
  }

  async #readKind(opcode: number, ms: number): Promise<Buffer> {
    while (true) {
      const frame = await this.readFrame(ms);
      if (frame === undefined) {
        throw new Error(`The connection ended (${this.#endedBy}) before a frame with opcode ${opcode} came`);
      }
      if (frame.opcode === opcode) return Buffer.from(frame.payload);
    }
  }

  async #readBody(headers: Headers, ms: number): Promise<string> {
    if (headers.get("transfer-encoding") !== "chunked") {
      return (await this.#takeBody(Number(headers.get("content-length") ?? 0), ms)).toString();
    }
    const chunks: Buffer[] = [];
    while (true) {
      await this.#buffered(() => this.#unread.includes("\r\n"), "the size of a chunk", ms);
      const size = parseInt(this.#take(this.#unread.indexOf("\r\n") + 2).toString("latin1"), 16);
      const chunk = await this.#takeBody(size + 2, ms);
      if (size === 0) return Buffer.concat(chunks).toString();
      chunks.push(chunk.subarray(0, size));
    }
  }

  async #takeBody(length: number, ms: number): Promise<Buffer> {
    await this.#buffered(() => this.#unread.length >= length, "the whole body", ms);
    return this.#take(length);
  }
}

/** A frame as bytes, legal or not. */
export function encodeFrame(frame: FrameToSend): Uint8Array {
  const payload = Buffer.from(frame.payload ?? "");
  const { opcode, fin = true, reserved = 0, masked = true, claimedLength: length = payload.length } = frame;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10);
  head[0] = (fin ? 0x80 : 0) | reserved << 4 | opcode;
  head[1] = (masked ? 0x80 : 0) | (length < 126 ? length : length < 65_536 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
  if (!masked) return Buffer.concat([head, payload]);
  const mask = crypto.getRandomValues(new Uint8Array(4));
  return Buffer.concat([head, mask, payload.map((byte, i) => byte ^ mask[i % 4]!)]);
}

/** The first frame in the bytes, unmasked, and its length on the wire; undefined when it is not all there. */
export function decodeFrame(bytes: Buffer): { frame: Frame; length: number } | undefined {
  if (bytes.length < 2) return undefined;
  const short = bytes[1]! & 0x7f;
  const masked = (bytes[1]! & 0x80) !== 0;
  const lengthEnd = short < 126 ? 2 : short === 126 ? 4 : 10;
  const start = lengthEnd + (masked ? 4 : 0);
  if (bytes.length < start) return undefined;
  const size = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < start + size) return undefined;
  const mask = bytes.subarray(lengthEnd, start);
  const payload = bytes.subarray(start, start + size).map((byte, i) => masked ? byte ^ mask[i % 4]! : byte);
  const frame = {
    opcode: bytes[0]! & 0x0f,
    payload,
    fin: (bytes[0]! & 0x80) !== 0,
    reserved: bytes[0]! >> 4 & 0x7,
    masked,
  };
  return { frame, length: start + size };
}
