/**
 * Runs all tests, for `deno task test`, with more files at once than there are cores: most of a test's time is waiting
 * for something else (sockets, processes, time limits), so that as many files as cores leave half of the time unused.
 * What is given to it goes to `deno test`; DENO_JOBS says how many files run at once.
 *
 * Imports no package, so that it works before any was fetched.
 */

/** How many files run at once, at least. */
const MIN_JOBS = 6;

/** @param output "inherit" shows what the tests write; "piped" keeps it. */
export function suite(args: readonly string[], output: "inherit" | "piped"): Deno.Command {
  const jobs = Deno.env.get("DENO_JOBS") ?? String(Math.max(MIN_JOBS, navigator.hardwareConcurrency));
  return new Deno.Command(Deno.execPath(), {
    args: ["test", "--lock=tests/deno.lock", "-A", "--parallel", ...args],
    cwd: new URL("../", import.meta.url),
    env: { DENO_JOBS: jobs },
    stdin: "null",
    stdout: output,
    stderr: output,
  });
}

if (import.meta.main) Deno.exitCode = (await suite(Deno.args, "inherit").spawn().status).code;
