/**
 * What a broadcast costs: one node in this process with a broker in memory, and so many framed sockets of another process
 * that read and do nothing else. Says the CPU of the node and the longest turn of its event loop for each socket, and what
 * a socket's place among the broadcasts takes in memory.
 *
 *     deno task bench:broadcast [--sockets 5000] [--rounds 20] [--bytes 200]
 */
import { setImmediate } from "node:timers";
import { parseArgs } from "node:util";
import process from "node:process";
import { loadConfig } from "../testkit/config.ts";
import { memoryLog } from "../testkit/memory_log.ts";
import { startServer } from "../src/server/server.ts";
import { BroadcastReader } from "../src/session/broadcast_reader.ts";
import { BroadcastRing } from "../src/session/broadcast_ring.ts";

const { values } = parseArgs({
  options: {
    sockets: { type: "string", default: "5000" },
    rounds: { type: "string", default: "20" },
    bytes: { type: "string", default: "200" },
    crowd: { type: "string" },
  },
});
const sockets = Number(values.sockets);
const rounds = Number(values.rounds);

if (values.crowd === undefined) await measure();
else await listen(values.crowd);

/** The other process: says when all sockets are open, and whenever all of them have got one more broadcast. */
async function listen(url: string): Promise<void> {
  let got = 0;
  const open = async (nth: number) => {
    const socket = new WebSocket(`${url}?username=user${nth}`, ["userwire.v1"]);
    await new Promise<void>((resolve, reject) => {
      socket.onerror = () => reject(new Error("A socket did not open"));
      socket.onmessage = ({ data }) => {
        if (data.startsWith('{"t":"hi"')) return resolve();
        if (data.startsWith('{"t":"b"') && ++got % sockets === 0) console.log("all");
      };
    });
  };
  for (let nth = 0; nth < sockets; nth += 50) {
    await Promise.all(Array.from({ length: Math.min(50, sockets - nth) }, (_, i) => open(nth + i)));
  }
  console.log("open");
}

async function measure(): Promise<void> {
  const config = loadConfig({
    env: {
      PORT: "0",
      USERWIRE_MAX_CONNECTIONS: String(sockets),
      USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
      USERWIRE_UPGRADES_PER_SECOND: "0",
    },
  });
  const server = await startServer(config, { log: memoryLog() });
  const url = new URL("/ws", server.url.replace("http:", "ws:")).href;
  const crowd = new Deno.Command(Deno.execPath(), {
    args: ["run", "--lock=tests/deno.lock", "-A", import.meta.filename!, "--crowd", url, ...Deno.args],
    stdout: "piped",
  }).spawn();
  const lines = crowd.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const hear = async (word: string) => {
    while (!text.includes(`${word}\n`)) text += (await lines.read()).value ?? "";
    text = text.replace(`${word}\n`, "");
  };
  await hear("open");
  const { publisher } = server.app;
  const payload = "x".repeat(Number(values.bytes));
  await publisher.broadcast(payload);
  await hear("all");

  const answersMs: number[] = [], doneMs: number[] = [];
  const broadcastAll = async () => {
    for (let round = 0; round < rounds; round++) {
      const startMs = performance.now();
      const { sockets: reached } = await publisher.broadcast(payload);
      if (reached !== sockets) throw new Error(`${reached} of ${sockets} sockets were reached`);
      answersMs.push(performance.now() - startMs);
      await hear("all");
      doneMs.push(performance.now() - startMs);
    }
  };
  const before = process.cpuUsage();
  await broadcastAll();
  const { user, system } = process.cpuUsage(before);
  const usEach = (user + system) / rounds / sockets;
  const longestMs = await longestTurn(broadcastAll);
  console.log(`${sockets} sockets, ${values.bytes} bytes, ${rounds} broadcasts`);
  console.log(`CPU of the node: ${usEach.toFixed(1)} µs a socket`);
  console.log(
    `answered after ${median(answersMs)} ms, all clients had it after ${median(doneMs)} ms (median)`,
  );
  console.log(`longest turn of the event loop: ${longestMs.toFixed(1)} ms`);
  console.log(`a place among the broadcasts: ${bytesOfReader()} bytes of heap a socket`);
  crowd.kill("SIGKILL");
  await crowd.status;
  Deno.exit();
}

/** The longest turn of the event loop meanwhile; of each, at most the CPU time that the process used. */
async function longestTurn(work: () => Promise<void>): Promise<number> {
  let longestMs = 0, isOver = false;
  const cpuMs = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1_000;
  };
  const watch = (beforeMs: number, beforeCpuMs: number) => {
    const nowMs = performance.now(), nowCpuMs = cpuMs();
    longestMs = Math.max(longestMs, Math.min(nowMs - beforeMs, nowCpuMs - beforeCpuMs));
    if (!isOver) setImmediate(watch, nowMs, nowCpuMs);
  };
  watch(performance.now(), cpuMs());
  await work();
  isOver = true;
  return longestMs;
}

function median(numbers: readonly number[]): string {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!.toFixed(0);
}

function bytesOfReader(): number {
  const count = 100_000;
  const ring = new BroadcastRing({ entries: 1, bytes: 1, ttlMs: 1 });
  const output = { broadcast: () => true, gap() {}, miss() {} };
  const used = () => (gc(), Deno.memoryUsage().heapUsed);
  const readers = new Array<BroadcastReader>(count);
  const before = used();
  for (let i = 0; i < count; i++) {
    readers[i] = new BroadcastReader(ring, output, { position: ring.position });
    readers[i]!.run();
  }
  return Math.round((used() - before) / readers.length);
}

declare function gc(): void;
