/**
 * Builds the program as one binary, dist/userwire, with the page inside and no more permissions than it needs:
 *
 *     deno task compile [--target aarch64-unknown-linux-gnu] [--output path]
 *
 * Deno puts the program onto a base, denort, that it downloads once. Where that can't be had, this says so in one
 * sentence, and what dist/ held stays as it was. A new binary has to say its version before it is handed over, unless
 * it is made for another kind of machine; it is not tested beyond that.
 */
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import manifest from "../deno.json" with { type: "json" };
import { PERMISSIONS, V8_FLAGS } from "../src/processes/rights.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** How long the new binary may take to say its version, in milliseconds. */
const VERSION_TIMEOUT_MS = 30_000;

interface Build {
  /** Path of the binary, absolute; Deno adds ".exe" if it is for Windows. */
  readonly output: string;
  /** Kind of machine the binary is for. */
  readonly target: string;
}

/** @returns The exit code: 0 done, 1 failed, 2 the arguments can't be used. */
async function main(args: readonly string[]): Promise<number> {
  let options;
  try {
    ({ values: options } = parseArgs({
      args: [...args],
      options: { target: { type: "string" }, output: { type: "string" } },
    }));
  } catch (error) {
    return fail((error as Error).message, 2);
  }
  const output = options.output === undefined ? join(ROOT, "dist", "userwire") : resolve(options.output);
  const { target = Deno.build.target } = options;
  const folder = dirname(output);

  await Deno.mkdir(folder, { recursive: true });
  // Moved into place when it is known to be good, so that a build that fails leaves the one before as it was.
  const scratch = await Deno.makeTempDir({ dir: folder, prefix: ".compile-" });
  try {
    const fault = await build({ output: join(scratch, "userwire"), target });
    if (fault !== undefined) return fail(fault);
    const [name] = Array.from(Deno.readDirSync(scratch), (entry) => entry.name);
    const binary = join(scratch, name!);
    const flaw = target === Deno.build.target ? await flawOf(binary) : undefined;
    if (flaw !== undefined) return fail(flaw);
    const path = name!.endsWith(".exe") && !output.endsWith(".exe") ? `${output}.exe` : output;
    await Deno.rename(binary, path);
    console.log(`${path}: userwire ${manifest.version} for ${target}`);
    return 0;
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

function fail(why: string, code = 1): number {
  console.error(`error: ${why}`);
  return code;
}

/** @returns Why there is no binary: one sentence if it is for want of a base, else what Deno says. */
async function build({ output, target }: Build): Promise<string | undefined> {
  // Without --exclude-unused-npm every package in the lock file is embedded, those of the tests too.
  const args = [
    "compile",
    // That is what `deno task check` is for, and takes longer than all else.
    "--no-check",
    ...PERMISSIONS,
    V8_FLAGS,
    "--exclude-unused-npm",
    "--target",
    target,
    "--output",
    output,
  ];
  const { DENORT_BIN: base = "", ...env } = Deno.env.toObject();
  const { success, stderr } = await deno([...args, "main.ts"], {
    ...env,
    // For Deno, empty is not unset.
    ...(base !== "" && { DENORT_BIN: base }),
    // Else Deno's error may end with a trace of its own insides.
    RUST_BACKTRACE: "0",
    NO_COLOR: "1",
  });
  if (success) return undefined;

  const denort = `denort ${Deno.version.deno} for ${target}, the base that Deno makes programs from`;
  const cause = stderr.trimEnd().split("\n").at(-1)!.replace(/^\s*(?:\d+: )?/, "").replace(/\.$/, "");
  if (base !== "" && /Could not find denort|Invalid object/.test(stderr)) {
    return `DENORT_BIN "${base}" can't be used (${cause}): set it to the path of ${denort}, or leave it out`;
  }
  if (/Setting up base binary|Failed to unpack archive/.test(stderr)) {
    const cache = join(await denoDir(), "dl", "release", `v${Deno.version.deno}`);
    return `Can't get ${denort} (${cause}): set DENORT_BIN to the path of a copy, ` +
      `or put denort-${target}.zip into ${cache}`;
  }
  return `Deno can't compile the program:\n${stderr.trimEnd()}`;
}

/** @returns Why the binary is not our program, as a sentence. */
async function flawOf(binary: string): Promise<string | undefined> {
  const remedy = "set DENORT_BIN to the path of denort, which is not deno itself, or leave it out";
  try {
    const signal = AbortSignal.timeout(VERSION_TIMEOUT_MS);
    const { stdout, stderr } = await new Deno.Command(binary, { args: ["--version"], signal }).output();
    const said = new TextDecoder().decode(stdout.length > 0 ? stdout : stderr).trim();
    if (said === manifest.version) return undefined;
    return `The binary is not userwire, it says "${said.split("\n")[0]}" for its version: ${remedy}`;
  } catch (error) {
    return `The binary can't be run (${(error as Error).message}): ${remedy}`;
  }
}

/** The folder of Deno's caches. */
async function denoDir(): Promise<string> {
  const { stdout } = await deno(["info", "--json"], Deno.env.toObject());
  return JSON.parse(stdout).denoDir;
}

/** Runs Deno in the project's root, in this environment and no other. */
async function deno(args: string[], env: Record<string, string>) {
  const command = new Deno.Command(Deno.execPath(), { args, env, clearEnv: true, cwd: ROOT, stdin: "null" });
  const { success, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
