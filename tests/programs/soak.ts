/**
 * The soak: users over two nodes and one Redis come, go and are killed at random while messages flow to them.
 * Afterwards nothing may be left: no subscriber in Redis, no session, no memory; and what each send answered must be
 * what arrived. It prints a table, and exits with 1 when anything was wrong.
 *
 *     deno task soak --seconds 20 --users 500 --rate 200 --seed 7
 *
 * It starts its own Redis and its own nodes and ends only those.
 */
import { parseArgs } from "node:util";
import { until } from "../../testkit/deadline.ts";
import { RedisServer } from "../../testkit/redis_server.ts";
import type { Report } from "./soak/node.ts";
import { NodeProcess } from "./soak/node_process.ts";
import { type Judgement, Ledger } from "./soak/ledger.ts";
import { type LoadResult, runLoad } from "./soak/load.ts";

const DEFAULTS = { seconds: 60, users: 500, rate: 200 };
/** Long enough for everything to be compiled, allocated and connected that is so only once. */
const WARM_UP_S = 10;
/** How much larger a heap may be after the load than before. */
const HEAP_GROWTH = 0.2;
/** How long the nodes may take to let go of the last sockets. */
const EMPTY_MS = 15_000;
const MIB = 1024 ** 2;

interface Options {
  readonly seconds: number;
  readonly users: number;
  readonly rate: number;
  readonly seed: number;
}

function readArguments(): Options {
  const type = "string";
  const { values } = parseArgs({
    options: { seconds: { type }, users: { type }, rate: { type }, seed: { type } },
  });
  const number = (name: keyof Options, fallback: number) => {
    const value = Number(values[name] ?? fallback);
    if (!(value > 0)) throw new TypeError(`--${name} must be a number above 0: it is "${values[name]}"`);
    return value;
  };
  return {
    seconds: number("seconds", DEFAULTS.seconds),
    users: number("users", DEFAULTS.users),
    rate: number("rate", DEFAULTS.rate),
    seed: number("seed", 1 + Math.floor(Math.random() * 1e6)),
  };
}

/** Runs it; resolves with everything that was wrong. */
async function soak(options: Options): Promise<readonly string[]> {
  const { seconds, users, rate, seed } = options;
  row("seed", `${seed}`);
  row("load", `${users} users, ${rate} messages/s, ${seconds} s after ${WARM_UP_S} s of warm-up`);
  const logDir = await Deno.makeTempDir({ prefix: "userwire-soak-" });
  let isClean = false;
  try {
    await using redis = await RedisServer.start();
    const settings = {
      PORT: "0",
      REDIS_URL: redis.url,
      LOG_DIR: logDir,
      // All clients have one address, and come as fast as they can; and sends to groups are not held back.
      USERWIRE_MAX_GROUP_SENDS: "100",
      USERWIRE_MAX_CONNECTIONS_PER_USER: "0",
      USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
      USERWIRE_UPGRADES_PER_SECOND: "0",
    };
    await using first = await NodeProcess.start("soak-1", settings);
    await using second = await NodeProcess.start("soak-2", settings);
    const nodes = [first, second];
    const urls = nodes.map(({ url }) => url);
    const end = new AbortController();
    for (const { ended } of nodes) void ended.then(() => end.abort());

    const ledger = new Ledger();
    const load = { urls, users, rate, signal: end.signal };
    await runLoad({ ...load, seconds: WARM_UP_S, seed: seed + 1, ledger: new Ledger() });
    const before = await reportsWhenEmpty("after the warm-up", { redis, nodes, ledger });
    const result = await runLoad({ ...load, seconds, seed, ledger });
    const after = await reportsWhenEmpty("after the load", { redis, nodes, ledger });

    for (const node of nodes) {
      const code = await node.stop();
      if (code !== 0) ledger.violation(`${node.name} ended with ${code}`);
    }
    for (const error of await errorsIn(logDir)) ledger.violation(`The log has an error: ${error}`);
    nodes.forEach(({ name }, i) => compare(name, { before: before[i]!, after: after[i]!, ledger }));
    const judgement = ledger.judge();
    tell(result, judgement);
    isClean = judgement.violations.length === 0;
    return judgement.violations;
  } finally {
    if (isClean) await Deno.remove(logDir, { recursive: true });
    else row("logs kept in", logDir);
  }
}

/** What the nodes hold once nobody is connected; what is left by then is a violation. */
async function reportsWhenEmpty(
  when: string,
  { redis, nodes, ledger }: {
    redis: RedisServer;
    nodes: readonly NodeProcess[];
    ledger: Ledger;
  },
): Promise<Report[]> {
  let subscribers: string[] = [];
  let reports: Report[] = [];
  try {
    await until(
      async () => {
        const list = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub"));
        // A node's own are there as long as it is.
        subscribers = list.split("\n").filter((line) =>
          line !== "" && !line.includes(" name=userwire-node ")
        );
        reports = [];
        for (const node of nodes) reports.push(await node.report());
        return subscribers.length === 0 && reports.every(({ sessions, closing }) => sessions + closing === 0);
      },
      "the nodes to be empty",
      EMPTY_MS,
    );
  } catch (error) {
    ledger.violation((error as Error).message);
    if (subscribers.length > 0) {
      ledger.violation(`Redis still has ${subscribers.length} subscribers, the first is ${subscribers[0]}`);
    }
    reports.forEach(({ sessions, closing }, i) => {
      if (sessions + closing > 0) {
        ledger.violation(
          `${nodes[i]!.name} still holds ${sessions} sessions and ${closing} closing sockets`,
        );
      }
    });
  }
  row(when, `${subscribers.length} subscribers left in Redis`);
  return reports;
}

function compare(
  name: string,
  { before, after, ledger }: { before: Report; after: Report; ledger: Ledger },
): void {
  const mib = (bytes: number) => `${(bytes / MIB).toFixed(1)} MiB`;
  const growth = after.heapUsed / before.heapUsed - 1;
  const percent = `${growth < 0 ? "" : "+"}${(growth * 100).toFixed(1)} %`;
  const heap = `heap ${mib(before.heapUsed)}, afterwards ${mib(after.heapUsed)} (${percent})`;
  row(name, `${heap}; resident ${mib(before.rss)}, afterwards ${mib(after.rss)}`);
  if (!(growth <= HEAP_GROWTH)) ledger.violation(`The heap of ${name} grew by ${percent}`);
}

async function errorsIn(logDir: string): Promise<string[]> {
  const errors: string[] = [];
  for await (const { name } of Deno.readDir(logDir)) {
    const lines = (await Deno.readTextFile(`${logDir}/${name}`)).split("\n").filter((line) => line !== "");
    errors.push(...lines.filter((line) => JSON.parse(line).level.toLowerCase() === "error"));
  }
  return errors;
}

function tell({ devices, left, latenciesMs }: LoadResult, judgement: Judgement): void {
  const count = (value: number) => value.toLocaleString("en");
  const at = (share: number) => `${latenciesMs[Math.floor(share * (latenciesMs.length - 1))]?.toFixed(1)} ms`;
  const { settled, offline, apart, crowd, arrivals } = judgement;
  row("devices", count(devices));
  row(
    "sockets that left",
    `${count(left.close)} closed, ${count(left.reset)} reset, ${count(left.cut)} cut off, ` +
      `${count(left.early)} during the handshake`,
  );
  row("sends", `${count(settled)} settled (${count(offline)} to nobody), ${count(apart)} apart`);
  row("to groups and all", `${count(crowd.sends)}, of which ${count(crowd.settled)} are settled`);
  row("arrivals", count(arrivals));
  row("a send took", `${at(0.5)} in the middle, ${at(0.99)} for 99 of 100, ${at(1)} at most`);
}

function row(label: string, value: string): void {
  console.log(`${label.padEnd(18)}  ${value}`);
}

try {
  const violations = await soak(readArguments());
  row("violations", violations.length === 0 ? "none" : String(violations.length));
  for (const violation of violations.slice(0, 20)) console.log(`  ${violation}`);
  if (violations.length > 20) console.log(`  and ${violations.length - 20} more`);
  Deno.exitCode = violations.length === 0 ? 0 : 1;
} catch (error) {
  console.error(error);
  Deno.exitCode = 1;
}
