/** A control group of Linux for one process, which then has so much of a CPU and no more. Only root may make one. */

const PERIOD_US = 20_000;

/** Where they are made, and how the share is said there: in one tree for all, or in one for each kind of resource. */
const [ROOT, FILE] = exists("/sys/fs/cgroup/cgroup.controllers")
  ? ["/sys/fs/cgroup", "cpu.max"]
  : ["/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"];

export class ControlGroup implements Disposable {
  readonly #dir: string;
  readonly #pid: number;

  /** @param share Of one CPU, from 0 to 1. @throws {Error} when it can't be made. */
  constructor(pid: number, share: number) {
    this.#pid = pid;
    this.#dir = `${ROOT}/userwire-bench-${pid}`;
    const quotaUs = Math.round(share * PERIOD_US);
    try {
      Deno.mkdirSync(this.#dir);
      if (FILE === "cpu.max") Deno.writeTextFileSync(`${this.#dir}/cpu.max`, `${quotaUs} ${PERIOD_US}`);
      else {
        Deno.writeTextFileSync(`${this.#dir}/cpu.cfs_period_us`, `${PERIOD_US}`);
        Deno.writeTextFileSync(`${this.#dir}/cpu.cfs_quota_us`, `${quotaUs}`);
      }
      Deno.writeTextFileSync(`${this.#dir}/cgroup.procs`, `${pid}`);
    } catch (error) {
      throw new Error(
        `--cpu needs root and the cpu controller of control groups: ${(error as Error).message}`,
      );
    }
  }

  [Symbol.dispose](): void {
    Deno.writeTextFileSync(`${ROOT}/cgroup.procs`, `${this.#pid}`);
    Deno.removeSync(this.#dir);
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
