/**
 * What the publisher takes from Deno, made of Node's own modules. The build of `userwire/publisher` puts it in the place
 * of the globals of these names, and nothing else of the package knows on which of the two it runs. Node 20 is the oldest.
 */
import type { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** A connection as Deno has it: who reads brings the space, and nothing is read that nobody asked for. */
class Connection {
  readonly #socket: Socket;
  #error: Error | undefined;
  #hasEnded = false;
  #wake: () => void = () => {};

  /** @param socket Connected, and not read yet. */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("readable", () => this.#wake());
    socket.on("end", () => this.#end(undefined));
    socket.on("close", () => this.#end(undefined));
    socket.on("error", (error) => this.#end(error));
  }

  /** @returns How many bytes came; null at the end of the stream. */
  async read(space: Uint8Array): Promise<number | null> {
    for (;;) {
      const length = Math.min(space.length, this.#socket.readableLength);
      const bytes: Buffer | null = length > 0 ? this.#socket.read(length) : null;
      if (bytes !== null) {
        space.set(bytes);
        return bytes.length;
      }
      if (this.#error) throw this.#error;
      if (this.#hasEnded) return null;
      // Asks for more, and for the end, where nothing is there.
      this.#socket.read(0);
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** @returns How many bytes the system has taken: all of them. */
  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#error) return reject(this.#error);
      this.#socket.write(bytes, (error) => error ? reject(error) : resolve(bytes.length));
    });
  }

  closeWrite(): Promise<void> {
    return new Promise((resolve) => this.#socket.end(resolve));
  }

  close(): void {
    this.#socket.destroy();
  }

  #end(error: Error | undefined): void {
    this.#error ??= error;
    this.#hasEnded = true;
    this.#wake();
  }
}

function connected(socket: Socket, event: "connect" | "secureConnect"): Promise<Connection> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.once(event, () => {
      socket.off("error", reject);
      resolve(new Connection(socket));
    });
  });
}

interface TlsOptions {
  readonly hostname: string;
  readonly port: number;
  readonly caCerts?: string[];
  readonly cert?: string;
  readonly key?: string;
}

export const Deno = {
  connect(
    place: { hostname: string; port: number } | { transport: "unix"; path: string },
  ): Promise<Connection> {
    const socket = "path" in place ? connect(place.path) : connect(place.port, place.hostname);
    return connected(socket, "connect");
  },
  connectTls({ hostname, port, caCerts, cert, key }: TlsOptions): Promise<Connection> {
    const isAddress = /^[\d.]+$|:/.test(hostname);
    const socket = connectTls({
      host: hostname.replace(/^\[(.*)\]$/, "$1"),
      port,
      ...(!isAddress && { servername: hostname }),
      ...(caCerts && { ca: caCerts }),
      ...(cert !== undefined && { cert, key }),
    });
    return connected(socket, "secureConnect");
  },
  readTextFileSync(path: string): string {
    return readFileSync(path, "utf8");
  },
};

/** `Promise.withResolvers`, which Node has from 22 on. */
export function withResolvers<Value>() {
  let resolve!: (value: Value | PromiseLike<Value>) => void;
  let reject!: (reason?: unknown) => void;
  const promise = new Promise<Value>((...functions) => [resolve, reject] = functions);
  return { promise, resolve, reject };
}

/** `URL.parse`, which Node has from 22 on. */
export function parseUrl(text: string | URL, base?: string | URL): URL | null {
  try {
    return new URL(text, base);
  } catch {
    return null;
  }
}
