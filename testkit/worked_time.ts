/**
 * Milliseconds that this thread has worked, as far as Linux says it; else that have passed. What others do on a busy machine
 * meanwhile is not counted: for what costs a service in this process much, and must not.
 */
export const workedMs: () => number = countedMs() > 0 ? countedMs : () => performance.now();

/** 0 where nobody counts: on other systems, in a kernel that was built without it, in a sandbox that has no such file. */
function countedMs(): number {
  try {
    return Number(Deno.readTextFileSync("/proc/thread-self/schedstat").split(" ", 1)[0]) / 1e6;
  } catch {
    return 0;
  }
}
