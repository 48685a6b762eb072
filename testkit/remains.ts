/**
 * What a run of the tests left behind, when it has ended: files in its temporary folder, and processes that know of that
 * folder, by their environment, their arguments or the folder they are in. Processes are found on Linux only, where
 * `/proc` tells of them.
 *
 * Imports nothing, so that it works before any package was fetched.
 */

const GONE_MS = 10_000;
const LOOK_MS = 100;

export class Remains {
  readonly #folder: string;
  readonly #files: readonly string[];
  readonly #processes: ReadonlyMap<number, string>;

  private constructor(
    folder: string,
    files: readonly string[],
    processes: ReadonlyMap<number, string>,
  ) {
    this.#folder = folder;
    this.#files = files;
    this.#processes = processes;
  }

  /**
   * What is there.
   * @param options.patient Whatever is ending is given the time to end.
   */
  static async of(folder: string, { patient }: { patient: boolean }): Promise<Remains> {
    const endMs = performance.now() + (patient ? GONE_MS : 0);
    for (;;) {
      const processes = await processesOf(folder);
      const files = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
      const isClean = processes.size === 0 && files.length === 0;
      if (isClean || performance.now() > endMs) return new Remains(folder, files, processes);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** Kills the processes, and others that they start meanwhile; then removes the folder. */
  async remove(): Promise<void> {
    const endMs = performance.now() + GONE_MS;
    for (let left = this.#processes; left.size > 0; left = await processesOf(this.#folder)) {
      if (performance.now() > endMs) throw new Error(`Processes do not end: ${inWords(left)}`);
      for (const pid of left.keys()) {
        try {
          Deno.kill(pid, "SIGKILL");
        } catch (error) {
          if (!(error instanceof Deno.errors.NotFound)) throw error; // it ended a moment ago
        }
      }
    }
    await Deno.remove(this.#folder, { recursive: true });
  }

  /** For whoever reads what the tests wrote; empty when nothing was left behind. */
  toString(): string {
    const parts = [];
    if (this.#processes.size > 0) parts.push(`processes: ${inWords(this.#processes)}`);
    if (this.#files.length > 0) parts.push(`in the temporary folder: ${this.#files.join(", ")}`);
    return parts.length === 0 ? "" : `The tests left behind ${parts.join("; and ")}`;
  }
}

function inWords(processes: ReadonlyMap<number, string>): string {
  return [...processes].map(([pid, command]) => `${command} (${pid})`).join(", ");
}

/** Processes that know of the folder, by number, with their command lines. */
async function processesOf(folder: string): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  if (Deno.build.os !== "linux") return found;
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const command = await Deno.readTextFile(`/proc/${name}/cmdline`);
      const places = [
        command,
        await Deno.readTextFile(`/proc/${name}/environ`),
        await Deno.readLink(`/proc/${name}/cwd`),
      ];
      if (places.some((place) => place.includes(folder))) {
        found.set(Number(name), command.replaceAll("\0", " ").trim());
      }
    } catch {
      // It has ended, or is somebody else's.
    }
  }
  return found;
}
