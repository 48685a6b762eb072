/**
 * Runs all tests, for `deno task test`, with more files at once than there are cores: most of a test's time is waiting
 * for something else (sockets, processes, time limits), so that as many files as cores leave half of the time unused.
 * What is given to it goes to `deno test`; DENO_JOBS says how many files run at once.
 *
 * Imports no package, so that it works before any was fetched.
 */
import { Remains } from "../testkit/remains.ts";

/** How many files run at once, at least. */
const MIN_JOBS = 8;

/** What became of a run. */
export interface Outcome {
  /** Exit code: that of `deno test`, or 1 when all passed and something was left behind. */
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
  const jobs = Deno.env.get("DENO_JOBS") ?? String(Math.max(MIN_JOBS, navigator.hardwareConcurrency));
  const folder = await Deno.makeTempDir({ prefix: "userwire-tests-" });
  const output = show ? "inherit" : "piped";
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "--lock=tests/deno.lock", "-A", "--parallel", ...args],
    cwd: new URL("../", import.meta.url),
    env: { DENO_JOBS: jobs, TMPDIR: folder },
    stdin: "null",
    stdout: output,
    stderr: output,
  }).spawn();
  // In a terminal Ctrl+C reaches `deno test` too; whoever signals this process alone means it as well.
  let isInterrupted = false;
  const interrupt = () => {
    isInterrupted = true;
    try {
      child.kill("SIGINT");
    } catch {
      // It has ended.
    }
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, interrupt);
  try {
    const { code, text } = show ? { ...await child.status, text: "" } : await kept(child);
    const remains = await Remains.of(folder, { patient: !isInterrupted });
    await remains.remove();
    // Tests that were cut off could not clear up.
    const said = isInterrupted ? "" : String(remains);
    return { code: code === 0 && said !== "" ? 1 : code, output: text, remains: said, isInterrupted };
  } finally {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, interrupt);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

async function kept(child: Deno.ChildProcess): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await child.output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

if (import.meta.main) {
  const { code, remains } = await runTests(Deno.args, true);
  if (remains !== "") console.error(remains);
  Deno.exitCode = code;
}
