/**
 * Clients that do not read, or only a little: stalled for real, since the peer stops taking bytes from the kernel. And
 * what is sent to them: more than the kernel's buffers hold.
 */
import { assertEquals } from "@std/assert";
import type { Publisher } from "../src/publisher/publisher.ts";
import { type Env, numbers } from "./nodes.ts";
import type { ProcessService } from "./process_service.ts";
import { RawSocket } from "./raw_socket.ts";
import { RedisServer, redisTest } from "./redis_server.ts";
import { Service } from "./service.ts";

export const MARK = 128 * 1024;
/** Settings of a service whose slow readers stand at a low mark, and have time. */
export const ENV: Env = { USERWIRE_MAX_BUFFERED_BYTES: String(MARK), USERWIRE_SLOW_TIMEOUT_S: "60" };
export const TEXT = "x".repeat(16 * 1024);
/** Enough to fill every buffer of the kernel on the way, twice over. */
export const MANY = 480;
/** More than the kernel takes on both ways together; less than Redis holds for one client, 32 MB. */
export const FLOOD = 3 * MANY;

/** What a client takes who takes a little. */
export const SIP_BYTES = 2 * 1024 * 1024;

/** A framed peer, greeted, that reads nothing any more. */
export async function openStalled(service: Service | ProcessService): Promise<RawSocket> {
  const raw = await RawSocket.open(service.socketUrl("alice"), {
    headers: { "Sec-WebSocket-Protocol": "userwire.v1" },
  });
  assertEquals(JSON.parse(await raw.readText()).t, "hi");
  raw.stopReading();
  return raw;
}

/** The same in raw mode. */
export async function openStalledRaw(service: Service): Promise<RawSocket> {
  const raw = await RawSocket.open(service.socketUrl("alice"));
  raw.stopReading();
  return raw;
}

/** Clients that no history can bring up to date. */
export const NO_WAY_BACK: [who: string, open: (service: Service) => Promise<RawSocket>, history: string][] = [
  ["v1, history 0", openStalled, "0"],
  ["raw, history 0", openStalledRaw, "0"],
  ["raw, history 100", openStalledRaw, "100"],
];

/** Sends no faster than the others can take it; `pace` is asked after every few messages. */
export async function sendMany(
  publisher: Publisher,
  count: number,
  // In memory nothing else lets the sockets have their turn.
  pace: (n: number) => Promise<void> = () => new Promise((resolve) => setTimeout(resolve)),
): Promise<void> {
  for (const n of numbers(1, count)) {
    await publisher.send("alice", { kind: "text", text: `${n} ${TEXT}` });
    if (n % 4 === 0) await pace(n);
  }
}

/** A framed peer that takes from the kernel just what it is told to, at a pace. */
export class Sipper implements Disposable {
  readonly #conn: Deno.Conn;
  #isOpen = true;

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  static async open(url: string, mode: "v1" | "raw" = "v1"): Promise<Sipper> {
    const { hostname, port, host, pathname, search } = new URL(url);
    const conn = await Deno.connect({ hostname, port: Number(port) });
    const lines = [
      `GET ${pathname}${search} HTTP/1.1`,
      `Host: ${host}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
      ...mode === "v1" ? ["Sec-WebSocket-Protocol: userwire.v1"] : [],
    ];
    await conn.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
    const sipper = new Sipper(conn);
    await sipper.#take(1);
    return sipper;
  }

  /**
   * Takes so much that the service can see it, then rests. Linux lets a writer go on when a third of its buffer is free,
   * which is of 4 MB by default: who takes less at once is seen to take nothing for a while, and the longer the busier
   * the machine is.
   */
  async sip(restMs: number): Promise<void> {
    await this.#take(SIP_BYTES);
    await new Promise((resolve) => setTimeout(resolve, restMs));
  }

  /**
   * Takes what is on its way up to the Close frame, and leaves. Who left before would leave a close behind that waits in
   * Deno for what nobody takes, and outlives the test.
   */
  async hearOut(): Promise<void> {
    let tail = new Uint8Array();
    while (!endsWithClose(tail)) {
      const chunk = new Uint8Array(SIP_BYTES);
      const count = await this.#conn.read(chunk);
      if (count === null) break;
      tail = Uint8Array.of(...tail, ...chunk.subarray(Math.max(0, count - MAX_CLOSE), count)).slice(
        -MAX_CLOSE,
      );
    }
    this.leave();
  }

  async #take(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) {
      const count = await this.#conn.read(new Uint8Array(left));
      if (count === null) throw new Error("The server closed the connection");
      left -= count;
    }
  }

  leave(): void {
    if (this.#isOpen) this.#conn.close();
    this.#isOpen = false;
  }

  [Symbol.dispose](): void {
    this.leave();
  }
}

/** Bytes of a Close frame: two of its head, two of its code, and up to 123 of its reason. */
const MAX_CLOSE = 127;

/** Whether the last that came is a Close frame with the code of a slow reader, 4508. */
function endsWithClose(bytes: Uint8Array): boolean {
  const at = bytes.lastIndexOf(0x88);
  return at >= 0 && bytes[at + 1] === bytes.length - at - 2 && bytes[at + 2] === 0x11 &&
    bytes[at + 3] === 0x9c;
}

/** The code by which the first connection was closed; undefined while none was. */
export function closeOf(service: Service): unknown {
  return service.logged("connection closed").map(({ fields }) => fields.code)[0];
}

/** Declares the test in memory and over Redis. */
export function slowReaderTest(
  claim: string,
  body: (service: Service, redis?: RedisServer) => Promise<void>,
  env: Env = {},
): void {
  Deno.test(`A slow reader in memory ${claim}`, async () => {
    await using service = await Service.start({ ...ENV, ...env });
    await body(service);
  });
  redisTest(`A slow reader over Redis ${claim}`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url, ...ENV, ...env });
    await body(service, redis);
  });
}
