/**
 * A well-behaved WebSocket client for tests, on the standard class: messages queue until they are asked for,
 * every wait has a deadline, and it closes with the test:
 *
 *     await using alice = await openClient(`ws://127.0.0.1:${port}/?username=alice`);
 *     assertEquals(await alice.next(), "hello");
 *
 * For a peer that behaves badly see `raw_socket.ts`.
 */
import { Bell, endOf, until, withDeadline } from "./deadline.ts";

/** Subprotocols, or what Deno's WebSocket takes as its second argument: `{ protocols, headers }`. */
export type ClientOptions = string | string[] | WebSocketOptions;

/** How a socket ended. Code 0 stands for a connection that broke without a Close frame. */
export interface Closed {
  readonly code: number;
  readonly reason: string;
}

const WAIT_MS = 20_000;

/**
 * Resolves when the socket is open.
 * @throws {Error} when the handshake is refused.
 */
export async function openClient(url: string | URL, options: ClientOptions = []): Promise<WsClient> {
  const socket = new WebSocket(url, options);
  socket.binaryType = "arraybuffer";
  // Listens before the socket is open: the first message may come in the same turn of the loop.
  const client = new WsClient(socket);
  const { promise: opened, resolve, reject } = Promise.withResolvers<void>();
  socket.addEventListener("open", () => resolve(), { once: true });
  socket.addEventListener("error", (event) => {
    reject(new Error(`${url} did not open: ${(event as ErrorEvent).message}`));
  }, { once: true });
  await withDeadline(opened, WAIT_MS, `${url} to open`, () => `the socket is in state ${socket.readyState}`);
  return client;
}

/** The same as any client does it: again and again while the handshake is refused, as a busy Redis makes it. */
export async function openPatiently(url: string | URL, options: ClientOptions = []): Promise<WsClient> {
  let client: WsClient | undefined;
  await until(
    () => openClient(url, options).then((opened) => (client = opened, true), () => false),
    `${url} to open in the end`,
    WAIT_MS,
  );
  return client!;
}

export class WsClient implements AsyncDisposable {
  readonly socket: WebSocket;
  /** Resolves when the socket is closed, whoever closed it; rejects only where that takes too long. */
  readonly closed: PromiseLike<Closed>;
  readonly #closed: Promise<Closed>;
  readonly #bell = new Bell();
  readonly #queue: (string | Uint8Array)[] = [];
  #closedWith: Closed | undefined;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => {
      this.#queue.push(data instanceof ArrayBuffer ? new Uint8Array(data) : data);
      this.#bell.ring();
    });
    this.#closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code, reason }) => {
        this.#closedWith ??= { code, reason };
        resolve(this.#closedWith);
        this.#bell.ring();
      });
    });
    this.closed = endOf(
      this.#closed,
      `${socket.url} to be closed`,
      () =>
        `it is in state ${socket.readyState}, and ${this.#queue.length} messages wait: ${
          this.#queue.slice(-3)
        }`,
    );
  }

  /** Messages that came and were not asked for yet. */
  get waiting(): readonly (string | Uint8Array)[] {
    return this.#queue;
  }

  send(data: string | Uint8Array<ArrayBuffer>): void {
    this.socket.send(data);
  }

  /**
   * The next message, in the order they came. One caller at a time.
   * @param ms Deadline in milliseconds.
   * @throws {Error} when the socket is closed and nothing is left.
   */
  async next(ms = WAIT_MS): Promise<string | Uint8Array> {
    const { url } = this.socket;
    await this.#bell.until(
      () => this.#queue.length > 0 || this.#closedWith !== undefined,
      `a message on ${url}`,
      ms,
      () => `none came, and the socket is in state ${this.socket.readyState}`,
    );
    const message = this.#queue.shift();
    if (message !== undefined) return message;
    const { code, reason } = this.#closedWith!;
    throw new Error(`No message came: the socket was closed with ${code} "${reason}"`);
  }

  /** The next message, which must be a JSON object. */
  async nextJson(ms = WAIT_MS): Promise<Record<string, unknown>> {
    const message = await this.next(ms);
    if (typeof message !== "string") throw new TypeError(`Wanted JSON text, got ${message.length} bytes`);
    return JSON.parse(message);
  }

  /** Closes, and resolves when the server agreed. Fine to call when closed already. */
  async close(code = 1000, reason = ""): Promise<Closed> {
    this.socket.close(code, reason);
    return await withDeadline(
      this.#closed,
      WAIT_MS,
      "the server to answer the Close frame",
      () => `the socket is in state ${this.socket.readyState}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
