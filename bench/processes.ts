/**
 * `deno task processes`: one process beside several on one port, on this machine, in turns: one, several, several, one, …
 * Each has the Redis that they share to itself in its turn, while the other is idle. Shown are CPU per send, of the
 * processes and of Redis, and sends a second as fast as they go, as ratios, medians of pairs; and how evenly connections
 * are spread.
 *
 * CPU is measured at a fixed rate, twice for several processes: with the same rate in all, and with the same rate for each.
 * A process that has less to do spends more on each send, since fewer share a turn of its event loop; so the second is what
 * another process costs. On few cores, which Redis and the load generator share, the sends a second say what the machine
 * could take, not what the processes could.
 */
import { parseArgs } from "node:util";
import { RedisServer } from "../testkit/redis_server.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import type { Delivered } from "./load/scenarios.ts";
import { LoadProcess } from "./load_process.ts";
import { assertLinux, cpuSeconds, warnWhenBusy } from "./machine.ts";
import { wholeNumber } from "./options.ts";
import type { Program } from "./program.ts";
import { portOf, startUserwire } from "./systems.ts";
import { SUBPROTOCOL } from "../src/protocol/frames.ts";

const HELP = `deno task processes [options]

  --processes N    how many stand beside one (2)
  --pairs N        how often both are measured (4)
  --sockets N      sockets and users (600)
  --rate N         sends a second, of one process, while CPU is measured (500)
  --seconds N      how long CPU is measured (4)
`;

const FLOOD_S = 2;
const WARM_UP_S = 6;
const AT_ONCE = 50;
const START_MS = 30_000;

/** One service: one process, or several with a supervisor. */
interface Contender {
  readonly name: string;
  readonly load: LoadProcess;
  /** The processes that serve. */
  readonly pids: readonly number[];
  readonly supervisor: number | undefined;
  readonly opsUrl: string | undefined;
  readonly turns: Turn[];
}

interface Turn {
  /** With the same rate as one process, in microseconds. */
  readonly cpuUs: number;
  readonly redisUs: number;
  /** With the same rate for each process. */
  readonly cpuUsEach: number;
  /** As fast as they go. */
  readonly cpuUsFlood: number;
  readonly sendsPerS: number;
}

async function compare(own: (started: AsyncDisposable) => void): Promise<boolean> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      help: { type: "boolean", default: false },
      processes: { type: "string", default: "2" },
      pairs: { type: "string", default: "4" },
      sockets: { type: "string", default: "600" },
      rate: { type: "string", default: "500" },
      seconds: { type: "string", default: "4" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return true;
  }
  assertLinux();
  warnWhenBusy();
  const number = (name: "processes" | "pairs" | "sockets" | "rate" | "seconds", most: number) =>
    wholeNumber(`--${name}`, values[name], [1, most]);
  const count = number("processes", 64), sockets = number("sockets", 20_000);
  const plan = { perSecond: number("rate", 100_000), seconds: number("seconds", 60) };
  const dir = await scratchFolder(own);
  const redis = await RedisServer.start({ args: ["--maxclients", `${2 * sockets + 500}`] });
  own(redis);

  const start = async (name: string, processes: number): Promise<Contender> => {
    const program = startUserwire({
      dir,
      env: {
        PORT: "0",
        REDIS_URL: redis.url,
        USERWIRE_CHANNEL_PREFIX: `${name.replace(" ", "")}:`,
        ...(processes > 1 && { USERWIRE_PROCESSES: `${processes}` }),
      },
      flags: [`--allow-run=${Deno.execPath()}`],
    });
    own(program);
    const { pids, opsUrl } = processes > 1
      ? await childrenOf(program)
      : { pids: [program.pid], opsUrl: undefined };
    const ports = [await portOf(program)];
    const load = LoadProcess.start({
      ports,
      by: "http",
      redisPort: redis.port,
      bytes: 128,
      subprotocol: SUBPROTOCOL,
    });
    own(load);
    const supervisor = processes > 1 ? program.pid : undefined;
    return { name, load, pids, supervisor, opsUrl, turns: [] };
  };
  const one = await start("one process", 1);
  const several = await start(`${count} processes`, count);
  for (const { name, load } of [one, several]) {
    const { opened } = await load.run("openUsers", { users: sockets, atOnce: AT_ONCE });
    if (opened !== sockets) throw new Error(`${name}: only ${opened} of ${sockets} sockets opened`);
    // Until every process has compiled what it runs.
    await load.run("flood", { seconds: WARM_UP_S });
    await load.run("steady", { ...plan, seconds: 2, isTimed: false });
  }
  const connections = await connectionsOf(several.opsUrl!);
  const supervisorBefore = cpuSeconds([several.supervisor!]);

  let wrong = 0;
  for (let pair = 0; pair < number("pairs", 99); pair++) {
    for (const contender of pair % 2 === 0 ? [one, several] : [several, one]) {
      const { load, pids, turns } = contender;
      const cpuOf = async (perSecond: number) => {
        const before = cpuSeconds(pids), redisBefore = cpuSeconds([redis.pid]);
        const run = await load.run("steady", { ...plan, perSecond, isTimed: false });
        wrong += faultsIn(run);
        return {
          cpuUs: (cpuSeconds(pids) - before) * 1e6 / run.answered,
          redisUs: (cpuSeconds([redis.pid]) - redisBefore) * 1e6 / run.answered,
        };
      };
      const same = await cpuOf(plan.perSecond);
      const each = pids.length > 1 ? await cpuOf(plan.perSecond * pids.length) : same;
      const floodBefore = cpuSeconds(pids);
      const flood = await load.run("flood", { seconds: FLOOD_S });
      const cpuUsFlood = (cpuSeconds(pids) - floodBefore) * 1e6 / flood.answered;
      wrong += faultsIn(flood);
      turns.push({ ...same, cpuUsEach: each.cpuUs, cpuUsFlood, sendsPerS: flood.perSecond });
    }
  }
  console.log(
    "| | CPU µs per send | same rate each | as fast as they go | Redis µs per send | sends/s |\n|---|---|---|---|---|---|",
  );
  const figures = [
    (turn: Turn) => turn.cpuUs,
    (turn: Turn) => turn.cpuUsEach,
    (turn: Turn) => turn.cpuUsFlood,
    (turn: Turn) => turn.redisUs,
    (turn: Turn) => turn.sendsPerS,
  ];
  for (const { name, turns } of [one, several]) {
    console.log(`| ${name} | ${figures.map((of) => median(turns.map(of)).toFixed(0)).join(" | ")} |`);
  }
  const ratios = figures.map((of) => several.turns.map((turn, i) => of(turn) / of(one.turns[i]!)));
  console.log(`| ratio | ${ratios.map((pairs) => median(pairs).toFixed(2)).join(" | ")} |`);
  const spread = ratios.map((pairs) => `${Math.min(...pairs).toFixed(2)}–${Math.max(...pairs).toFixed(2)}`);
  console.log(`| of pairs | ${spread.join(" | ")} |`);
  const even = sockets / count;
  const off = Math.max(...connections.map((n) => Math.abs(n - even))) / even * 100;
  console.log(`connections: ${connections.join(" / ")}, at most ${off.toFixed(1)} % off an even share`);
  const supervisorMs = (cpuSeconds([several.supervisor!]) - supervisorBefore) * 1_000;
  console.log(`CPU of the supervisor in all turns: ${supervisorMs.toFixed(0)} ms`);
  console.log(`lost, doubled, disordered, failed or dropped: ${wrong}`);
  return wrong === 0;
}

function faultsIn({ lost, duplicated, disordered, failed, dropped }: Delivered): number {
  return lost + duplicated + disordered + failed + dropped;
}

/** The processes of a supervisor, and where it is asked for all. */
async function childrenOf(program: Program): Promise<{ pids: number[]; opsUrl: string }> {
  const [, opsUrl] = await program.output(/processes started .*ops_url=(\S+)/, START_MS);
  const pids = Array.from(
    program.tail.matchAll(/process started process=\d+ pid=(\d+)/g),
    ([, pid]) => +pid!,
  );
  return { pids, opsUrl: opsUrl! };
}

async function connectionsOf(opsUrl: string): Promise<number[]> {
  const { processes } = await (await fetch(new URL("readyz", opsUrl))).json();
  return processes.map(({ connections }: { connections: number }) => connections);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

await runBenchmark(compare);
