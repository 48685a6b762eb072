/**
 * What the kernel says about processes and limits, read from /proc. Linux only: other systems have no such place,
 * and a figure that is measured in another way is not comparable.
 */

/** Ticks a second in /proc; the same on every Linux that matters. */
const TICKS_PER_S = 100;

/** CPU time that processes have used until now, in seconds: theirs, and the kernel's for them. */
export function cpuSeconds(pids: readonly number[]): number {
  return pids.map(cpuTimes).reduce((sum, { userS, systemS }) => sum + userS + systemS, 0);
}

/** The same of one process, in its two parts. */
export function cpuTimes(pid: number): { userS: number; systemS: number } {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // The name, second and in brackets, may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { userS: Number(fields[11]) / TICKS_PER_S, systemS: Number(fields[12]) / TICKS_PER_S };
}

/** How often the main threads of processes have gone to sleep until now, and so have woken. */
export function wakes(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return sum + Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]);
  }, 0);
}

/** Memory that processes hold, in KiB, what they share with others counted in part (PSS). */
export function memoryKib(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const rollup = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
    return sum + Number(/^Pss: +(\d+)/m.exec(rollup)![1]);
  }, 0);
}

/** How many files and sockets a process may have open. Processes started from here may have as many. */
export function openFileLimit(): number {
  const limit = /^Max open files +(\w+)/m.exec(Deno.readTextFileSync("/proc/self/limits"))![1]!;
  return limit === "unlimited" ? Infinity : Number(limit);
}

/** How many ports the kernel has for connections from one address to one port. */
export function ephemeralPorts(): number {
  const [low, high] = Deno.readTextFileSync("/proc/sys/net/ipv4/ip_local_port_range").trim().split(/\s+/);
  return Number(high) - Number(low) + 1;
}

/** Processes that ran or waited for a CPU during the last minute, on average. */
export function load(): string {
  return Deno.loadavg()[0]!.toFixed(1);
}

/** From so many busy programs per CPU on, what others do shows in the figures. */
const BUSY_LOAD = 0.25;

/** Says so when other programs are busy. */
export function warnWhenBusy(): void {
  if (Deno.loadavg()[0]! <= BUSY_LOAD * navigator.hardwareConcurrency) return;
  console.error(`The machine is busy (load ${load()}): the figures will say little`);
}

/** @throws {Error} on a system that has no /proc. */
export function assertLinux(): void {
  if (Deno.build.os !== "linux") {
    throw new Error(
      `This measures processes through /proc, which only Linux has: this is "${Deno.build.os}", use a Linux machine or container`,
    );
  }
}
