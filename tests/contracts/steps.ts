/**
 * Runs a contract's tests as steps of one test, so that they share what is slow to start: a cluster, or Sentinels.
 * @param declare Declares the contract with the function that it is given for each test.
 */
export async function asSteps(
  t: Deno.TestContext,
  declare: (test: (name: string, fn: () => Promise<void>) => void) => void,
): Promise<void> {
  const tests: [name: string, fn: () => Promise<void>][] = [];
  declare((name, fn) => tests.push([name, fn]));
  for (const [name, fn] of tests) await t.step(name, fn);
}
