/**
 * `deno task processes`: one process beside several on one port, on this machine. Each way of serving has a Redis of its own.
 *
 * CPU is measured at a fixed rate, of both at one time, so that what else the machine does falls on both; and twice: with
 * the same rate for all, and with the same rate for each process. The second is what another process costs. With the same
 * rate for all a process has less to do, and wakes more often for it: the answer to a send and its message, which one
 * process often finds at one time, come to two when the user is connected to another process than the one that was asked.
 * So wakes per send are shown, too.
 *
 * As fast as they go they are measured in turns: one, several, several, one, … On few cores, which Redis and the load
 * generator share, that says what the machine could take, and not what the processes could. With `--cpu` it is the other
 * way round: each process has so much of a CPU and no more.
 */
import { parseArgs } from "node:util";
import { RedisServer } from "../testkit/redis_server.ts";
import { ControlGroup } from "./control_group.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import type { Delivered } from "./load/scenarios.ts";
import { LoadProcess } from "./load_process.ts";
import { assertLinux, cpuSeconds, wakes, warnWhenBusy } from "./machine.ts";
import { wholeNumber } from "./options.ts";
import type { Program } from "./program.ts";
import { portOf, startUserwire } from "./systems.ts";
import { SUBPROTOCOL } from "../src/protocol/frames.ts";

const HELP = `deno task processes [options]

  --processes N    how many stand beside one (2)
  --pairs N        how often both are measured (4)
  --sockets N      sockets and users (600)
  --rate N         sends a second, of one process, while CPU is measured (500)
  --seconds N      how long CPU is measured (8)
  --cpu N          hundredths of a CPU that each process may take while they go as fast as they can, by a control
                   group, as root (as much as there is)
`;

const FLOOD_S = 3;
/** Until all is compiled that runs often, and what has become old meanwhile is collected. */
const WARM_UP_S = { flood: 6, steady: 30 };
const AT_ONCE = 50;
const START_MS = 30_000;

/** One service: one process, or several with a supervisor. */
interface Contender {
  readonly name: string;
  readonly redis: RedisServer;
  readonly load: LoadProcess;
  /** The processes that serve. */
  readonly pids: readonly number[];
  readonly supervisor: number | undefined;
  readonly opsUrl: string | undefined;
}

/** What a send took, and how many there were. */
interface Cost {
  readonly cpuUs: number;
  readonly redisUs: number;
  readonly wakes: number;
  readonly sendsPerS: number;
}

/** Of one and of several. */
type Pair = readonly [Cost, Cost];

async function compare(own: (started: AsyncDisposable) => void): Promise<boolean> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      help: { type: "boolean", default: false },
      processes: { type: "string", default: "2" },
      pairs: { type: "string", default: "4" },
      sockets: { type: "string", default: "600" },
      rate: { type: "string", default: "500" },
      seconds: { type: "string", default: "8" },
      cpu: { type: "string" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return true;
  }
  assertLinux();
  warnWhenBusy();
  const number = (name: "pairs" | "sockets" | "rate" | "seconds", most: number) =>
    wholeNumber(`--${name}`, values[name], [1, most]);
  const count = wholeNumber("--processes", values.processes, [2, 64]);
  const sockets = number("sockets", 20_000), pairs = number("pairs", 99);
  const plan = { perSecond: number("rate", 100_000), seconds: number("seconds", 60) };
  const share = values.cpu === undefined ? undefined : wholeNumber("--cpu", values.cpu, [1, 100]) / 100;
  // Whether that can be had at all.
  if (share !== undefined) new ControlGroup(Deno.pid, 1)[Symbol.dispose]();
  const dir = await scratchFolder(own);

  const start = async (name: string, processes: number): Promise<Contender> => {
    const redis = await RedisServer.start({ args: ["--maxclients", `${2 * sockets + 500}`] });
    own(redis);
    const program = startUserwire({
      dir,
      env: {
        PORT: "0",
        REDIS_URL: redis.url,
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
    return { name, redis, load, pids, supervisor, opsUrl };
  };
  const one = await start("one process", 1);
  const several = await start(`${count} processes`, count);
  const both = [one, several] as const;

  let wrong = 0;
  /** Runs a scenario; what a send of it took. */
  const costOf = async (
    { pids, redis }: Contender,
    run: () => Promise<Delivered & { perSecond?: number }>,
  ) => {
    const state = () => [cpuSeconds(pids), cpuSeconds([redis.pid]), wakes(pids)] as const;
    const before = state();
    const ran = await run();
    wrong += faultsIn(ran);
    const [cpuS, redisS, woken] = state().map((now, i) => (now - before[i]!) / ran.answered);
    return { cpuUs: cpuS! * 1e6, redisUs: redisS! * 1e6, wakes: woken!, sendsPerS: ran.perSecond ?? 0 };
  };
  const steady = (perSecond: readonly [number, number], seconds = plan.seconds): Promise<Pair> =>
    Promise.all([
      costOf(one, () => one.load.run("steady", { seconds, perSecond: perSecond[0], isTimed: false })),
      costOf(several, () => several.load.run("steady", { seconds, perSecond: perSecond[1], isTimed: false })),
    ]);
  const flood = (contender: Contender, seconds: number) =>
    costOf(contender, () => contender.load.run("flood", { seconds }));

  for (const contender of both) {
    const { opened } = await contender.load.run("openUsers", { users: sockets, atOnce: AT_ONCE });
    if (opened !== sockets) throw new Error(`${contender.name}: only ${opened} of ${sockets} sockets opened`);
    await flood(contender, WARM_UP_S.flood);
  }
  const all = [plan.perSecond, plan.perSecond] as const;
  const each = [plan.perSecond, plan.perSecond * count] as const;
  await steady(each, WARM_UP_S.steady);
  const connections = await connectionsOf(several.opsUrl!);
  const supervisorBefore = cpuSeconds([several.supervisor!]);

  const sameForAll: Pair[] = [], sameForEach: Pair[] = [], floods: Pair[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    sameForAll.push(await steady(all));
    sameForEach.push(await steady(each));
  }
  const limits = new AsyncDisposableStack();
  own(limits);
  for (const pid of both.flatMap(({ pids }) => pids)) {
    if (share !== undefined) limits.use(new ControlGroup(pid, share));
  }
  for (let pair = 0; pair < pairs; pair++) {
    const first = pair % 2;
    const costs = [await flood(both[first]!, FLOOD_S), await flood(both[1 - first]!, FLOOD_S)];
    floods.push([costs[first]!, costs[1 - first]!]);
  }

  console.log(`| | ${both.map(({ name }) => name).join(" | ")} | ratio | of pairs |\n|---|---|---|---|---|`);
  const row = (what: string, pairs: readonly Pair[], of: (cost: Cost) => number, digits = 0) => {
    const figures = [0, 1].map((i) => median(pairs.map((pair) => of(pair[i]!))).toFixed(digits));
    const ratios = pairs.map(([a, b]) => of(b) / of(a));
    const spread = `${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)}`;
    console.log(`| ${[what, ...figures, median(ratios).toFixed(2), spread].join(" | ")} |`);
  };
  for (
    const [what, measured] of [
      [`${plan.perSecond} sends/s in all`, sameForAll],
      [`${plan.perSecond} sends/s for each process`, sameForEach],
      [`as fast as they go${share === undefined ? "" : `, ${values.cpu} % of a CPU each`}`, floods],
    ] as const
  ) {
    row(`${what}: CPU µs per send`, measured, ({ cpuUs }) => cpuUs);
    row("wakes per send", measured, ({ wakes }) => wakes, 2);
    row("Redis µs per send", measured, ({ redisUs }) => redisUs);
  }
  row("sends/s", floods, ({ sendsPerS }) => sendsPerS);
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
