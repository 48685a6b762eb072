/**
 * A server that does what a test tells it to, for clients: it speaks `userwire.v1` on real sockets and knows none of
 * its rules, so that it can also break them.
 *
 *     await using server = new ScriptedServer();
 *     const client = connect(server.url, { user: "alice" });
 *     const socket = await server.next();
 *     socket.hi({ pos: "e.0" });
 */
import { Bell, endOf, withDeadline } from "./deadline.ts";

const WAIT_MS = 20_000;

export class ScriptedServer implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #bell = new Bell();
  readonly #refusals: number[] = [];
  readonly #sockets: ScriptedSocket[] = [];
  #taken = 0;
  /** Handshakes that came, refused ones included. */
  attempts = 0;
  /** Requests that were no handshakes. */
  readonly questions: { url: URL; headers: Headers }[] = [];
  /** Answers them. */
  answer: () => Response = () => new Response(null, { status: 404 });

  constructor() {
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
      // Who asks why handshakes fail makes none.
      if (request.headers.get("upgrade") === null) {
        this.questions.push({ url: new URL(request.url), headers: new Headers(request.headers) });
        this.#bell.ring();
        return this.answer();
      }
      this.attempts++;
      this.#bell.ring();
      const refusal = this.#refusals.shift();
      if (refusal !== undefined) return new Response(null, { status: refusal });
      const { url } = request;
      const offer = request.headers.get("sec-websocket-protocol") ?? "";
      const { socket, response } = Deno.upgradeWebSocket(request);
      response.headers.set("sec-websocket-protocol", "userwire.v1");
      const scripted = new ScriptedSocket(socket, { url, offer });
      socket.addEventListener("open", () => {
        this.#sockets.push(scripted);
        this.#bell.ring();
      });
      return response;
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** Answers the next handshakes with these statuses. */
  refuse(...statuses: number[]): void {
    this.#refusals.push(...statuses);
  }

  /** The next socket that opens, or has opened and was not asked for yet. */
  async next(ms = WAIT_MS): Promise<ScriptedSocket> {
    await this.#bell.until(
      () => this.#sockets.length > this.#taken,
      "a socket",
      ms,
      () =>
        `${this.attempts} handshakes came, ${this.#sockets.length} sockets opened, ${this.#taken} were taken`,
    );
    return this.#sockets[this.#taken++]!;
  }

  async attempted(count: number, ms = WAIT_MS): Promise<void> {
    await this.#bell.until(
      () => this.attempts >= count,
      `${count} attempts`,
      ms,
      () => `${this.attempts} came`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.close(1000);
    await withDeadline(
      this.#server.shutdown(),
      WAIT_MS,
      "the scripted server to end",
      () => `${this.#sockets.length} sockets were opened`,
    );
  }
}

/** The server's end of one socket. */
export class ScriptedSocket {
  readonly url: URL;
  /** The subprotocols that the client offered. */
  readonly protocols: readonly string[];
  /** Frames from the client, parsed. */
  readonly frames: Record<string, unknown>[] = [];
  /** Resolves with the code by which the client closed it. */
  readonly closed: PromiseLike<number>;
  readonly #socket: WebSocket;
  readonly #bell = new Bell();

  constructor(socket: WebSocket, handshake: { url: string; offer: string }) {
    this.url = new URL(handshake.url);
    this.protocols = handshake.offer.split(/, ?/);
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      this.frames.push(JSON.parse(data));
      this.#bell.ring();
    });
    const closed = new Promise<number>((resolve) => {
      socket.addEventListener("close", ({ code }) => resolve(code));
    });
    this.closed = endOf(closed, "the client to close", () => `it sent ${this.frames.length} frames`);
  }

  /** The position that the client asked to resume from. */
  get resume(): string | null {
    return this.url.searchParams.get("resume");
  }

  hi(fields: Record<string, unknown> = {}): void {
    const hi = {
      v: 1,
      conn: "c",
      user: "alice",
      node: "n",
      resumed: false,
      replay: 0,
      ping: 25,
      max: 65_536,
    };
    this.send({ t: "hi", ...hi, ...fields });
  }

  /** Sends a message with this number; its payload is the number unless the fields say else. */
  message(seq: number, fields: Record<string, unknown> = {}): void {
    this.send({ t: "m", seq, id: `id${seq}`, ts: 1, data: seq, ...fields });
  }

  /** Sends a frame: an object as JSON, anything else as it is. */
  send(frame: Record<string, unknown> | string | Uint8Array<ArrayBuffer>): void {
    const isPlain = typeof frame === "string" || frame instanceof Uint8Array;
    this.#socket.send(isPlain ? frame : JSON.stringify(frame));
  }

  close(code: number, reason = ""): void {
    this.#socket.close(code, reason);
  }

  async received(count: number, ms = WAIT_MS): Promise<void> {
    await this.#bell.until(
      () => this.frames.length >= count,
      `${count} frames from the client`,
      ms,
      () => this.frames,
    );
  }
}
