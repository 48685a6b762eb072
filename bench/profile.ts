/**
 * `deno task profile`: where the time of a delivered message and of a connect goes, and the memory of an idle socket.
 * One node, one Redis, one load generator, loopback only. V8 tells about JavaScript, /proc about the process, and
 * strace, where it is installed, about calls of the kernel.
 */
import { parseArgs } from "node:util";
import { findRedisServer, REDIS_MISSING } from "../testkit/programs.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import { type CpuProfile, type Heap, Inspector } from "./inspector.ts";
import { LoadProcess } from "./load_process.ts";
import { assertLinux, cpuTimes, warnWhenBusy } from "./machine.ts";
import { wholeNumber } from "./options.ts";
import { Program } from "./program.ts";
import { portOf, startUserwire } from "./systems.ts";

const HELP = `deno task profile [options]

  --mode MODE      "dedicated" or "shared" subscriptions (dedicated)
  --sockets N      sockets (2000)
  --rate N         messages a second, one to each user in turns (5000)
  --history        by HTTP, with history, to framed sockets, instead of bare PUBLISH to raw ones
`;

const SECONDS = 5;
const AT_ONCE = 50;
const REST_MS = 3_000;
const SHOWN = 12;
const START_MS = 20_000;
const TRACED_MS = 2_000;

async function profile(own: (started: AsyncDisposable) => void): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      mode: { type: "string", default: "dedicated" },
      sockets: { type: "string", default: "2000" },
      rate: { type: "string", default: "5000" },
      history: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return true;
  }
  if (values.mode !== "dedicated" && values.mode !== "shared") {
    throw new Error(`--mode must be "dedicated" or "shared", but is "${values.mode}": correct it`);
  }
  const sockets = wholeNumber("--sockets", values.sockets, [50, 9_000]);
  const perSecond = wholeNumber("--rate", values.rate, [1, 50_000]);
  assertLinux();
  if (findRedisServer() === undefined) throw new Error(REDIS_MISSING.replace("The tests need", "This needs"));
  warnWhenBusy();

  const dir = await scratchFolder(own);
  const redis = await RedisServer.start({ args: ["--maxclients", "10000"] });
  own(redis);
  const service = startUserwire({
    dir,
    flags: ["--inspect=127.0.0.1:0"],
    env: {
      PORT: "0",
      REDIS_URL: redis.url,
      USERWIRE_SUBSCRIPTIONS: values.mode,
      ...(!values.history && { USERWIRE_HISTORY: "0" }),
    },
  });
  own(service);
  const [, url] = await service.output(/Debugger listening on (ws:\S+)/, START_MS);
  const port = await portOf(service);
  using inspector = await Inspector.connect(url!);
  const load = LoadProcess.start({
    ports: [port],
    by: values.history ? "http" : "publish",
    redisPort: redis.port,
    bytes: 128,
    ...(values.history && { subprotocol: "userwire.v1" }),
  });
  own(load);
  const pid = service.pid;

  // Everything has been done once before it is looked at.
  await load.run("openUsers", { users: 100, atOnce: AT_ONCE });
  await load.run("steady", { perSecond, seconds: 3, isTimed: false });
  await load.run("closeUsers", {});
  await load.run("churn", { seconds: 2, atOnce: AT_ONCE });

  const empty = await inspector.heap();
  const opening = await watch(
    inspector,
    pid,
    () => load.run("openUsers", { users: sockets, atOnce: AT_ONCE }),
  );
  console.log(`## A connect, each of ${sockets}\n`);
  printTimes(opening, sockets);

  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  console.log(`\n## An idle socket\n`);
  printGrowth(empty, await inspector.heap(), sockets);

  const count = perSecond * SECONDS;
  const steady = () => load.run("steady", { perSecond, seconds: SECONDS, isTimed: false });
  const delivering = await watch(inspector, pid, steady);
  console.log(`\n## A message, each of ${count}, ${perSecond} a second\n`);
  printTimes(delivering, count);

  console.log(`\n## Calls of the kernel for a message\n`);
  const tracing = steady();
  console.log(await callsOf(pid, perSecond * TRACED_MS / 1_000));
  await tracing;
  await load.run("closeUsers", {});
  return true;
}

interface Times {
  readonly profile: CpuProfile;
  readonly userUs: number;
  readonly systemUs: number;
}

async function watch(inspector: Inspector, pid: number, work: () => Promise<unknown>): Promise<Times> {
  const before = cpuTimes(pid);
  const profile = await inspector.profile(async () => void await work());
  const after = cpuTimes(pid);
  return {
    profile,
    userUs: (after.userS - before.userS) * 1e6,
    systemUs: (after.systemS - before.systemS) * 1e6,
  };
}

/** The kernel's part is the process' system time, Deno's what is left of the rest when JavaScript is taken away. */
function printTimes({ profile, userUs, systemUs }: Times, count: number): void {
  const row = (us: number, what: string) => console.log(`${(us / count).toFixed(2).padStart(8)} µs  ${what}`);
  row(userUs + systemUs, "CPU in all");
  row(systemUs, "in the kernel");
  row(profile.busyUs, "under JavaScript, calls of the kernel included; of these, by function:");
  for (const { name, us } of profile.functions.slice(0, SHOWN)) row(us, `    ${name}`);
}

function printGrowth(empty: Heap, full: Heap, sockets: number): void {
  const grown = [...full].map(([name, { count, bytes }]) => {
    const before = empty.get(name) ?? { count: 0, bytes: 0 };
    return { name, count: count - before.count, bytes: bytes - before.bytes };
  }).sort((a, b) => b.bytes - a.bytes);
  const heapBytes = grown.reduce((sum, { bytes }) => sum + bytes, 0);
  console.log(
    `${(heapBytes / sockets / 1_024).toFixed(1).padStart(8)} KiB  on the JavaScript heap, of these:`,
  );
  for (const { name, count, bytes } of grown.slice(0, SHOWN)) {
    const [each, times] = [(bytes / sockets).toFixed(0).padStart(8), (count / sockets).toFixed(1)];
    console.log(`${each} bytes    ${name} (${times})`);
  }
}

async function callsOf(pid: number, messages: number): Promise<string> {
  let strace: Program;
  try {
    strace = Program.start("strace", {
      name: "strace",
      args: ["-f", "-c", "-S", "calls", "-p", String(pid)],
    });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "(strace is not installed)";
    throw error;
  }
  await new Promise((resolve) => setTimeout(resolve, TRACED_MS));
  strace.interrupt();
  await strace.end(START_MS);
  const rows = [...strace.tail.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?([a-z_0-9]+)$/gm)];
  if (rows.length === 0) return `(strace saw nothing: ${strace.tail.trim().split("\n").at(-1)})`;
  return rows.map(([, calls, name]) => ({ name, each: Number(calls) / messages }))
    .filter(({ name, each }) => each >= 0.005 && name !== "total")
    .map(({ name, each }) => `${each.toFixed(2).padStart(8)}  ${name}`).join("\n");
}

if (import.meta.main) await runBenchmark(profile);
