/**
 * Resolves after a time, or as soon as something else happens; nothing is left behind then: neither a timer nor a listener of
 * a signal. What may last as long as the process is given as a signal: a promise would keep a trace of each who ever waited
 * for it, until it resolves.
 * @param ms In milliseconds; Infinity for no limit, and what is below 0 is over.
 * @param until Promises must not reject.
 */
export async function sleep(ms: number, ...until: (Promise<unknown> | AbortSignal)[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  const signals = until.filter((one) => one instanceof AbortSignal);
  if (signals.some(({ aborted }) => aborted)) return;
  const timer = ms === Infinity ? undefined : setTimeout(resolve, Math.max(0, ms));
  for (const signal of signals) signal.addEventListener("abort", resolve);
  for (const one of until) if (one instanceof Promise) void one.then(resolve);
  await promise;
  clearTimeout(timer);
  for (const signal of signals) signal.removeEventListener("abort", resolve);
}
