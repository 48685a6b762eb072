/**
 * The backend's part: sending. By bare `PUBLISH`, pipelined on one connection, or by HTTP on some kept-alive
 * connections. Either way messages of one user leave, and are carried out, in order.
 */
import { dial, type Stream, writeAll } from "./stream.ts";

/** What became of the sends. */
export interface SendCounts {
  /** Answered with a success. */
  answered: number;
  /** Of those: the answer was that nobody listens. */
  unheard: number;
  /** Refused, or not answered. */
  failed: number;
}

export abstract class Sender {
  readonly counts: SendCounts = { answered: 0, unheard: 0, failed: 0 };
  /** Called after answers have arrived. */
  onAnswer: () => void = () => {};
  /** Sends that keep the way busy: more of them only wait. */
  abstract readonly width: number;
  /** Sends not answered yet. */
  pending = 0;

  /**
   * Hands a message over; it leaves at the next `flush`.
   * @param user Number of the user, for the way; `username` is where it goes.
   */
  abstract send(user: number, username: string, payload: string): void;

  abstract flush(): void;

  abstract close(): void;

  /** Resolves when every send was answered, or none has been for a second. */
  async settle(): Promise<void> {
    for (let quiet = 0, before = this.pending; this.pending > 0 && quiet < 200; quiet++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (this.pending !== before) quiet = 0;
      before = this.pending;
    }
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const COLON = 0x3a, CR = 0x0d, LF = 0x0a, ZERO = 0x30;

/** `PUBLISH`, as any program may do it. */
export class PublishSender extends Sender {
  readonly width = Infinity;
  readonly #stream: Stream;
  #commands: string[] = [];
  #isWriting = false;

  private constructor(stream: Stream) {
    super();
    this.#stream = stream;
    void this.#read();
  }

  static async open(redisPort: number): Promise<PublishSender> {
    return new PublishSender(await dial({ port: redisPort }));
  }

  send(_user: number, username: string, payload: string): void {
    // Both are ASCII, so a character is a byte.
    this.#commands.push(
      `*3\r\n$7\r\nPUBLISH\r\n$${username.length}\r\n${username}\r\n$${payload.length}\r\n${payload}\r\n`,
    );
    this.pending++;
  }

  flush(): void {
    if (!this.#isWriting && this.#commands.length > 0) void this.#write();
  }

  close(): void {
    this.#stream.close();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      while (this.#commands.length > 0) {
        const bytes = encoder.encode(this.#commands.join(""));
        this.#commands = [];
        await writeAll(this.#stream, bytes);
      }
    } catch {
      // The reader sees the end.
    }
    this.#isWriting = false;
  }

  /** Every reply is one line: `:<receivers>`, or `-<error>`. */
  async #read(): Promise<void> {
    const buffer = new Uint8Array(16_384);
    let type = 0, receivers = 0;
    try {
      for (let count; (count = await this.#stream.read(buffer)) !== null;) {
        for (let i = 0; i < count; i++) {
          const byte = buffer[i]!;
          if (byte === LF) {
            this.pending--;
            if (type !== COLON) this.counts.failed++;
            else {
              this.counts.answered++;
              if (receivers === 0) this.counts.unheard++;
            }
            type = receivers = 0;
          } else if (type === 0) {
            type = byte;
          } else if (byte !== CR) {
            receivers = receivers * 10 + byte - ZERO;
          }
        }
        this.onAnswer();
      }
    } catch {
      // Closed by us, or reset.
    }
    this.counts.failed += this.pending;
    this.pending = 0;
  }
}

/** `POST /v1/users/{username}/messages`, a request at a time on each lane. */
export class HttpSender extends Sender {
  readonly #lanes: Lane[];

  private constructor(lanes: Lane[]) {
    super();
    this.#lanes = lanes;
    for (const lane of lanes) lane.report = (status) => this.#onAnswer(status);
  }

  /**
   * Socket number i is on node i mod n, so its messages go to the next one: the way through Redis is always
   * taken.
   */
  static async open(ports: readonly number[], lanes: number): Promise<HttpSender> {
    return new HttpSender(
      await Promise.all(
        Array.from({ length: lanes }, (_, i) => Lane.open(ports[(i + 1) % ports.length]!)),
      ),
    );
  }

  get width(): number {
    return this.#lanes.length;
  }

  send(user: number, username: string, payload: string): void {
    this.pending++;
    this.#lanes[user % this.#lanes.length]!.send(username, payload);
  }

  flush(): void {} // requests leave at once

  close(): void {
    for (const lane of this.#lanes) lane.close();
  }

  #onAnswer(status: number): void {
    this.pending--;
    if (status === 200 || status === 202) this.counts.answered++;
    else this.counts.failed++;
    if (status === 202) this.counts.unheard++;
    this.onAnswer();
  }
}

/** One kept-alive connection. */
class Lane {
  report: (status: number) => void = () => {};
  readonly #stream: Stream;
  readonly #port: number;
  readonly #queue: string[] = [];
  readonly #buffer = new Uint8Array(8_192);
  #isBusy = false;

  private constructor(stream: Stream, port: number) {
    this.#stream = stream;
    this.#port = port;
  }

  static async open(port: number): Promise<Lane> {
    return new Lane(await dial({ port }), port);
  }

  send(username: string, payload: string): void {
    this.#queue.push(
      `POST /v1/users/${username}/messages HTTP/1.1\r\nHost: 127.0.0.1:${this.#port}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${payload.length}\r\n\r\n${payload}`,
    );
    if (!this.#isBusy) void this.#run();
  }

  close(): void {
    this.#stream.close();
  }

  async #run(): Promise<void> {
    this.#isBusy = true;
    for (let request; (request = this.#queue.shift()) !== undefined;) {
      let status = 0;
      try {
        await writeAll(this.#stream, encoder.encode(request));
        status = await this.#answer();
      } catch {
        // Counted as failed, by its status.
      }
      this.report(status);
    }
    this.#isBusy = false;
  }

  /** Reads one answer to its end; its status. */
  async #answer(): Promise<number> {
    for (let end = 0;;) {
      const count = await this.#stream.read(this.#buffer.subarray(end));
      if (count === null || count === 0) return 0;
      end += count;
      const text = decoder.decode(this.#buffer.subarray(0, end));
      const headEnd = text.indexOf("\r\n\r\n");
      if (headEnd < 0) continue;
      const length = /^content-length: *(\d+)/im.exec(text)?.[1];
      if (length === undefined) throw new Error("The answer does not say how long it is");
      if (end >= headEnd + 4 + Number(length)) return Number(text.slice(9, 12));
    }
  }
}
