/**
 * The server's end of one connection: nothing is answered before the case says how, and frames go out in whatever
 * pieces it likes. A WebSocket server that keeps the rules could not do that.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { decodeFrame, encodeFrame, OPCODE } from "../testkit/raw_socket.ts";

/** What every handshake's answer is made of (RFC 6455, 4.2.2). */
const MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BEARER = "userwire.bearer.";
/** A handshake that is longer is none. */
const LONGEST_HEAD = 16_384;

export interface Head {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
}

/** A connection whose request is there. Its owner reads it with `read`, and ends it. */
export class Peer {
  readonly head: Head;
  /** When the request came. */
  readonly at = performance.now();
  /** Frames from the client, parsed; what is no JSON as it is. */
  readonly frames: unknown[] = [];
  /** When each of them came. */
  readonly times: number[] = [];
  /** Payloads of the client's pongs. */
  readonly pongs: string[] = [];
  /** What the client did that no client may do. */
  readonly faults: string[] = [];
  /** The client has closed it, or is gone. */
  isGone = false;
  /** When this end was told to close it. */
  closedAt: number | undefined;
  /** The status with which it was refused; undefined where it was not. */
  refused: number | undefined;
  readonly #conn: Deno.TcpConn;
  readonly #ring: () => void;
  #unread: Buffer<ArrayBufferLike>;
  #writing: Promise<unknown> = Promise.resolve();
  #hasClosed = false;

  constructor(conn: Deno.TcpConn, head: Head, rest: Buffer, ring: () => void) {
    this.#conn = conn;
    this.head = head;
    this.#unread = rest;
    this.#ring = ring;
  }

  /** Reads a request; undefined when the client is gone before it is whole. */
  static async receive(conn: Deno.TcpConn, ring: () => void): Promise<Peer | undefined> {
    let bytes: Buffer = Buffer.alloc(0);
    const chunk = new Uint8Array(LONGEST_HEAD);
    while (!bytes.includes("\r\n\r\n")) {
      const length = bytes.length > LONGEST_HEAD ? null : await conn.read(chunk).catch(() => null);
      if (length === null) {
        close(conn);
        return undefined;
      }
      bytes = Buffer.concat([bytes, chunk.subarray(0, length)]);
    }
    const end = bytes.indexOf("\r\n\r\n");
    const [requestLine = "", ...lines] = bytes.toString("latin1", 0, end).split("\r\n");
    const [method = "", target = "/"] = requestLine.split(" ");
    const headers = new Headers();
    for (const line of lines) {
      const colon = line.indexOf(":");
      headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
    }
    const url = new URL(target, `http://${headers.get("host") ?? "127.0.0.1"}`);
    return new Peer(conn, { method, url, headers }, bytes.subarray(end + 4), ring);
  }

  /** Whether it asks why its handshakes are refused, which is no handshake. */
  get isQuestion(): boolean {
    const { method, headers } = this.head;
    return method === "GET" && !headers.has("upgrade") &&
      headers.get("accept") === "application/problem+json";
  }

  /** The most frames that came in any second. */
  mostInOneSecond(): number {
    const { times } = this;
    return times.reduce((most, from, i) => {
      return Math.max(most, times.slice(i).filter((at) => at < from + 1_000).length);
    }, 0);
  }

  /** The subprotocols that the client offers. */
  get protocols(): string[] {
    return (this.head.headers.get("sec-websocket-protocol") ?? "").split(",").map((name) => name.trim());
  }

  /** The position that it resumes from. */
  get resume(): string | null {
    return this.head.url.searchParams.get("resume");
  }

  /** The token or ticket that it shows, in whichever of the three ways. */
  get token(): string | undefined {
    const header = /^bearer (.+)$/i.exec(this.head.headers.get("authorization") ?? "")?.[1];
    const encoded = this.protocols.find((name) => name.startsWith(BEARER))?.slice(BEARER.length);
    const offered = encoded === undefined ? undefined : Buffer.from(encoded, "base64url").toString();
    return header ?? offered ?? this.head.url.searchParams.get("ticket") ?? undefined;
  }

  /** Answers with an HTTP status. */
  refuse(status: number, headers: Record<string, string> = {}, body = ""): void {
    this.refused = status;
    const lines = Object.entries({ "content-length": `${body.length}`, connection: "close", ...headers });
    const text = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    this.write(`HTTP/1.1 ${status} Said\r\n${text}\r\n${body}`);
    this.cut();
  }

  /** Lets it in. */
  accept(): void {
    for (const part of this.#acceptance()) this.write(part);
    void this.#read();
  }

  /** Lets it in, with a pause in the answer. */
  async acceptSlowly(ms: number): Promise<void> {
    const [first, second] = this.#acceptance();
    this.write(first!);
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.write(second!);
    void this.#read();
  }

  #acceptance(): string[] {
    const key = this.head.headers.get("sec-websocket-key") ?? "";
    const accept = createHash("sha1").update(key + MAGIC).digest("base64");
    const protocol = this.protocols.includes("userwire.v1") ? "Sec-WebSocket-Protocol: userwire.v1\r\n" : "";
    return [
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
      `Connection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${protocol}\r\n`,
    ];
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

  /** A message with this number; its payload is the number unless the fields say else. */
  message(seq: number, fields: Record<string, unknown> = {}): void {
    this.send({ t: "m", seq, id: `id${seq}`, ts: 1795495876799, data: seq, ...fields });
  }

  /** Sends a frame: text as it is, else JSON. */
  send(frame: Record<string, unknown> | string): void {
    const payload = typeof frame === "string" ? frame : JSON.stringify(frame);
    this.write(encodeFrame({ opcode: OPCODE.text, payload, masked: false }));
  }

  /** Sends a text frame in three fragments, with a ping between them. */
  sendInFragments(text: string): void {
    const bytes = Buffer.from(text);
    const third = Math.ceil(bytes.length / 3);
    const part = (i: number) => bytes.subarray(i * third, (i + 1) * third);
    const { text: opcode, continuation, ping } = OPCODE;
    this.write(encodeFrame({ opcode, payload: part(0), fin: false, masked: false }));
    this.write(encodeFrame({ opcode: continuation, payload: part(1), fin: false, masked: false }));
    this.write(encodeFrame({ opcode: ping, payload: "between", masked: false }));
    this.write(encodeFrame({ opcode: continuation, payload: part(2), masked: false }));
  }

  /** The first part of a frame, and then the end of the connection. */
  sendHalf(text: string): void {
    const frame = encodeFrame({ opcode: OPCODE.text, payload: text, masked: false });
    this.write(frame.subarray(0, Math.floor(frame.length / 2)));
    this.cut();
  }

  ping(payload: string): void {
    this.write(encodeFrame({ opcode: OPCODE.ping, payload, masked: false }));
  }

  /** Sends `bye` and closes with the code that it names. */
  bye(code: number, why: string, retryMs?: number): void {
    this.send({ t: "bye", code, why, ...(retryMs !== undefined && { retry_ms: retryMs }) });
    this.close(code, why);
  }

  close(code: number, reason = ""): void {
    this.closedAt ??= performance.now();
    this.#hasClosed = true;
    const payload = Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]);
    this.write(encodeFrame({ opcode: OPCODE.close, payload, masked: false }));
  }

  /** Ends the connection without a word, after what was written. */
  cut(): void {
    this.closedAt ??= performance.now();
    void this.#writing.then(() => close(this.#conn));
  }

  write(bytes: string | Uint8Array): void {
    const all = Buffer.from(bytes as Uint8Array);
    this.#writing = this.#writing.then(async () => {
      for (let at = 0; at < all.length;) at += await this.#conn.write(all.subarray(at));
    }).catch(() => {}); // the client has left, which its reader notices
  }

  async #read(): Promise<void> {
    const chunk = new Uint8Array(65_536);
    while (true) {
      for (let next; (next = decodeFrame(this.#unread)) !== undefined;) {
        this.#unread = this.#unread.subarray(next.length);
        this.#onFrame(next.frame);
      }
      const length = await this.#conn.read(chunk).catch(() => null);
      if (length === null) break;
      this.#unread = Buffer.concat([this.#unread, chunk.subarray(0, length)]);
    }
    this.isGone = true;
    close(this.#conn);
    this.#ring();
  }

  #onFrame({ opcode, payload, masked }: { opcode: number; payload: Uint8Array; masked: boolean }): void {
    if (!masked) this.faults.push("a frame is not masked");
    const text = Buffer.from(payload).toString();
    if (opcode === OPCODE.text) this.#onText(text);
    else if (opcode === OPCODE.binary) this.faults.push("it has sent a binary frame");
    else if (opcode === OPCODE.pong) this.pongs.push(text);
    else if (opcode === OPCODE.ping) this.write(encodeFrame({ opcode: OPCODE.pong, payload, masked: false }));
    else if (opcode === OPCODE.close) {
      this.isGone = true;
      if (!this.#hasClosed) this.write(encodeFrame({ opcode: OPCODE.close, payload, masked: false }));
      this.cut();
    }
    this.#ring();
  }

  #onText(text: string): void {
    let frame: unknown = text;
    try {
      frame = JSON.parse(text);
    } catch {
      this.faults.push(`it has sent what is no JSON: ${text.slice(0, 100)}`);
    }
    if (typeof (frame as { t?: unknown } | null)?.t !== "string") {
      this.faults.push(`it has sent a frame without a type: ${text.slice(0, 100)}`);
    }
    this.frames.push(frame);
    this.times.push(performance.now());
  }
}

function close(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // The other side was faster.
  }
}
