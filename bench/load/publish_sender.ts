/** Sending by bare `PUBLISH`, pipelined on one connection, as any program may do it. */
import { Sender } from "../../src/load/sender.ts";
import { dial, loopback, type Stream, writeAll } from "../../src/load/stream.ts";

const encoder = new TextEncoder();
const COLON = 0x3a, CR = 0x0d, LF = 0x0a, ZERO = 0x30;

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
    return new PublishSender(await dial(loopback(redisPort)));
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
