/**
 * The TCP connections of the load generator: the few calls that it needs, on `Deno.Conn`, or on `node:net` where a
 * connection has to come from a given address, which Deno's own API has no option for. Loopback only.
 */
import { connect, type Socket } from "node:net";

export interface Stream {
  /** Reads into the buffer; null at the end. One at a time. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Writes some of it. */
  write(bytes: Uint8Array): Promise<number>;
  /** May be called again. */
  close(): void;
}

export interface DialOptions {
  port: number;
  /** Where the connection comes from, such as "127.0.0.2". @default 127.0.0.1, chosen by the kernel */
  source?: string | undefined;
}

/** Dials this machine. */
export async function dial({ port, source }: DialOptions): Promise<Stream> {
  if (source !== undefined) return await dialFrom(source, port);
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  let isClosed = false;
  return {
    read: (buffer) => conn.read(buffer),
    write: (bytes) => conn.write(bytes),
    close() {
      if (!isClosed) conn.close();
      isClosed = true;
    },
  };
}

/** Writes all of it. */
export async function writeAll(stream: Stream, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await stream.write(at === 0 ? bytes : bytes.subarray(at));
}

function dialFrom(source: string, port: number): Promise<Stream> {
  const { promise, resolve, reject } = Promise.withResolvers<Stream>();
  const socket = connect({ host: "127.0.0.1", port, localAddress: source, noDelay: true });
  socket.once("error", reject);
  socket.once("connect", () => {
    socket.off("error", reject);
    resolve(new NodeStream(socket));
  });
  return promise;
}

class NodeStream implements Stream {
  readonly #socket: Socket;
  #isOver = false;
  #wake = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("readable", () => this.#wake());
    const end = () => {
      this.#isOver = true;
      this.#wake();
    };
    for (const event of ["end", "error", "close"]) socket.on(event, end);
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    for (;;) {
      const size = Math.min(this.#socket.readableLength, buffer.length);
      const chunk: Uint8Array | null = size > 0 ? this.#socket.read(size) : this.#socket.read();
      if (chunk !== null) {
        buffer.set(chunk);
        return chunk.length;
      }
      if (this.#isOver) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#socket.write(bytes, (error) => error ? reject(error) : resolve(bytes.length));
    return promise;
  }

  close(): void {
    this.#socket.destroy();
  }
}
