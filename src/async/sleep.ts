/** Resolves after a time, or as soon as the promise does, which must not reject; no timer is left either way. */
export async function sleep(ms: number, until: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, until]);
  clearTimeout(timer);
}
