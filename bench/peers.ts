/**
 * The peers of `deno task compare`: Node programs with packages from npm. They are copied, with their packages, to a
 * scratch folder; nothing of them ever lands in the project.
 */
import { Program } from "./program.ts";

export interface Peers {
  /** Where they are. */
  readonly dir: string;
  /** Version of Node. */
  readonly node: string;
  /** The packages, as "ws 8.23.0". */
  readonly packages: readonly string[];
}

const SOURCE = new URL("peers/", import.meta.url);
const MIN_NODE = 20;
const VERSION_MS = 10_000;
const INSTALL_MS = 120_000;

/**
 * Copies the peers to the folder and installs their packages there.
 * @param own Takes what is started, to end it when the whole program ends early.
 * @throws {Error} that says what is missing.
 */
export async function installPeers(
  dir: string,
  own: (started: AsyncDisposable) => void,
): Promise<Peers> {
  const node = (await outputOf("node", own)).replace(/^v/, "");
  if (parseInt(node) < MIN_NODE) {
    throw new Error(`The peers need Node.js ${MIN_NODE} or later: this is "${node}", install a newer one`);
  }
  await outputOf("npm", own);
  for await (const { name } of Deno.readDir(SOURCE)) {
    await Deno.copyFile(new URL(name, SOURCE), `${dir}/${name}`);
  }
  const npm = Program.start("npm", {
    name: "npm",
    args: ["install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
    cwd: dir,
  });
  own(npm);
  const { success } = await npm.end(INSTALL_MS);
  if (!success) throw new Error(`npm could not install the peers' packages: ${npm.tail.trim()}`);
  const { dependencies } = JSON.parse(await Deno.readTextFile(`${dir}/package.json`));
  return { dir, node, packages: Object.entries(dependencies).map(([name, version]) => `${name} ${version}`) };
}

async function outputOf(command: string, own: (started: AsyncDisposable) => void): Promise<string> {
  let program: Program;
  try {
    program = Program.start(command, { name: command, args: ["--version"] });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Error(`The peers need ${command}, which is not on PATH: install Node.js ${MIN_NODE} or later`);
  }
  own(program);
  await program.end(VERSION_MS);
  return program.tail.trim();
}
