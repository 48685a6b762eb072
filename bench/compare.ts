/**
 * `deno task compare`: Userwire beside two services written for Node, on this machine, so that you can see for
 * yourself. All systems take turns in one run and get the same treatment: a Redis and two nodes of their own,
 * one load generator, loopback only. Prints one Markdown table.
 *
 * What the figures mean, and what they do not: docs/performance.md.
 */
import { parseArgs } from "node:util";
import { MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES } from "../src/load/mark.ts";
import { findRedisServer, REDIS_MISSING } from "../testkit/programs.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import { assertLinux, load, warnWhenBusy } from "./machine.ts";
import { type Figures, measure, type Plan } from "./measure.ts";
import { wholeNumber } from "./options.ts";
import { installPeers, type Peers } from "./peers.ts";
import { selfCheck } from "./self_check.ts";
import { REFERENCE, type System, SYSTEMS } from "./systems.ts";
import { formatTable } from "./table.ts";

const HELP = `deno task compare [options]

  --quick          one short repetition, at most two minutes: shows that it works, not how fast it is
  --reps N         repetitions; the table has their medians (3)
  --sockets N      sockets and users (1000)
  --rate N         messages a second while latency is measured (2000)
  --seconds N      how long latency is measured (10)
  --bytes N        size of a message (128)
  --minutes N      no new run is begun that would end later (20)
  --only TEXT      only systems whose name has TEXT in it, and the reference
  --self-check     only see whether the load generator finds what is wrong with a faulty service
  --json           print the figures of every run as JSON
`;

/** Sockets that are opened and closed while latency is measured the second time. */
const GUESTS_PER_SECOND = 200;

interface Options {
  readonly plan: Plan;
  readonly reps: number;
  readonly minutes: number;
  readonly systems: readonly System[];
  readonly isJson: boolean;
  readonly isSelfCheck: boolean;
}

/** @throws {Error} with what is wrong. */
function readOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      "self-check": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
      reps: { type: "string" },
      sockets: { type: "string" },
      rate: { type: "string" },
      seconds: { type: "string" },
      bytes: { type: "string" },
      minutes: { type: "string" },
      only: { type: "string", default: "" },
    },
  });
  if (values.help) return undefined;
  const { quick } = values;
  const number = (
    name: "reps" | "sockets" | "rate" | "seconds" | "bytes" | "minutes",
    fallback: number,
    bounds: readonly [number, number],
  ) => wholeNumber(`--${name}`, values[name] ?? String(fallback), bounds);
  const sockets = number("sockets", quick ? 300 : 1_000, [50, 20_000]);
  return {
    plan: {
      sockets,
      perSecond: number("rate", quick ? 1_000 : 2_000, [1, 100_000]),
      steadyS: number("seconds", quick ? 2 : 10, [1, 60]),
      besideS: quick ? 2 : 5,
      guestsPerSecond: GUESTS_PER_SECOND,
      floodS: quick ? 2 : 4,
      churnS: quick ? 1 : 3,
      fanOutSockets: quick ? 300 : 1_000,
      fanOutMessages: quick ? 10 : 30,
      firstTries: quick ? 40 : 100,
      bytes: number("bytes", 128, [MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES]),
      restMs: quick ? 500 : 2_000,
    },
    reps: number("reps", quick ? 1 : 3, [1, 99]),
    minutes: number("minutes", quick ? 2 : 20, [1, 600]),
    systems: SYSTEMS.filter(({ name }) => name === REFERENCE || name.includes(values.only)),
    isJson: values.json,
    isSelfCheck: values["self-check"],
  };
}

async function compare(
  options: Options,
  own: (started: AsyncDisposable) => void,
): Promise<boolean> {
  assertLinux();
  if (findRedisServer() === undefined) {
    throw new Error(REDIS_MISSING.replace("The tests need", "This needs"));
  }
  const dir = await scratchFolder(own);
  const startMs = performance.now();
  warnWhenBusy();
  console.error("Installing the peers' packages into a scratch folder");
  const peers = await installPeers(dir, own);
  const heading = await headingOf(peers, options);

  const runs = new Map<string, Figures[]>(
    options.systems.map(({ name }) => [name, []]),
  );
  const endMs = startMs + options.minutes * 60_000;
  // The reference comes first: should the time run out, the others are of no use without it.
  const turns = options.systems.toSorted((a, b) =>
    Number(b.name === REFERENCE) - Number(a.name === REFERENCE)
  );
  let longestMs = 0, hasFailed = false;
  for (let rep = 1; rep <= options.reps; rep++) {
    for (const system of turns) {
      const beginMs = performance.now();
      if (beginMs + longestMs > endMs) {
        console.error(
          `Out of time before run ${rep} of "${system.name}": give more --minutes`,
        );
        continue;
      }
      try {
        const figures = await measure(system, options.plan, {
          dir,
          peers,
          own,
        });
        runs.get(system.name)!.push(figures);
        if (options.isJson) {
          console.log(JSON.stringify({ system: system.name, rep, ...figures }));
        }
      } catch (error) {
        console.error(
          `Run ${rep} of "${system.name}" failed: ${error instanceof Error ? error.message : error}`,
        );
        hasFailed = true;
      }
      const tookMs = performance.now() - beginMs;
      longestMs = Math.max(longestMs, tookMs);
      console.error(
        `${rep}/${options.reps} ${system.name}: ${Math.round(tookMs / 1_000)} s`,
      );
    }
  }
  if (!options.isJson) {
    console.log(`${heading}\n`);
    console.log(formatTable(runs, REFERENCE));
    console.log(footOf(options, runs));
  }
  const isComplete = [...runs.values()].every(({ length }) => length > 0);
  return isComplete && !hasFailed && ownFaults(options.systems, runs) === 0;
}

/** Date, machine, versions and command: what a reader needs to judge or repeat the figures. */
async function headingOf(
  peers: Peers,
  { plan, reps }: Options,
): Promise<string> {
  await using redis = await RedisServer.start();
  const redisVersion = /redis_version:(\S+)/.exec(
    String(await redis.cli("INFO", "server")),
  )?.[1];
  const date = new Date().toISOString().slice(0, 10);
  const command = ["deno task compare", ...Deno.args].join(" ");
  return `${date}, ${navigator.hardwareConcurrency} CPUs (load ${load()} before), Deno ${Deno.version.deno}, ` +
    `Node ${peers.nodeVersion}, Redis ${redisVersion}, ${
      peers.packages.join(", ")
    }; \`${command}\`: medians of ${reps}, ` +
    `${plan.sockets} sockets on two nodes, ${plan.bytes} bytes, latency at ${plan.perSecond} messages/s.`;
}

function footOf(
  { plan }: Options,
  runs: ReadonlyMap<string, readonly Figures[]>,
): string {
  const busy = Math.max(
    0,
    ...[...runs.values()].flat().map(({ generatorCores }) => generatorCores),
  );
  return `Ratios (×) are against "${REFERENCE}"; ↑ more is better, ↓ less is. Fan-out: until the last of ` +
    `${plan.fanOutSockets} sockets of one user had a message. "Arrive at open": messages sent the moment the ` +
    `handshake was answered. Servers, Redis and the load generator (up to ${
      busy.toFixed(2)
    } of a core) share ` +
    `the machine; the load average at the end was ${load()}. Batches, lines and the Redis function beside single sends: ` +
    "`deno task rates`.";
}

/** What Userwire itself did wrong in any run. */
function ownFaults(
  systems: readonly System[],
  runs: ReadonlyMap<string, readonly Figures[]>,
): number {
  return systems.filter(({ program }) => program === "userwire").flatMap((
    { name },
  ) => runs.get(name)!)
    .reduce(
      (sum, { lost, duplicated, disordered, failed, left, atOpenPercent }) =>
        sum + Math.abs(lost) + duplicated + disordered + failed +
        Math.abs(left) +
        (atOpenPercent < 100 ? 1 : 0),
      0,
    );
}

if (import.meta.main) {
  await runBenchmark(async (own) => {
    const options = readOptions(Deno.args);
    if (options) {
      return await (options.isSelfCheck ? selfCheck(own) : compare(options, own));
    }
    console.log(HELP);
    return true;
  });
}
