/**
 * Takes one system through everything once: a Redis and two nodes of their own, a load generator, then all of
 * it is ended. CPU and memory are read from outside, around what the generator does.
 */
import { ClusterSet } from "../testkit/redis_cluster.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import type { Delivered, Setup } from "./load/scenarios.ts";
import { LoadProcess } from "./load_process.ts";
import { cpuSeconds, memoryKib } from "./machine.ts";
import type { Peers } from "./peers.ts";
import type { Program } from "./program.ts";
import { RedisWatch } from "./redis_watch.ts";
import { type Place, portOf, startNode, subprotocolOf, type System } from "./systems.ts";

/** How much of everything. */
export interface Plan {
  /** Sockets that are opened, and users that messages go to. */
  readonly sockets: number;
  /** Messages a second while latency is measured. */
  readonly perSecond: number;
  /** Seconds that latency is measured. */
  readonly steadyS: number;
  /** Seconds that it is measured while guests come and go. */
  readonly besideS: number;
  readonly guestsPerSecond: number;
  readonly floodS: number;
  readonly churnS: number;
  /** Sockets of the one user with many. */
  readonly fanOutSockets: number;
  readonly fanOutMessages: number;
  /** New users that get a message the moment they are open. */
  readonly firstTries: number;
  /** Size of a payload. */
  readonly bytes: number;
  /** How long memory comes to rest before it is read. */
  readonly restMs: number;
}

/** What was found out about a system in one run. */
export interface Figures {
  /** Sockets open and subscribed, per second. */
  readonly connectsPerS: number;
  /** Both servers together, in KiB. */
  readonly kibPerSocket: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  /** The same while guests come and go. */
  readonly p999BesideMs: number;
  readonly deliveriesPerS: number;
  /** CPU time of both servers, in microseconds. */
  readonly cpuUsPerMessage: number;
  /** Until the last socket of one user had it. */
  readonly fanOutMs: number;
  readonly cyclesPerS: number;
  /** Percent of the messages sent at `open` that arrived. */
  readonly atOpenPercent: number;
  readonly lost: number;
  readonly duplicated: number;
  readonly disordered: number;
  /** Everything else that must not happen: refused or broken sockets and sends, messages for others. */
  readonly failed: number;
  /** Subscriptions that were left behind in Redis by sockets long closed. */
  readonly left: number;
  /** How busy the load generator was in the flood: near 1 it is what limits the deliveries. */
  readonly generatorCores: number;
}

const NODES = 2;
/** Handshakes at one time. */
const AT_ONCE = 50;
const SUBSCRIBED_MS = 10_000;
const GONE_MS = 5_000;
/** Users that come before all else, so that every system has compiled its code when it is measured. */
const WARM_UP = { users: 50, perSecond: 500, seconds: 1 };

/**
 * @param options.own Takes what is started, to end it when the whole program ends early.
 * @throws {Error} when the system can't be taken through to the end.
 */
export async function measure(
  system: System,
  plan: Plan,
  options: { dir: string; peers: Peers; own: (started: AsyncDisposable) => void },
): Promise<Figures> {
  await using stack = new AsyncDisposableStack();
  options.own(stack);
  const args = ["--maxclients", String(2 * plan.sockets + plan.fanOutSockets + 500)];
  const redis = stack.use(
    system.isOnCluster ? await ClusterSet.start({ args }) : await RedisServer.start({ args }),
  );
  const redisPorts = redis instanceof ClusterSet
    ? redis.nodes.map(({ server }) => server.port)
    : [redis.port];
  const watch = stack.use(await RedisWatch.connect(...redisPorts));
  const programs: Program[] = [];
  for (let i = 0; i < NODES; i++) {
    const dir = await Deno.makeTempDir({ dir: options.dir });
    const place: Place = { redisUrl: redis.url, dir, peers: options.peers };
    programs.push(stack.use(startNode(system, place)));
  }
  const ports = await Promise.all(programs.map(portOf));
  const setup: Setup = {
    ports,
    by: system.by,
    redisPort: redisPorts[0]!,
    bytes: plan.bytes,
    ...subprotocolOf(system),
  };
  const load = stack.use(LoadProcess.start(setup));
  const pids = programs.map(({ pid }) => pid);
  const deliveries: Delivered[] = [];
  const noted = <Run extends Delivered>(run: Run): Run => {
    deliveries.push(run);
    return run;
  };
  let failed = 0, left = 0;
  /** Waits until Redis has no channel but those of before; what is left after a while is counted. */
  const allGone = async () => {
    // Once there was none but those, what is there later is a node's own probe.
    await watch.untilChannels(channels, GONE_MS).catch(async () => {
      left += await watch.channels() - channels;
    });
  };

  const channels = await watch.channels();
  await load.run("openUsers", { users: WARM_UP.users, atOnce: AT_ONCE });
  await watch.untilChannels(channels + WARM_UP.users, SUBSCRIBED_MS);
  noted(await load.run("steady", { ...WARM_UP, isTimed: false }));
  failed += (await load.run("closeUsers", {})).late;
  await allGone();

  const memoryBefore = memoryKib(pids);
  const openMs = performance.now();
  const { opened } = await load.run("openUsers", { users: plan.sockets, atOnce: AT_ONCE });
  failed += plan.sockets - opened;
  await watch.untilChannels(channels + opened, SUBSCRIBED_MS);
  const connectsPerS = opened * 1_000 / (performance.now() - openMs);
  await pause(plan.restMs);
  const kibPerSocket = (memoryKib(pids) - memoryBefore) / opened;

  const { perSecond } = plan;
  noted(await load.run("steady", { perSecond, seconds: 1, isTimed: false }));
  const steady = noted(await load.run("steady", { perSecond, seconds: plan.steadyS, isTimed: true }));
  const { besideS, guestsPerSecond } = plan;
  const beside = noted(
    await load.run("steady", { perSecond, seconds: besideS, isTimed: true, guestsPerSecond }),
  );
  failed += beside.failedGuests;

  const cpuBefore = cpuSeconds(pids), generatorBefore = cpuSeconds([load.pid]);
  const floodMs = performance.now();
  const flood = noted(await load.run("flood", { seconds: plan.floodS }));
  if (flood.delivered === 0) throw new Error("No message arrived in the flood");
  const cpuUsPerMessage = (cpuSeconds(pids) - cpuBefore) * 1e6 / flood.delivered;
  const generatorCores = (cpuSeconds([load.pid]) - generatorBefore) * 1_000 / (performance.now() - floodMs);
  failed += (await load.run("closeUsers", {})).late;
  await allGone();

  const fanOut = noted(
    await load.run("fanOut", {
      sockets: plan.fanOutSockets,
      messages: plan.fanOutMessages,
      atOnce: AT_ONCE,
    }),
  );
  failed += plan.fanOutSockets - fanOut.opened;
  await allGone();

  const churn = await load.run("churn", { seconds: plan.churnS, atOnce: AT_ONCE });
  const first = await load.run("first", { tries: plan.firstTries, atOnce: 20 });
  failed += churn.failed + first.failed;
  await allGone();

  for (const program of programs) {
    if (program.ended) {
      throw new Error(`A node ended with ${program.ended.code}: ${program.tail.trim()}`);
    }
  }
  const sum = (name: keyof Delivered) => deliveries.reduce((sum, run) => sum + run[name], 0);
  return {
    connectsPerS,
    kibPerSocket,
    p50Ms: steady.p50Ms,
    p99Ms: steady.p99Ms,
    p999Ms: steady.p999Ms,
    p999BesideMs: beside.p999Ms,
    deliveriesPerS: flood.perSecond,
    cpuUsPerMessage,
    fanOutMs: fanOut.toLastMs,
    cyclesPerS: churn.perSecond,
    atOpenPercent: first.arrived * 100 / first.tries,
    lost: sum("lost"),
    duplicated: sum("duplicated"),
    disordered: sum("disordered"),
    failed: failed + sum("failed") + sum("dropped") + sum("misdelivered"),
    left,
    generatorCores,
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
