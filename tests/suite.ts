/**
 * Runs all tests, for `deno task test`, with more files at once than there are cores: most of a test's time is waiting
 * for something else (sockets, processes, time limits), so that as many files as cores leave half of the time unused.
 * What is given to it goes to `deno test`; DENO_JOBS says how many files run at once. Unless that names files, those that
 * take long begin first, the others are put together, and services in processes of their own start from one file.
 *
 * Imports no package, so that it works before any was fetched.
 */
import { writeBatches } from "../testkit/batches.ts";
import { bundleProgram, PROGRAM_VARIABLE } from "../testkit/program.ts";
import { Remains } from "../testkit/remains.ts";

/** How many files run at once, at least. */
const MIN_JOBS = 8;

const TESTS = new URL("./", import.meta.url);

/**
 * Files that take long, in the order in which they begin, before all others: what begins last must not keep one core
 * busy and the other idle. `deno task test:again 1 tests` says which these are.
 */
const LONG = [
  "flows/faults_test.ts",
  "flows/events_faults_test.ts",
  "flows/cluster_flow_test.ts",
  "history/history_redis_streams_test.ts",
  "processes/supervisor_start_test.ts",
  "redis/readiness_test.ts",
  "flows/failover_test.ts",
  "history/redis_functions_test.ts",
  "broker/slow_reader_test.ts",
  "flows/set_back_test.ts",
  "flows/haproxy_test.ts",
  "http/handshake_test.ts",
  "processes/supervisor_test.ts",
  "processes/supervisor_signals_test.ts",
  "cli/bench_test.ts",
  "project/docs_test.ts",
  "server/tls_test.ts",
  "http/page_test.ts",
  "http/console_test.ts",
  "project/deploy_test.ts",
  "redis/cluster_map_test.ts",
  "project/suite_test.ts",
  "flows/sentinel_flow_test.ts",
  "broker/broker_redis_topologies_test.ts",
  "broker/slow_reader_end_test.ts",
  "broker/broker_redis_shared_test.ts",
  "http/turnstile_test.ts",
  "server/shutdown_test.ts",
  "publisher/mixed_sends_test.ts",
  "publisher/group_send_test.ts",
  "http/openapi_client_test.ts",
  "history/history_redis_topologies_test.ts",
  "groups/groups_test.ts",
  "broker/broker_redis_dedicated_test.ts",
  "session/close_paths_test.ts",
  "net/origin_test.ts",
  "project/hostile_test.ts",
  "project/bundle_test.ts",
  "clients/npm_package_test.ts",
  "redis/local_ports_test.ts",
  "conformance/conform_test.ts",
  "broker/redis_outage_test.ts",
  "http/flood_test.ts",
  "client/client_service_test.ts",
  "broker/half_open_test.ts",
  "metrics/open_files_test.ts",
  "flows/redis_places_test.ts",
  "client/client_browser_test.ts",
  "flows/nginx_test.ts",
];

/** What became of a run. */
export interface Outcome {
  /** Exit code: that of `deno test`, or of the check of types, or 1 when all passed and something was left behind. */
  readonly code: number;
  /** What `deno test` wrote; empty when it was shown. */
  readonly output: string;
  /** What is to be said of processes and folders that tests left behind, which are gone now; empty if there were none. */
  readonly remains: string;
  /** Whether somebody ended it. */
  readonly isInterrupted: boolean;
}

/**
 * Whatever ends the run, Ctrl+C too, nothing of it is left: the tests have a temporary folder of their own, and each
 * process that they start is known by it.
 * @param show Whether what the tests write is shown, and not kept.
 */
export async function runTests(args: readonly string[], show: boolean): Promise<Outcome> {
  const children: Deno.ChildProcess[] = [];
  let isInterrupted = false;
  // In a terminal Ctrl+C reaches them too; whoever signals this process alone means them as well.
  const interrupt = () => {
    isInterrupted = true;
    for (const child of children) {
      try {
        child.kill("SIGINT");
      } catch {
        // It has ended.
      }
    }
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, interrupt);
  await using stack = new AsyncDisposableStack();
  stack.defer(() => SIGNALS.forEach((signal) => Deno.removeSignalListener(signal, interrupt)));
  const folder = await ownFolder("tests", stack);
  const plan = await planOf(args, () => ownFolder("batches", stack));
  if (isInterrupted) return { code: INTERRUPTED, output: "", remains: "", isInterrupted };
  const start = (args: readonly string[], options: Deno.CommandOptions) => {
    const child = deno(args, options);
    children.push(child);
    return child;
  };
  const jobs = Deno.env.get("DENO_JOBS") ?? String(Math.max(MIN_JOBS, navigator.hardwareConcurrency));
  const output = show ? "inherit" : "piped";
  const tests = start(["test", "--lock=tests/deno.lock", "-A", "--parallel", ...args, ...plan.args], {
    env: { DENO_JOBS: jobs, TMPDIR: folder, ...plan.env },
    stdout: output,
    stderr: output,
  });
  const types = plan.checksTypes
    ? start(["check", "--quiet", "--lock=tests/deno.lock"], { stdout: "piped", stderr: "piped" })
    : undefined;
  const wrong = types && kept(types);
  const { code, text } = show ? { ...await tests.status, text: "" } : await kept(tests);
  const faults = await wrong;
  if (faults?.text && show) console.error(faults.text);
  const remains = await Remains.of(folder, { patient: !isInterrupted });
  await remains.remove();
  // Tests that were cut off could not clear up.
  const said = isInterrupted ? "" : String(remains);
  return {
    code: code || faults?.code || (said === "" ? 0 : 1),
    output: text + (faults?.text ?? ""),
    remains: said,
    isInterrupted,
  };
}

function deno(args: readonly string[], options: Deno.CommandOptions): Deno.ChildProcess {
  const cwd = new URL("../", TESTS);
  return new Deno.Command(Deno.execPath(), { args: [...args], cwd, stdin: "null", ...options }).spawn();
}

/** A temporary folder that goes with the run, also when that fails. */
async function ownFolder(subject: string, stack: AsyncDisposableStack): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: `userwire-${subject}-` });
  stack.defer(async () => {
    try {
      await Deno.remove(folder, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it was removed with what was left in it
    }
  });
  return folder;
}

/** What a run needs beside what it was given. */
interface Plan {
  /** Whether types are checked beside it, by the command of `deno task check`, and not before it by `deno test`. */
  readonly checksTypes: boolean;
  readonly args: readonly string[];
  /** Says where the program is as one file. */
  readonly env: Readonly<Record<string, string>>;
}

/** @param makeFolder For the batches. */
async function planOf(args: readonly string[], makeFolder: () => Promise<string>): Promise<Plan> {
  if (args.some(isSelection)) return { checksTypes: false, args: [], env: {} };
  const program = await bundleProgram();
  const checksTypes = !args.includes("--no-check");
  return {
    checksTypes,
    args: [...(checksTypes ? ["--no-check"] : []), ...await writeBatches(TESTS, LONG, await makeFolder())],
    env: program === undefined ? {} : { [PROGRAM_VARIABLE]: program },
  };
}

/** Whether an argument says which tests to run. */
function isSelection(argument: string): boolean {
  if (/_test\.tsx?$/.test(argument)) return true;
  try {
    return !argument.startsWith("-") && Deno.statSync(new URL(argument, new URL("../", TESTS))).isDirectory;
  } catch {
    return false;
  }
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Exit code of a run that was ended before its tests began; else it is that of `deno test`. */
const INTERRUPTED = 130;

async function kept(child: Deno.ChildProcess): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await child.output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

if (import.meta.main) {
  const { code, remains } = await runTests(Deno.args, true);
  if (remains !== "") console.error(remains);
  Deno.exitCode = code;
}
