/** A control group of Linux for one process, which then has so much of a CPU and no more. Only root may make one. */

const ROOT = "/sys/fs/cgroup";
const PERIOD_US = 20_000;

export class ControlGroup implements Disposable {
  #root = ROOT;
  #dir = "";
  readonly #pid: number;

  /** @param share Of one CPU, from 0 to 1. @throws {Error} when it can't be made. */
  constructor(pid: number, share: number) {
    this.#pid = pid;
    try {
      // Version 2 has one tree for all kinds of resources, version 1 one for each.
      const isOneTree = [...Deno.readDirSync(ROOT)].some(({ name }) => name === "cgroup.controllers");
      if (!isOneTree) this.#root = `${ROOT}/cpu`;
      this.#dir = `${this.#root}/userwire-bench-${pid}`;
      Deno.mkdirSync(this.#dir);
      const quotaUs = Math.round(share * PERIOD_US);
      if (isOneTree) this.#write("cpu.max", `${quotaUs} ${PERIOD_US}`);
      else {
        this.#write("cpu.cfs_period_us", `${PERIOD_US}`);
        this.#write("cpu.cfs_quota_us", `${quotaUs}`);
      }
      this.#write("cgroup.procs", `${pid}`);
    } catch (error) {
      this.#remove();
      throw new Error(
        `--cpu needs root and the cpu controller of control groups: ${(error as Error).message}`,
      );
    }
  }

  [Symbol.dispose](): void {
    try {
      Deno.writeTextFileSync(`${this.#root}/cgroup.procs`, `${this.#pid}`);
    } catch {
      // It has ended: then nobody is in there.
    }
    this.#remove();
  }

  #remove(): void {
    try {
      Deno.removeSync(this.#dir);
    } catch {
      // It was not made, or somebody else is in there.
    }
  }

  #write(file: string, text: string): void {
    Deno.writeTextFileSync(`${this.#dir}/${file}`, text);
  }
}
