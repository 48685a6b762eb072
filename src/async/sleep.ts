/**
 * Resolves after a time, or as soon as the promise does; whichever it was, no timer is left.
 * @param until Must not reject.
 */
export async function sleep(ms: number, until: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, until]);
  clearTimeout(timer);
}
