/**
 * The package for npm, built once for all tests of a file, and programs of Node that use it:
 *
 *     await using npm = await NpmPackage.build();
 *     const { lines } = await npm.node(["program.js"]);
 */
import { fileURLToPath } from "node:url";
import manifest from "../deno.json" with { type: "json" };
import { withDeadline } from "./deadline.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const BUILD = ["run", "--lock=tests/deno.lock", "-A", "deploy/npm.ts", "--output"];
const RUN_MS = 120_000;

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class NpmPackage implements AsyncDisposable {
  /** Holds the package in `npm/`, its tarball, and what tests put beside. */
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async build(): Promise<NpmPackage> {
    const made = new NpmPackage(await Deno.makeTempDir({ prefix: "userwire-npm-" }));
    try {
      // A process of its own: the bundler's ends a moment after it was told to.
      await done(Deno.execPath(), [...BUILD, `${made.folder}/npm`], { cwd: ROOT });
      return made;
    } catch (error) {
      await made[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Path of the tarball. */
  get tarball(): string {
    return `${this.folder}/userwire-${manifest.version}.tgz`;
  }

  /** Text of a file of the package. */
  text(path: string): Promise<string> {
    return Deno.readTextFile(`${this.folder}/npm/${path}`);
  }

  /** Address of a file of the package. */
  url(path: string): string {
    return new URL(`file://${this.folder}/npm/${path}`).href;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Runs a program to its end. */
export async function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; ms?: number } = {},
): Promise<Ended> {
  const { ms = RUN_MS, ...rest } = options;
  const child = new Deno.Command(command, {
    args: [...args],
    ...rest,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const said = Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  try {
    const { code } = await withDeadline(child.status, ms, `${command} ${args.join(" ")} to end`);
    const [stdout, stderr] = await said;
    return { code, stdout, stderr };
  } catch (error) {
    child.kill("SIGKILL");
    const [stdout, stderr] = await said;
    throw new Error(`${error instanceof Error ? error.message : error}: ${stdout}${stderr}`);
  }
}

/** The same, where it has to succeed. @returns What it wrote. @throws {Error} with what it said. */
export async function done(...[command, args, options]: Parameters<typeof run>): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ends with ${code}:\n${stdout}${stderr}`);
  return stdout;
}
