/**
 * `deno task rates`: how fast one client can send, and what that costs, by each of the ways that there are. One node with a
 * history, one Redis, nobody connected; the ways take turns, and all figures are of one run. Prints a Markdown table whose
 * ratios are against single sends by HTTP: those are what a machine that is busy with other things can tell.
 */
import { parseArgs } from "node:util";
import { HttpSender } from "../src/load/sender.ts";
import { loopback } from "../src/load/stream.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import { assertLinux, cpuSeconds, warnWhenBusy } from "./machine.ts";
import { wholeNumber } from "./options.ts";
import { portOf, startUserwire } from "./systems.ts";

const HELP = `deno task rates [options]

  --messages N   of each way and turn (20000)
  --turns N      how often each way is measured (3)
  --bytes N      size of a message (128)
`;

const USERS = 500;
const LANES = 32;
const BATCH_ITEMS = 500;
const BATCHES_AT_ONCE = 2;
/** Commands on their way at one time. */
const PIPELINED = 500;

const LF = 0x0a, DOLLAR = 0x24, STAR = 0x2a, MINUS = 0x2d;

const encoder = new TextEncoder();

interface Place {
  readonly url: string;
  readonly port: number;
  readonly redisPort: number;
  readonly payload: string;
}

/** Sends so many messages; resolves when all are answered. */
type Way = (count: number, place: Place) => Promise<void>;

const user = (i: number) => `user-${i % USERS}`;

async function single(count: number, { port, payload }: Place): Promise<void> {
  const sender = await HttpSender.open([loopback(port)], LANES);
  const { promise, resolve } = Promise.withResolvers<void>();
  let sent = 0;
  const more = () => {
    while (sent < count && sender.pending < LANES * 2) {
      sender.send(sent, user(sent), payload);
      sent++;
    }
    if (sent === count && sender.pending === 0) resolve();
  };
  sender.onAnswer = more;
  more();
  await promise;
  sender.close();
  if (sender.counts.failed > 0) throw new Error(`${sender.counts.failed} sends failed`);
}

async function answered(answer: Response): Promise<string> {
  const text = await answer.text();
  if (answer.status !== 200 || text.includes('"error"')) {
    throw new Error(`${answer.status}: ${text.slice(0, 300)}`);
  }
  return text;
}

async function batch(count: number, { url, payload }: Place): Promise<void> {
  let sent = 0;
  const work = async () => {
    while (sent < count) {
      const first = sent;
      sent += BATCH_ITEMS;
      const items = Array.from(
        { length: BATCH_ITEMS },
        (_, i) => `{"to":"${user(first + i)}","data":${payload}}`,
      );
      const headers = { "content-type": "application/json" };
      const body = `{"items":[${items.join(",")}]}`;
      await answered(await fetch(`${url}/v1/messages`, { method: "POST", headers, body }));
    }
  };
  await Promise.all(Array.from({ length: BATCHES_AT_ONCE }, work));
}

async function lines(count: number, { url, payload }: Place): Promise<void> {
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent >= count) return controller.close();
      const some = Array.from({ length: 200 }, () => `{"to":"${user(sent++)}","data":${payload}}\n`);
      controller.enqueue(encoder.encode(some.join("")));
    },
  });
  const headers = { "content-type": "application/x-ndjson" };
  await answered(await fetch(`${url}/v1/messages`, { method: "POST", headers, body }));
}

async function functions(count: number, { redisPort, payload }: Place): Promise<void> {
  using connection = await Deno.connect({ port: redisPort });
  const buffer = new Uint8Array(65_536);
  let sent = 0, done = 0, isStart = true, isText = false;
  while (done < count) {
    let text = "";
    for (; sent < count && sent - done < PIPELINED; sent++) {
      const words = ["FCALL", "userwire_send", "1", `userwire:{${user(sent)}}`, payload];
      text += `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
    }
    for (let rest = encoder.encode(text); rest.length > 0;) {
      rest = rest.subarray(await connection.write(rest));
    }
    const size = await connection.read(buffer) ?? 0;
    if (size === 0) throw new Error("Redis has hung up");
    for (let i = 0; i < size; i++) {
      const byte = buffer[i]!;
      // The line after one that begins with $ is text, whatever it begins with.
      if (isStart && !isText) {
        if (byte === MINUS) throw new Error("Redis refused a call");
        if (byte === STAR) done++;
        isText = byte === DOLLAR;
      } else if (isStart) {
        isText = false;
      }
      isStart = byte === LF;
    }
  }
}

const WAYS: readonly (readonly [name: string, way: Way])[] = [
  ["single sends by HTTP", single],
  ["batches of 500", batch],
  ["lines (NDJSON)", lines],
  ["FCALL, pipelined", functions],
];

interface Turn {
  readonly perSecond: number;
  readonly nodeUs: number;
  readonly redisUs: number;
}

async function compare(own: (started: AsyncDisposable) => void): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      messages: { type: "string", default: "20000" },
      turns: { type: "string", default: "3" },
      bytes: { type: "string", default: "128" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return console.log(HELP) === undefined;
  assertLinux();
  warnWhenBusy();
  const count = wholeNumber("--messages", values.messages, [BATCH_ITEMS, 100_000]);
  const bytes = wholeNumber("--bytes", values.bytes, [20, 60_000]);
  const redis = await RedisServer.start();
  own(redis);
  const node = startUserwire({
    env: { REDIS_URL: redis.url, PORT: "0", USERWIRE_REDIS_FUNCTIONS: "load" },
    dir: await scratchFolder(own),
  });
  own(node);
  const port = await portOf(node);
  const payload = JSON.stringify({ order: 7, text: "x".repeat(Math.max(0, bytes - 21)) });
  const place = { url: `http://127.0.0.1:${port}`, port, redisPort: redis.port, payload };
  const turns = new Map<string, Turn[]>(WAYS.map(([name]) => [name, []]));
  for (const [, way] of WAYS) await way(2 * BATCH_ITEMS, place);
  for (let n = 0; n < wholeNumber("--turns", values.turns, [1, 99]); n++) {
    for (const [name, way] of WAYS) {
      const before = [cpuSeconds([node.pid]), cpuSeconds([redis.pid]), performance.now()] as const;
      await way(count, place);
      turns.get(name)!.push({
        perSecond: count * 1_000 / (performance.now() - before[2]),
        nodeUs: (cpuSeconds([node.pid]) - before[0]) * 1e6 / count,
        redisUs: (cpuSeconds([redis.pid]) - before[1]) * 1e6 / count,
      });
    }
  }
  const of = (name: string) => {
    const median = (pick: (turn: Turn) => number) => {
      const all = turns.get(name)!.map(pick).toSorted((a, b) => a - b);
      return all[all.length >> 1]!;
    };
    return {
      perSecond: median((turn) => turn.perSecond),
      nodeUs: median((turn) => turn.nodeUs),
      redisUs: median((turn) => turn.redisUs),
    };
  };
  const reference = of(WAYS[0]![0]);
  console.log("| way | sends/s ↑ | × | node µs ↓ | × | Redis µs ↓ |\n| --- | --- | --- | --- | --- | --- |");
  for (const [name] of WAYS) {
    const { perSecond, nodeUs, redisUs } = of(name);
    const cells = [
      name,
      perSecond.toFixed(0),
      (perSecond / reference.perSecond).toFixed(2),
      nodeUs.toFixed(1),
      (nodeUs / reference.nodeUs).toFixed(2),
      redisUs.toFixed(1),
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
  return true;
}

if (import.meta.main) await runBenchmark(compare);
