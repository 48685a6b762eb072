/**
 * A lean WebSocket client for many thousands at a time: the handshake, whole text and binary frames, ping and
 * Close, on a plain TCP connection. What arrives is handed on as bytes in its own buffer, so a message costs one
 * read and no string.
 *
 * It does not check what a browser would (the accept key, UTF-8), and takes no fragmented messages; it counts on
 * the tests for that.
 */
import { Attempt } from "../async/attempt.ts";
import type { Deadlines } from "../async/deadlines.ts";
import { headIn, MAX_ANSWER_BYTES, type Refusal, refusalIn, sizeOf } from "./http_answer.ts";
import { dial, type Place, type Stream, writeAll } from "./stream.ts";

export interface SocketOptions {
  place: Place;
  /** Path and query. */
  path: string;
  subprotocol?: string | undefined;
  source?: string | undefined;
  /** Bound how long it may take until the handshake is answered. @default nothing does */
  deadlines?: Deadlines | undefined;
  /** Gives the handshake up, for its reason. */
  signal?: AbortSignal | undefined;
  /** Bytes of a message; valid during the call only. */
  onMessage(bytes: Uint8Array, from: number, to: number): void;
  /** The connection has ended; `code` is that of the Close frame, 0 when there was none. */
  onEnd?(code: number): void;
}

/** The server answered the handshake with something else than 101. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  constructor(readonly refusal: Refusal) {
    super(`The handshake was answered with ${refusal.status}: ${refusal.reason}`);
  }
}

const BUFFER_BYTES = 2_048;
const CLOSE_OPCODE = 0x8, PING_OPCODE = 0x9, PONG_OPCODE = 0xa;
const encoder = new TextEncoder();
/** How long the server may take to end the connection after our Close frame; many thousands may close at a time. */
const CLOSE_MS = 20_000;

export class LeanSocket {
  readonly #stream: Stream;
  readonly #options: SocketOptions;
  readonly #ended = Promise.withResolvers<void>();
  #buffer: Uint8Array<ArrayBuffer> = new Uint8Array(BUFFER_BYTES);
  #end = 0;
  /** Size of the frame that has begun to arrive. */
  #wanted = 0;
  #code = 0;
  #isClosing = false;

  private constructor(stream: Stream, options: SocketOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  /**
   * Resolves when the handshake is answered; what came together with the answer is handed on in the next turn.
   * @throws {RefusedError}
   */
  static async open(options: SocketOptions): Promise<LeanSocket> {
    const { place, source, deadlines, signal } = options;
    const late = () => new Error(`no answer in ${deadlines!.limitMs / 1_000} s`);
    const attempt = new Attempt(deadlines, { late, signal });
    let stream: Stream | undefined;
    let socket;
    try {
      stream = await attempt.step(dial(place, source), (tooLate) => tooLate.close());
      socket = new LeanSocket(stream, options);
      await attempt.step(writeAll(stream, handshakeOf(options)));
      await attempt.step(socket.#answer());
    } catch (error) {
      stream?.close();
      throw error;
    } finally {
      attempt.end();
    }
    void socket.#run();
    return socket;
  }

  /**
   * Sends a Close frame and waits until the server has ended the connection; false when it did not in time.
   * @param ms Milliseconds that it has.
   */
  async close(ms = CLOSE_MS): Promise<boolean> {
    this.#isClosing = true;
    let inTime = true;
    const timer = setTimeout(() => {
      inTime = false;
      this.#stream.close();
    }, ms);
    await this.#send(CLOSE_OPCODE, Uint8Array.of(1_000 >> 8, 1_000 & 0xff));
    await this.#ended.promise;
    clearTimeout(timer);
    return inTime;
  }

  async #answer(): Promise<void> {
    const read = () => this.#buffer.subarray(0, this.#end);
    let head;
    while (!(head = headIn(read()))) {
      if (!await this.#fill()) throw new Error("The connection ended before the handshake was answered");
    }
    if (head.status === 101) return this.#drop(head.end);
    while (sizeOf(head, read()) === undefined && this.#end < MAX_ANSWER_BYTES && await this.#fill());
    throw new RefusedError(refusalIn(head.status, read().subarray(head.end)));
  }

  async #run(): Promise<void> {
    try {
      do this.#takeFrames(); while (await this.#fill());
    } catch {
      // Reset, or closed by us: ended either way.
    }
    this.#stream.close();
    if (!this.#isClosing) this.#options.onEnd?.(this.#code);
    this.#ended.resolve();
  }

  async #fill(): Promise<boolean> {
    if (this.#end === this.#buffer.length) this.#grow(this.#end * 2);
    else if (this.#wanted > this.#buffer.length) this.#grow(this.#wanted);
    const room = this.#end === 0 ? this.#buffer : this.#buffer.subarray(this.#end);
    const count = await this.#stream.read(room);
    if (count === null) return false;
    this.#end += count;
    return true;
  }

  #takeFrames(): void {
    const buffer = this.#buffer;
    const end = this.#end;
    let at = 0;
    while (end - at >= 2) {
      const short = buffer[at + 1]! & 0x7f;
      const start = at + (short < 126 ? 2 : short === 126 ? 4 : 10);
      if (start > end) break;
      const length = short < 126
        ? short
        : short === 126
        ? buffer[at + 2]! << 8 | buffer[at + 3]!
        : Number(new DataView(buffer.buffer).getBigUint64(at + 2));
      const next = start + length;
      if (next > end) {
        this.#wanted = next - at;
        break;
      }
      this.#onFrame(buffer[at]!, start, next);
      at = next;
    }
    this.#drop(at);
  }

  #onFrame(first: number, from: number, to: number): void {
    const opcode = first & 0x0f;
    if ((first & 0x80) === 0 || opcode === 0) throw new Error("Fragmented messages are not expected here");
    if (opcode < CLOSE_OPCODE) return this.#options.onMessage(this.#buffer, from, to);
    if (opcode === PING_OPCODE) void this.#send(PONG_OPCODE, this.#buffer.slice(from, to));
    else if (opcode === CLOSE_OPCODE) {
      this.#code = to - from < 2 ? 1_005 : this.#buffer[from]! << 8 | this.#buffer[from + 1]!;
      if (!this.#isClosing) void this.#send(CLOSE_OPCODE, this.#buffer.slice(from, to));
    }
  }

  /** A short control frame. Zeros are a mask like any other. */
  async #send(opcode: number, payload: Uint8Array): Promise<void> {
    const frame = new Uint8Array(6 + payload.length);
    frame[0] = 0x80 | opcode;
    frame[1] = 0x80 | payload.length;
    frame.set(payload, 6);
    await writeAll(this.#stream, frame).catch(() => {}); // the reader sees the end
  }

  #drop(count: number): void {
    if (count === 0) return;
    if (count < this.#end) this.#buffer.copyWithin(0, count, this.#end);
    this.#end -= count;
  }

  #grow(size: number): void {
    const bigger = new Uint8Array(size);
    bigger.set(this.#buffer.subarray(0, this.#end));
    this.#buffer = bigger;
  }
}

function handshakeOf({ place, path, subprotocol }: SocketOptions): Uint8Array {
  const lines = [
    `GET ${path} HTTP/1.1`,
    `Host: ${place.host}`,
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    // Any 16 bytes in base64.
    "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
    ...(subprotocol === undefined ? [] : [`Sec-WebSocket-Protocol: ${subprotocol}`]),
  ];
  return encoder.encode(lines.join("\r\n") + "\r\n\r\n");
}
