/**
 * What `deno task scale --curve` measures: what a message costs, and how long the event loop is held by what is done for
 * every socket, as sockets grow. Two nodes and a Redis of their own for each row, loopback only.
 */
import { until } from "../testkit/deadline.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { Inspector } from "./inspector.ts";
import { LoadProcess } from "./load_process.ts";
import { cpuSeconds } from "./machine.ts";
import type { Program } from "./program.ts";
import { RedisWatch } from "./redis_watch.ts";
import type { Findings } from "./scale_stages.ts";
import { portOf, startUserwire } from "./systems.ts";
import { layOut } from "./table.ts";

/** A row of the table. */
interface Row {
  readonly subscriptions: "dedicated" | "shared";
  readonly sockets: number;
  /** The longest that a node's event loop was held while nothing was sent, in milliseconds. */
  readonly heldMs: number;
  /** Messages that arrived in a second, while latency was measured. */
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time of both nodes per message meanwhile, in microseconds. */
  readonly cpuUs: number;
  /** As many messages as they take. */
  readonly floodPerS: number;
  /** The same then. What comes together is read together, so it falls with the rate. */
  readonly floodCpuUs: number;
}

const NODES = 2;
const SIZES = [1_000, 4_000, 8_000];
const AT_ONCE = 64;
const PER_SECOND = 5_000;
const STEADY_S = 3;
/** So often is latency measured; the median counts, for one collection of garbage more or less is seen in a p99. */
const WINDOWS = 9;
/**
 * Young objects of the generator, in MB. What it waits with lives as long as its sockets wait, and to collect that holds it, too:
 * with the space that V8 takes, 8,000 sockets had a p99 of twice as much, of which half was its own.
 */
const LOAD_FLAGS = ["--v8-flags=--max-semi-space-size=4"];
const FLOOD_S = 3;
/** Long enough that a quiet connection to Redis is pinged, after 15 s, and for ticks of each second. */
const IDLE_MS = 17_000;
const START_MS = 20_000;
const SUBSCRIBED_MS = 30_000;

export async function curve(
  modes: readonly ("dedicated" | "shared")[],
  surroundings: { dir: string; own: (started: AsyncDisposable) => void; findings: Findings },
): Promise<void> {
  const rows: Row[] = [];
  for (const subscriptions of modes) {
    for (const sockets of SIZES) {
      rows.push(await measure(subscriptions, sockets, surroundings));
      console.error(`  ${subscriptions}, ${sockets} sockets: measured`);
    }
  }
  console.log(`\n${tableOf(rows)}`);
  console.log(
    `p50, p99 and CPU of both nodes per message at ${PER_SECOND} messages/s, medians of ${WINDOWS} times ${STEADY_S} s; ` +
      `then at full rate;\nheld: the longest turn of an event loop in ${
        IDLE_MS / 1_000
      } s without messages, ` +
      `in CPU time. Ratios are against the fewest sockets.`,
  );
}

async function measure(
  subscriptions: Row["subscriptions"],
  sockets: number,
  { dir, own, findings }: Parameters<typeof curve>[1],
): Promise<Row> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  const redis = stack.use(await RedisServer.start({ args: ["--maxclients", "12000"] }));
  const watch = stack.use(await RedisWatch.connect(redis.port));
  const nodes: Program[] = [];
  for (let i = 0; i < NODES; i++) {
    nodes.push(stack.use(startUserwire({
      dir: await Deno.makeTempDir({ dir }),
      flags: ["--inspect=127.0.0.1:0"],
      env: {
        PORT: "0",
        REDIS_URL: redis.url,
        USERWIRE_HISTORY: "0",
        USERWIRE_SUBSCRIPTIONS: subscriptions,
        USERWIRE_MAX_CONNECTIONS: "20000",
      },
    })));
  }
  const urls = await Promise.all(
    nodes.map(async (node) => (await node.output(/Debugger listening on (ws:\S+)/, START_MS))[1]!),
  );
  const ports = await Promise.all(nodes.map(portOf));
  const pids = nodes.map(({ pid }) => pid);
  const setup = { ports, by: "publish", redisPort: redis.port, bytes: 128 } as const;
  const load = stack.use(LoadProcess.start(setup, LOAD_FLAGS));

  // Everything has been done once before it is looked at.
  await load.run("openUsers", { users: 100, atOnce: AT_ONCE });
  await load.run("steady", { perSecond: PER_SECOND, seconds: 2, isTimed: false });
  await load.run("closeUsers", {});

  const { opened } = await load.run("openUsers", { users: sockets, atOnce: AT_ONCE });
  findings.expect(opened === sockets, `${subscriptions}: only ${opened} of ${sockets} sockets opened`);
  await untilSubscribed(watch, opened);

  const inspectors = await Promise.all(urls.map((url) => Inspector.connect(url)));
  const held = await Promise.all(inspectors.map((inspector) => inspector.longestTurn(IDLE_MS)));
  for (const inspector of inspectors) inspector[Symbol.dispose]();

  let lost = 0;
  const steady = async (seconds: number, isTimed: boolean) => {
    const run = await load.run("steady", { perSecond: PER_SECOND, seconds, isTimed });
    lost += run.lost + run.duplicated + run.disordered + run.misdelivered + run.failed + run.dropped;
    return run;
  };
  await steady(1, false);
  const runs = [];
  const steadyCpu = cpuSeconds(pids);
  for (let i = 0; i < WINDOWS; i++) {
    const startMs = performance.now();
    const run = await steady(STEADY_S, true);
    runs.push({ ...run, perSecond: run.delivered * 1_000 / (performance.now() - startMs) });
  }
  const floodCpu = cpuSeconds(pids);
  const cpuUs = (floodCpu - steadyCpu) * 1e6 / runs.reduce((sum, { delivered }) => sum + delivered, 0);
  const flood = await load.run("flood", { seconds: FLOOD_S });
  const floodCpuUs = (cpuSeconds(pids) - floodCpu) * 1e6 / flood.delivered;
  lost += flood.lost + flood.duplicated + flood.disordered + flood.misdelivered + flood.dropped;
  findings.expect(lost === 0, `${subscriptions}, ${sockets} sockets: ${lost} messages went wrong`);
  await load.run("closeUsers", {});
  return {
    subscriptions,
    sockets,
    heldMs: Math.max(...held),
    perSecond: medianOf(runs.map(({ perSecond }) => perSecond)),
    p50Ms: medianOf(runs.map(({ p50Ms }) => p50Ms)),
    p99Ms: medianOf(runs.map(({ p99Ms }) => p99Ms)),
    cpuUs,
    floodPerS: flood.perSecond,
    floodCpuUs,
  };
}

/** Nodes have a channel of their own now and then, beside those of the sockets. */
async function untilSubscribed(watch: RedisWatch, sockets: number): Promise<void> {
  let channels = 0;
  await until(
    async () => (channels = await watch.channels()) >= sockets,
    `Redis to have ${sockets} subscribed channels`,
    SUBSCRIBED_MS,
    () => channels,
  );
}

function tableOf(rows: readonly Row[]): string {
  const number = (value: number, digits: number) =>
    value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const head = ["subscriptions", "sockets", "held ms ↓", "messages/s", "p50 ms ↓", "p99 ms ↓", "CPU µs ↓"];
  return layOut([
    [...head, "messages/s, full", "CPU µs, full ↓"],
    ...rows.map((row) => {
      const first = rows.find(({ subscriptions }) => subscriptions === row.subscriptions)!;
      const ratio = (name: "p50Ms" | "p99Ms" | "cpuUs" | "floodCpuUs", digits: number) =>
        number(row[name], digits) + (row === first ? "" : ` (${number(row[name] / first[name], 2)}×)`);
      return [
        row.subscriptions,
        number(row.sockets, 0),
        number(row.heldMs, 1),
        number(row.perSecond, 0),
        ratio("p50Ms", 2),
        ratio("p99Ms", 2),
        ratio("cpuUs", 1),
        number(row.floodPerS, 0),
        ratio("floodCpuUs", 1),
      ];
    }),
  ]);
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
