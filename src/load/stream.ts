/**
 * Where a node is, and connections to it: the few calls that a load generator needs, on `Deno.Conn`, or on `node:net`
 * where a connection has to come from a given address, which Deno's own API has no option for.
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

/** Where a node, or the balancer before it, takes connections. */
export interface Place {
  readonly hostname: string;
  readonly port: number;
  readonly isTls: boolean;
  /** What its requests name as their host. */
  readonly host: string;
  /** What stands before the paths there: "" or, behind some balancers, "/push". */
  readonly base: string;
}

/** The place that an address leads to: `http:` or `https:`, with a path that ends with a slash. */
export function placeOf(url: URL): Place {
  const isTls = url.protocol === "https:";
  return {
    // An address of IPv6 stands in brackets there.
    hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: Number(url.port) || (isTls ? 443 : 80),
    isTls,
    host: url.host,
    base: url.pathname.slice(0, -1),
  };
}

/** A port of this machine. */
export function loopback(port: number): Place {
  return { hostname: "127.0.0.1", port, isTls: false, host: `127.0.0.1:${port}`, base: "" };
}

/** @param source Where the connection comes from, such as "127.0.0.2". @default chosen by the kernel */
export async function dial(place: Place, source?: string): Promise<Stream> {
  const { hostname, port, isTls } = place;
  if (source !== undefined) return await dialFrom(source, place);
  const tcp = await Deno.connect({ hostname, port });
  tcp.setNoDelay(true);
  const conn = isTls ? await Deno.startTls(tcp, { hostname, alpnProtocols: ["http/1.1"] }) : tcp;
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

function dialFrom(source: string, { hostname, port }: Place): Promise<Stream> {
  const { promise, resolve, reject } = Promise.withResolvers<Stream>();
  const socket = connect({ host: hostname, port, localAddress: source, noDelay: true });
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
