/**
 * What clients that stopped reading cost: a real service process on a real Redis, a hundred healthy clients, a hundred
 * stalled ones, and messages of 10 KiB to both. One run: the healthy ones, with as many messages to nobody; the stalled
 * ones are filled until nothing more fits anywhere, for on the way to each the kernel takes some megabytes before
 * anything waits in the process; both; the stalled ones read again; they leave, and the healthy ones once more.
 *
 * Three claims are checked, and the exit code is 1 when one does not hold: the process grows by no more than the sum of
 * the marks plus 20 %, the healthy ones' p99 latency stays within twice its value without the stalled ones, and whoever
 * reads again gets all that the history has, in order, and a gap for the rest.
 *
 * Settings, as environment variables: CLIENTS (of each kind, 100), MESSAGES (to each kind, 10000), RATE (a second to
 * each kind, 500), FILL (messages that fill the stalled ones, 60000).
 */
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import { Publisher } from "../src/publisher/publisher.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { scratchFolder } from "./ending.ts";
import type { Program } from "./program.ts";
import { portOf, startUserwire } from "./systems.ts";

const CLIENTS = setting("CLIENTS", 100);
const MESSAGES = setting("MESSAGES", 10_000);
const RATE = setting("RATE", 500);
const FILL = setting("FILL", 60_000);
const HISTORY = 100;
const MIB = 1024 * 1024;
const MARK_BYTES = MIB;
const PADDING = "x".repeat(10 * 1024);
const SAMPLE_MS = 200;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function setting(name: string, fallback: number): number {
  return Number(Deno.env.get(name) ?? fallback);
}

// ---------------------------------------------------------------------------------------------------------
// The service

function startService(redisUrl: string, dir: string): Program {
  return startUserwire({
    dir,
    env: {
      PORT: "0",
      REDIS_URL: redisUrl,
      USERWIRE_HISTORY: String(HISTORY),
      USERWIRE_MAX_BUFFERED_BYTES: String(MARK_BYTES),
      // The stalled ones are to be there at the end, although they answer no ping either.
      USERWIRE_SLOW_TIMEOUT_S: "3600",
      USERWIRE_IDLE_TIMEOUT_S: "3600",
    },
  });
}

/** Memory of the process, in bytes. Not `memoryKib`, which holds up the thread that latency is measured on. */
async function memoryOf({ pid }: Program): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
}

/** The most memory the service had while something went on, in bytes. */
async function peakOf(service: Program, body: () => Promise<unknown>): Promise<number> {
  let peak = 0;
  const timer = setInterval(async () => {
    peak = Math.max(peak, await memoryOf(service));
  }, SAMPLE_MS);
  await body();
  clearInterval(timer);
  return Math.max(peak, await memoryOf(service));
}

// ---------------------------------------------------------------------------------------------------------
// Clients

/** A framed client on bare TCP, which takes bytes from the kernel only while it reads. */
class Client implements Disposable {
  seq = 0;
  /** Messages that gaps said are missing. */
  missing = 0;
  fault: string | undefined;
  readonly #conn: Deno.Conn;
  readonly #latency: RecordableHistogram | undefined;
  /** What was read; the part from `from` to `to` is not taken yet. */
  #buffer = new Uint8Array(128 * 1024);
  #from = 0;
  #to = 0;
  #isOpen = true;

  private constructor(conn: Deno.Conn, latency: RecordableHistogram | undefined) {
    this.#conn = conn;
    this.#latency = latency;
  }

  static async open(port: number, username: string, latency?: RecordableHistogram): Promise<Client> {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    const lines = [
      `GET /ws?username=${username} HTTP/1.1`,
      `Host: 127.0.0.1:${port}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${crypto.getRandomValues(new Uint8Array(16)).toBase64()}`,
      "Sec-WebSocket-Protocol: userwire.v1",
    ];
    await conn.write(encoder.encode(`${lines.join("\r\n")}\r\n\r\n`));
    const client = new Client(conn, latency);
    let head = "";
    while (!head.includes("\r\n\r\n")) {
      await client.#fill();
      head = decoder.decode(client.#buffer.subarray(0, client.#to));
    }
    client.#from = head.indexOf("\r\n\r\n") + 4;
    return client;
  }

  /** Reads until it stands at this message; for ever when it is never reached. */
  async readTo(seq: number): Promise<void> {
    while (this.seq < seq) {
      const frame = this.#takeFrame();
      if (frame === undefined) await this.#fill();
      else this.#onFrame(frame);
    }
  }

  [Symbol.dispose](): void {
    if (this.#isOpen) this.#conn.close();
    this.#isOpen = false;
  }

  #onFrame(text: string): void {
    if (text.startsWith('{"t":"m"')) {
      const seq = Number(/"seq":(\d+)/.exec(text)![1]);
      if (seq !== this.seq + 1) this.fault ??= `message ${seq} after ${this.seq}`;
      this.seq = seq;
      const sentMs = Number(/"data":"([\d.]+) /.exec(text)![1]);
      this.#latency?.record(Math.max(1, Math.round((performance.now() - sentMs) * 1_000)));
    } else if (text.startsWith('{"t":"gap"')) {
      const { from, to, count } = JSON.parse(text);
      if (from !== this.seq + 1) this.fault ??= `gap from ${from} after ${this.seq}`;
      this.seq = to;
      this.missing += count;
    }
  }

  #takeFrame(): string | undefined {
    const bytes = this.#buffer.subarray(this.#from, this.#to);
    if (bytes.length < 2) return undefined;
    const short = bytes[1]! & 0x7f;
    const start = short < 126 ? 2 : 4; // none here is longer than 64 KiB
    if (bytes.length < start) return undefined;
    const length = short < 126 ? short : bytes[2]! << 8 | bytes[3]!;
    if (bytes.length < start + length) return undefined;
    this.#from += start + length;
    // A ping wants a pong, or its sender gives up; the mask is four zeros, which is one too.
    if ((bytes[0]! & 0x0f) === 9) {
      this.#conn.write(Uint8Array.of(0x8a, 0x80, 0, 0, 0, 0)).catch(() => {}); // the reader sees why
    }
    // Numbers and times are at the beginning; the ten kilobytes are not worth a look.
    return decoder.decode(bytes.subarray(start, start + Math.min(length, 300)));
  }

  async #fill(): Promise<void> {
    this.#buffer.copyWithin(0, this.#from, this.#to);
    this.#to -= this.#from;
    this.#from = 0;
    const count = await this.#conn.read(this.#buffer.subarray(this.#to));
    if (count === null) throw new Error(`The service closed a connection at message ${this.seq}`);
    this.#to += count;
  }
}

// ---------------------------------------------------------------------------------------------------------
// The run

/** Sends so many messages to each group, in turn to its users, at the rate; returns when all are accepted. */
async function send(publisher: Publisher, groups: readonly string[], count: number): Promise<void> {
  const startMs = performance.now();
  const sends: Promise<unknown>[] = [];
  for (let sent = 0; sent < count;) {
    const due = Math.min(count, Math.ceil((performance.now() - startMs) * RATE / 1_000));
    for (; sent < due; sent++) {
      for (const group of groups) {
        const text = `${performance.now()} ${PADDING}`;
        sends.push(publisher.send(`${group}-${sent % CLIENTS}`, { kind: "text", text }));
      }
    }
    await Promise.all(sends.splice(0));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function milliseconds(latency: RecordableHistogram, percentile: number): number {
  return latency.percentile(percentile) / 1_000;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}

await using stack = new AsyncDisposableStack();
const dir = await scratchFolder((started) => stack.use(started));
await using redis = await RedisServer.start();
await using service = startService(redis.url, dir);
const port = await portOf(service);
await using publisher = await Publisher.open({
  redisUrl: redis.url,
  redisTimeoutMs: 30_000,
  history: HISTORY,
});
using clients = new DisposableStack();

const perClient = MESSAGES / CLIENTS;
const without = createHistogram();
const beside = createHistogram();
const indexes = Array.from({ length: CLIENTS }, (_, i) => i);

async function openGroup(group: string, latency?: RecordableHistogram): Promise<Client[]> {
  const open = (i: number) => Client.open(port, `${group}-${i}`, latency);
  return (await Promise.all(indexes.map(open))).map((client) => clients.use(client));
}

async function measure(
  group: string,
  latency: RecordableHistogram,
  others: readonly string[],
): Promise<void> {
  const healthy = await openGroup(group, latency);
  await Promise.all([
    send(publisher, [group, ...others], MESSAGES),
    ...healthy.map((client) => client.readTo(perClient)),
  ]);
  const fault = healthy.find((client) => client.fault ?? client.missing > 0);
  if (fault) throw new Error(`A healthy client was not served: ${fault.fault ?? `${fault.missing} missing`}`);
}

console.log(`${CLIENTS} healthy and ${CLIENTS} stalled clients, ${MESSAGES} messages of 10 KiB to each kind`);
// Once unmeasured: the heap takes its shape, and the compiler its time.
await measure("warm", createHistogram(), []);
// Messages to nobody take the place of those to the stalled ones: the same work for Redis and for this process.
const before = await peakOf(service, () => measure("before", without, ["nobody"]));
const stalled = await openGroup("stalled");
const filled = await peakOf(service, () => send(publisher, ["stalled"], FILL));
const beyond = await peakOf(service, () => measure("beside", beside, ["stalled"]));
const last = (MESSAGES + FILL) / CLIENTS;
const readStartMs = performance.now();
const after = await peakOf(service, () => Promise.all(stalled.map((client) => client.readTo(last))));
const readMs = performance.now() - readStartMs;
// Once more, so that a slow minute of the machine does not fall on one side alone.
for (const client of stalled) client[Symbol.dispose]();
await measure("after", without, ["nobody"]);

const allowed = CLIENTS * MARK_BYTES * 1.2;
const missing = stalled.map((client) => client.missing);
const fault = stalled.find((client) => client.fault)?.fault;
const lagging = missing.filter((count) => count > 0).length;
const ratio = milliseconds(beside, 99) / milliseconds(without, 99);
const growth = Math.max(filled, beyond) - before;
const claims: [holds: boolean, claim: string][] = [
  [growth <= allowed, `the process grew by ${mib(growth)} MiB, ${mib(allowed)} are allowed`],
  [
    ratio <= 2,
    `p99 of the healthy ones is ${ratio.toFixed(2)} times that without the stalled ones, 2 is allowed`,
  ],
  [
    fault === undefined && Math.max(...missing) <= last - HISTORY,
    fault ?? `whoever read again got every message in the window of ${HISTORY}, in order`,
  ],
  [FILL === 0 || lagging === CLIENTS, `${lagging} of ${CLIENTS} fell so far behind that a gap was due`],
];
console.log(`
without stalled ones  p50 ${milliseconds(without, 50).toFixed(2)} ms   p99 ${
  milliseconds(without, 99).toFixed(2)
} ms
beside stalled ones   p50 ${milliseconds(beside, 50).toFixed(2)} ms   p99 ${
  milliseconds(beside, 99).toFixed(2)
} ms

most memory           ${mib(before)} MiB  without stalled ones
                      ${mib(filled)} MiB  while ${FILL} messages fill the stalled ones
                      ${mib(beyond)} MiB  while ${MESSAGES} more go to each kind
                      ${mib(after)} MiB  while the stalled ones read again, ${(readMs / 1_000).toFixed(1)} s

of ${last} messages to each stalled one, ${Math.min(...missing)} to ${Math.max(...missing)} are in a gap
`);
for (const [holds, claim] of claims) console.log(`${holds ? "holds " : "FAILS "} ${claim}`);
if (claims.some(([holds]) => !holds)) Deno.exitCode = 1;
