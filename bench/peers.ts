/**
 * The peers of `deno task compare`: Node programs with packages from npm. They are copied, with their packages, to a
 * scratch folder; nothing of them ever lands in the project.
 */
import { Program } from "./program.ts";

export interface Peers {
  /** Where they are. */
  readonly dir: string;
  /** Path of Node. */
  readonly node: string;
  readonly nodeVersion: string;
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
  const node = findOnPath("node"), npm = findOnPath("npm");
  const nodeVersion = (await outputOf(node, own)).replace(/^v/, "");
  if (!(parseInt(nodeVersion) >= MIN_NODE)) {
    throw new Error(
      `The peers need Node.js ${MIN_NODE} or later: this is "${nodeVersion}", install a newer one`,
    );
  }
  for await (const { name } of Deno.readDir(SOURCE)) {
    await Deno.copyFile(new URL(name, SOURCE), `${dir}/${name}`);
  }
  const install = Program.start(npm, {
    name: "npm",
    args: ["install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
    cwd: dir,
  });
  own(install);
  const { success } = await install.end(INSTALL_MS);
  if (!success) throw new Error(`npm could not install the peers' packages: ${install.tail.trim()}`);
  const { dependencies } = JSON.parse(await Deno.readTextFile(`${dir}/package.json`));
  const packages = Object.entries(dependencies).map(([name, version]) => `${name} ${version}`);
  return { dir, node, nodeVersion, packages };
}

/** Deno stands in for a node that is missing, so a name alone says nothing about who runs. */
function findOnPath(name: string): string {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    try {
      if (folder !== "" && Deno.statSync(`${folder}/${name}`).isFile) return `${folder}/${name}`;
    } catch {
      // Not here.
    }
  }
  throw new Error(
    `The peers need ${name}, which is not on PATH: install Node.js ${MIN_NODE} or later, with npm`,
  );
}

async function outputOf(command: string, own: (started: AsyncDisposable) => void): Promise<string> {
  const program = Program.start(command, { name: command, args: ["--version"] });
  own(program);
  await program.end(VERSION_MS);
  return program.tail.trim();
}
