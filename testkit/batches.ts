/**
 * Test files that are put together, several in one isolate, for a run of all tests: each isolate loads the program anew,
 * and the library of Redis, for half a second of processor time, which is more than most files take themselves.
 *
 * Imports no package, so that it works before any was fetched.
 */
import { fileURLToPath } from "node:url";

/** How many files share an isolate: few, so that none of them is the last to end. */
const FILES = 8;

/**
 * Writes the batches into a folder.
 * @param long Paths of files that take long, in the order in which they are to begin; each stays by itself.
 * @throws when one of those is not there.
 * @returns What to give to `deno test`, in the order in which it is to begin: the long ones, then the batches.
 */
export async function writeBatches(tests: URL, long: readonly string[], folder: string): Promise<string[]> {
  const all = await filesIn(tests, "");
  const missing = long.filter((path) => !all.includes(path));
  if (missing.length > 0) {
    throw new Error(`Test files that are said to take long are not there: ${missing.join(", ")}`);
  }
  const files = all.filter((path) => !long.includes(path)).sort();
  const count = Math.ceil(files.length / FILES);
  const batches = Array.from({ length: count }, (_, i) => files.filter((_, k) => k % count === i));
  const paths = [];
  for (const [i, batch] of batches.entries()) {
    const path = `${folder}/batch${i + 1}_test.ts`;
    const lines = batch.map((file) => `import ${JSON.stringify(new URL(file, tests).href)};\n`);
    await Deno.writeTextFile(path, lines.join(""));
    paths.push(path);
  }
  return [...long.map((file) => fileURLToPath(new URL(file, tests))), ...paths];
}

/** Paths of all test files, from the folder of the tests on. */
async function filesIn(tests: URL, folder: string): Promise<string[]> {
  const paths = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder || ".", tests))) {
    if (isDirectory) paths.push(...await filesIn(tests, `${folder}${name}/`));
    else if (/_test\.tsx?$/.test(name)) paths.push(folder + name);
  }
  return paths;
}
