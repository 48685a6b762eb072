/**
 * Milliseconds that this thread has worked, as far as Linux says it; else that have passed. What others do on a busy machine
 * meanwhile is not counted: for what costs a service in this process much, and must not.
 */
export const workedMs: () => number = Deno.build.os === "linux"
  ? () => Number(Deno.readTextFileSync("/proc/thread-self/schedstat").split(" ", 1)[0]) / 1e6
  : () => performance.now();
