/**
 * `deno task scale`: ten thousand sockets on one process and one Redis, in dedicated and in shared mode. Each gets
 * three messages, all are closed, and every connection to Redis must be gone. The same with two processes and a cluster
 * of three masters. Then a Redis with room for few: new sockets must be refused with 503 before Redis refuses anybody.
 * Then a rolling restart of four nodes behind HAProxy, under a thousand sockets of the client library and a hundred sends
 * a second: nothing may fail or be lost. With `--curve` it measures instead what a message costs as sockets grow.
 *
 * Loopback only, bounded in time; exit code 1 when anything is not as it must be.
 */
import { parseArgs } from "node:util";
import { SCARCE_FILES } from "../src/metrics/open_files.ts";
import { messageOf } from "../src/protocol/errors.ts";
import { startHaProxy } from "../testkit/ha_proxy.ts";
import { findHaProxy, findRedisServer, HAPROXY_MISSING, REDIS_MISSING } from "../testkit/programs.ts";
import { endureRollingRestart } from "../testkit/rolling_restart.ts";
import { runBenchmark, scratchFolder } from "./ending.ts";
import { assertLinux, ephemeralPorts, openFileLimit, warnWhenBusy } from "./machine.ts";
import { wholeNumber } from "./options.ts";
import { curve } from "./scale_curve.ts";
import { type Stage, stage } from "./scale_sockets.ts";
import { Findings, refusals } from "./scale_stages.ts";

const HELP = `deno task scale [options]

  --sockets N      sockets to open; fewer when limits of this machine ask for it (10000)
  --sources N      addresses that clients come from; more are taken when ports ask for it (1)
  --mode MODE      only "dedicated", "shared", "cluster", "refusals" or "restart"
  --curve          instead: what a message costs with 1,000, 4,000 and 8,000 sockets on two nodes
`;

const MESSAGES = 3;
/** Files that a process needs for other things than sockets. */
const OTHER_FILES = 200;
/** Sockets of one load generator: few enough that it is not what is measured. */
const SOCKETS_PER_GENERATOR = 5_000;
/** Part of an address' ports that may be in use at one time. */
const PORT_SHARE = 0.8;

/** A rolling restart, for as many sockets as one load generator takes. */
const RESTART = { until: "seen", nodes: 4, clients: 1_000, perSecond: 100 } as const;

const MODES = ["dedicated", "shared", "cluster", "refusals", "restart"] as const;

/** How very many sockets are kept. */
const WAYS = [
  {
    name: "dedicated",
    title: "dedicated",
    subscriptions: "dedicated",
    isOnCluster: false,
    nodes: 1,
  },
  { name: "shared", title: "shared", subscriptions: "shared", isOnCluster: false, nodes: 1 },
  {
    name: "cluster",
    title: "dedicated, two nodes on a cluster of three masters",
    subscriptions: "dedicated",
    isOnCluster: true,
    nodes: 2,
  },
] as const;

async function scale(own: (started: AsyncDisposable) => void): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      sockets: { type: "string", default: "10000" },
      sources: { type: "string", default: "1" },
      mode: { type: "string" },
      curve: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return true;
  }
  const sockets = wholeNumber("--sockets", values.sockets, [1, 60_000]);
  const sources = wholeNumber("--sources", values.sources, [1, 250]);
  const mode = values.mode === undefined ? undefined : MODES.find((mode) => mode === values.mode);
  if (mode === undefined && values.mode !== undefined) {
    throw new Error(`--mode must be one of ${MODES.join(", ")}, but is "${values.mode}": correct it`);
  }
  if (values.curve && mode !== undefined && mode !== "dedicated" && mode !== "shared") {
    throw new Error(`--curve measures "dedicated" and "shared": leave out --mode ${mode}`);
  }
  assertLinux();
  if (findRedisServer() === undefined) throw new Error(REDIS_MISSING.replace("The tests need", "This needs"));

  warnWhenBusy();
  const dir = await scratchFolder(own);
  const findings = new Findings();
  if (values.curve) {
    const ways = (["dedicated", "shared"] as const).filter((one) => mode === undefined || mode === one);
    await curve(ways, { dir, own, findings });
  } else {
    for (const way of WAYS.filter(({ name }) => mode === undefined || mode === name)) {
      await stage(plan(way, { sockets, sources }), { dir, own, findings });
    }
    if (mode === undefined || mode === "refusals") await refusals({ dir, own, findings });
    if (mode === "restart" && findHaProxy() === undefined) throw new Error(HAPROXY_MISSING);
    if (mode === "restart" || (mode === undefined && findHaProxy() !== undefined)) await restart(findings);
  }

  console.log(findings.violations.length === 0 ? "\nAll as it must be" : "\nNot as it must be:");
  for (const violation of findings.violations) console.log(`  ${violation}`);
  return findings.violations.length === 0;
}

async function restart(findings: Findings): Promise<void> {
  const { nodes, clients, perSecond } = RESTART;
  console.log(
    `\nrestart: ${nodes} nodes behind HAProxy, one after the other, twice around, ` +
      `under ${format(clients)} sockets and ${perSecond} sends a second`,
  );
  try {
    const { sends, restarts, handshakes, seconds, sockets } = await endureRollingRestart(
      startHaProxy,
      RESTART,
    );
    findings.say("sent", `${sends}, all received: none failed, none was lost`);
    findings.say("restarts", `${restarts} in ${seconds.toFixed(1)} s`);
    findings.say(
      "came back",
      `${handshakes} times, no handshake failed; sockets per node: ${sockets.join(", ")}`,
    );
  } catch (error) {
    findings.expect(false, `restart: ${messageOf(error)}`);
  }
}

/** As many sockets as are wished for, or as the limits of this machine allow; says which limit it is. */
function plan(way: typeof WAYS[number], wished: { sockets: number; sources: number }): Stage {
  // Deno itself raises the limit as far as the system lets it.
  const files = openFileLimit();
  const usable = Math.floor(files * SCARCE_FILES) - OTHER_FILES;
  const ports = Math.floor(ephemeralPorts() * PORT_SHARE);
  const perSocket = way.subscriptions === "dedicated" ? 2 : 1;
  const limits = [
    {
      sockets: way.nodes * Math.floor(usable / perSocket),
      why:
        `a process may have ${
          format(files)
        } files open (ulimit -n) and refuses clients at nine tenths of them, ` +
        `each socket takes ${perSocket}, and ${OTHER_FILES} are needed for other things`,
    },
    {
      sockets: way.subscriptions === "dedicated" ? ports : Infinity,
      why: `one address has ${format(ports)} ports for connections to Redis`,
    },
  ];
  const limit = limits.reduce((least, other) => other.sockets < least.sockets ? other : least);
  const sockets = Math.min(wished.sockets, limit.sockets);
  const title = `\n${way.title}: ${format(sockets)} sockets, ${MESSAGES} messages each`;
  console.log(
    sockets < wished.sockets ? `${title}; not ${format(wished.sockets)}, for ${limit.why}` : title,
  );
  return {
    ...way,
    sockets,
    messages: MESSAGES,
    generators: Math.ceil(sockets / Math.min(SOCKETS_PER_GENERATOR, files - OTHER_FILES)),
    sources: Math.max(wished.sources, Math.ceil(sockets / ports)),
  };
}

function format(value: number): string {
  return value.toLocaleString("en-US");
}

if (import.meta.main) await runBenchmark(scale);
