/**
 * What requests of clients cost the messages of others, while the backend hangs: a real service process on a real Redis,
 * clients that get messages at a steady rate, and a process of other clients that ask 200 times a second a backend that
 * never answers. Rounds without and with them take turns; printed are the latencies of the messages, from the send to the
 * client, as medians over the rounds, and their ratio. The exit code is 1 when the p99 with requests is more than 1.2 times
 * that without.
 *
 * Settings, as environment variables: CLIENTS (that get messages, 50), RATE (messages a second, 500), ASKERS (that ask once
 * a second each, 200), ROUNDS (of each kind, 7), SECONDS (of each round, 5).
 */
import { createHistogram } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { Publisher } from "../src/publisher/publisher.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import { portOf, startUserwire } from "./systems.ts";
import { layOut } from "./table.ts";

const CLIENTS = setting("CLIENTS", 50);
const RATE = setting("RATE", 500);
const ASKERS = setting("ASKERS", 200);
const ROUNDS = setting("ROUNDS", 7);
const SECONDS = setting("SECONDS", 5);
const MOST = 1.2;
const TICK_MS = 10;
const SETTLE_MS = 1_500;
const GO = "go", STOP = "stop";
const SECRET = "whsec_" + btoa("x".repeat(32));

function setting(name: string, fallback: number): number {
  return Number(Deno.env.get(name) ?? fallback);
}

function open(port: number, user: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws?username=${user}`, "userwire.v1");
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error("A socket did not open"));
  });
}

/** Asks once a second with each socket, spread over it, while it is told to; until its standard input ends. */
async function ask(port: number): Promise<void> {
  const sockets = await Promise.all(Array.from({ length: ASKERS }, (_, i) => open(port, `asker-${i}`)));
  console.log("ready");
  let next = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  for await (const word of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    clearInterval(timer);
    if (word !== GO) continue;
    timer = setInterval(() => {
      const id = crypto.randomUUID();
      sockets[next++ % ASKERS]!.send(JSON.stringify({ t: "req", id, op: "typing", data: { room: 7 } }));
    }, 1_000 / ASKERS);
  }
  clearInterval(timer);
  for (const socket of sockets) socket.close();
}

/** The other process: connected all the time, so that it is the requests alone that make a difference. */
class Askers implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #words: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#words = child.stdin.getWriter();
  }

  static async start(port: number): Promise<Askers> {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--lock=tests/deno.lock", "-A", fileURLToPath(import.meta.url), "ask", String(port)],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    reader.releaseLock();
    return new Askers(child);
  }

  /** Resolves when all that may be under way is, or nothing more. */
  async tell(word: string): Promise<void> {
    await this.#words.write(new TextEncoder().encode(word));
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#words.close();
    await this.#child.stdout.cancel();
    await this.#child.status;
  }
}

interface Figures {
  readonly p50: number;
  readonly p99: number;
}

/** Sends for some seconds, to one client after the other. @returns Latencies in milliseconds. */
async function round(publisher: Publisher, latencies: ReturnType<typeof createHistogram>): Promise<Figures> {
  latencies.reset();
  const startMs = performance.now();
  let sent = 0;
  const sends: Promise<unknown>[] = [];
  while (performance.now() - startMs < SECONDS * 1_000) {
    const due = Math.floor((performance.now() - startMs) / 1_000 * RATE);
    while (sent < due) sends.push(publisher.send(`client-${sent++ % CLIENTS}`, { at: performance.now() }));
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await Promise.all(sends);
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { p50: latencies.percentile(50) / 1_000, p99: latencies.percentile(99) / 1_000 };
}

function medianOf(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
}

async function compare(own: (started: AsyncDisposable) => void): Promise<boolean> {
  await using redis = await RedisServer.start();
  const hung = Promise.withResolvers<Response>();
  let asked = 0;
  await using _backend = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => (asked++, hung.promise),
  );
  await using service = startUserwire({
    dir: await scratchFolder(own),
    env: {
      PORT: "0",
      REDIS_URL: redis.url,
      USERWIRE_WEBHOOK_URL: `http://127.0.0.1:${_backend.addr.port}/`,
      USERWIRE_WEBHOOK_SECRETS: SECRET,
      USERWIRE_WEBHOOK_EVENTS: "requests",
    },
  });
  const port = await portOf(service);
  const latencies = createHistogram();
  const sockets = await Promise.all(Array.from({ length: CLIENTS }, (_, i) => open(port, `client-${i}`)));
  for (const socket of sockets) {
    socket.onmessage = ({ data }) => {
      const { t, data: message } = JSON.parse(data);
      if (t === "m") latencies.record(Math.max(1, Math.round((performance.now() - message.at) * 1_000)));
    };
  }
  const without: Figures[] = [], withThem: Figures[] = [];
  {
    await using publisher = await Publisher.open({ redisUrl: redis.url });
    await using askers = await Askers.start(port);
    await round(publisher, latencies); // the first is to warm up
    for (let i = 0; i < ROUNDS; i++) {
      await askers.tell(STOP);
      without.push(await round(publisher, latencies));
      await askers.tell(GO);
      withThem.push(await round(publisher, latencies));
    }
  }
  for (const socket of sockets) socket.close();
  hung.resolve(new Response());
  const ratio = medianOf(withThem.map(({ p99 }, i) => p99 / without[i]!.p99));
  const row = (name: string, figures: readonly Figures[]) => [
    name,
    medianOf(figures.map(({ p50 }) => p50)).toFixed(2),
    medianOf(figures.map(({ p99 }) => p99)).toFixed(2),
  ];
  console.log(layOut([
    [`${RATE} messages/s to ${CLIENTS} clients`, "p50 ms", "p99 ms"],
    row("without requests", without),
    row(`with ${ASKERS} requests/s, backend hangs`, withThem),
  ]));
  console.log(
    `p99: ${ratio.toFixed(2)} times, the median of ${ROUNDS} pairs; the backend was asked ${asked} times`,
  );
  return ratio <= MOST;
}

if (Deno.args[0] === "ask") await ask(Number(Deno.args[1]));
else await runBenchmark(compare);
