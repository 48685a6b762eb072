/**
 * `deno task test:again N`: the whole suite N times, then a table of what failed how often. For whoever asks whether
 * a test rests on luck. What follows N goes to `deno test`: `--shuffle`, or the files that are suspect. DENO_JOBS holds
 * as always. The exit code is 1 if anything failed. At the end it says which files take longest.
 *
 * Imports no package, so that it works before any was fetched.
 */
import { runTests } from "./suite.ts";

interface Run {
  readonly seconds: number;
  readonly code: number;
  /** What was run, and what of it failed or was skipped, by name. */
  readonly count: number;
  readonly failed: readonly string[];
  readonly skipped: number;
  /** What tests left behind, in words; empty if nothing. */
  readonly remains: string;
  readonly isInterrupted: boolean;
  /** Seconds that each file took, by its path. */
  readonly files: ReadonlyMap<string, number>;
}

/** How many of the longest files are named. */
const LONGEST = 10;

const USAGE = "Usage: deno task test:again N [arguments of deno test]";

Deno.exitCode = await again(Deno.args);

/** @returns Exit code. */
async function again([times, ...args]: readonly string[]): Promise<number> {
  if (!/^[1-9]\d*$/.test(times ?? "")) {
    console.error(USAGE);
    return 2;
  }
  const folder = await Deno.makeTempDir({ prefix: "userwire-again-" });
  const runs: Run[] = [];
  try {
    for (let n = 1; n <= Number(times); n++) {
      const run = await runOnce(args, `${folder}/${n}.xml`);
      runs.push(run);
      console.log(`Run ${n} of ${times}: ${inWords(run)}`);
      if (run.isInterrupted) break;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  console.log(`\n${table(runs)}`);
  return runs.every(isGreen) ? 0 : 1;
}

async function runOnce(args: readonly string[], report: string): Promise<Run> {
  const startMs = performance.now();
  const { code, output, remains, isInterrupted } = await runTests([...args, "--junit-path", report], false);
  const seconds = (performance.now() - startMs) / 1_000;
  const xml = await Deno.readTextFile(report).catch(() => "");
  const cases = [
    ...xml.matchAll(
      /<testcase name="([^"]*)" classname="([^"]*)" time="([^"]*)"[^>]*?(\/>|>.*?<\/testcase>)/gs,
    ),
  ].map(([, name, file, seconds, body]) => ({
    name: unescaped(name!),
    file: unescaped(file!),
    seconds: Number(seconds),
    body: body!,
  }));
  const failed = cases.filter(({ body }) => /<(failure|error)[ />]/.test(body)).map(({ name }) => name);
  const run = {
    seconds,
    code,
    count: cases.length,
    failed,
    skipped: cases.filter(({ body }) => /<skipped[ />]/.test(body)).length,
    remains,
    isInterrupted,
    files: timesOf(cases),
  };
  // What there is to read about a failure is at the end.
  if (!isGreen(run)) {
    console.log(lastPart(output));
  }
  return run;
}

function isGreen({ code, failed, count }: Run): boolean {
  return code === 0 && failed.length === 0 && count > 0;
}

/** A step's time is part of its test's. */
function timesOf(cases: readonly { name: string; file: string; seconds: number }[]): Map<string, number> {
  const tests = new Set(cases.map(({ name }) => name));
  const isStep = (name: string) => {
    for (let at = name.indexOf(" > "); at >= 0; at = name.indexOf(" > ", at + 1)) {
      if (tests.has(name.slice(0, at))) return true;
    }
    return false;
  };
  const times = new Map<string, number>();
  for (const { name, file, seconds } of cases) {
    if (!isStep(name)) times.set(file, (times.get(file) ?? 0) + seconds);
  }
  return times;
}

/** A run can fail without a test that does: a file that can't be loaded, a fault outside of all tests, no report. */
function inWords(run: Run): string {
  const { seconds, code, count, failed, skipped, remains } = run;
  const what = count === 0
    ? `no report, exit code ${code}`
    : failed.length === 0 && code !== 0
    ? remains || `failed outside of its tests, exit code ${code}`
    : `${count - failed.length - skipped} passed, ${failed.length} failed, ${skipped} skipped`;
  return `${what} in ${Math.round(seconds)} s`;
}

function table(runs: readonly Run[]): string {
  const lines = ["| Run | Seconds | Passed | Failed | Skipped |", "| --: | --: | --: | --: | --: |"];
  for (const [i, run] of runs.entries()) {
    const { seconds, count, failed, skipped } = run;
    const cells = [i + 1, Math.round(seconds), count - failed.length - skipped, failed.length, skipped];
    lines.push(`| ${cells.join(" | ")} |${isGreen(run) || failed.length > 0 ? "" : ` ${inWords(run)}`}`);
  }
  const times = new Map<string, number>();
  for (const name of runs.flatMap(({ failed }) => failed)) times.set(name, (times.get(name) ?? 0) + 1);
  if (times.size === 0) {
    lines.push("", runs.every(isGreen) ? `All ${runs.length} runs passed` : "No single test failed");
  } else {
    lines.push("", "| Failed | Test |", "| --: | -- |");
    for (const [name, count] of [...times].sort(([, a], [, b]) => b - a)) {
      lines.push(`| ${count} of ${runs.length} | ${name} |`);
    }
  }
  return [...lines, "", ...longest(runs)].join("\n");
}

/** What decides how long a run takes: the longest files, in seconds on average. */
function longest(runs: readonly Run[]): string[] {
  const sums = new Map<string, number>();
  for (const { files } of runs) {
    for (const [file, seconds] of files) sums.set(file, (sums.get(file) ?? 0) + seconds / runs.length);
  }
  const rows = [...sums].sort(([, a], [, b]) => b - a).slice(0, LONGEST)
    .map(([file, seconds]) => `| ${seconds.toFixed(1)} | ${file} |`);
  return ["| Seconds | File |", "| --: | -- |", ...rows];
}

function lastPart(text: string): string {
  const at = text.lastIndexOf("\n ERRORS \n");
  return at >= 0 ? text.slice(at) : text.slice(-10_000);
}

function unescaped(xml: string): string {
  return xml.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'").replaceAll("&#39;", "'").replaceAll("&amp;", "&");
}
