/**
 * The program as one file, for the many processes that a run of all tests starts: it is there in half the processor time
 * that its hundreds of files take, those of the library of Redis above all. `bundle_test.ts` shows that it is the same.
 *
 * Imports no package, so that it works before any was fetched.
 */
import { fileURLToPath } from "node:url";

/** The environment variable that has its path; where it is not set, the program runs from its sources. */
export const PROGRAM_VARIABLE = "TEST_PROGRAM";

const ROOT = new URL("../", import.meta.url);
/** Always the same, so that Deno knows what it has compiled before; in the project, whose settings it needs. */
const FOLDER = new URL("dist/tests/", ROOT);

/**
 * Builds it anew. Who runs what was there before goes on with that.
 * @returns Its path; undefined when it can't be built, which is said aloud.
 */
export async function bundleProgram(): Promise<string | undefined> {
  await Deno.mkdir(FOLDER, { recursive: true });
  const folder = await Deno.makeTempDir({ dir: fileURLToPath(FOLDER) });
  try {
    const built = `${folder}/main.js`;
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--quiet", "--output", built, "main.ts"],
      cwd: ROOT,
      stdin: "null",
    }).output();
    if (!success) {
      console.warn(
        `The program is run from its sources, since deno bundle fails: ${new TextDecoder().decode(stderr)}`,
      );
      return undefined;
    }
    const path = fileURLToPath(new URL("main.js", FOLDER));
    await Deno.rename(built, path);
    return path;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Path of the program that processes of tests run. */
export function programPath(): string {
  return Deno.env.get(PROGRAM_VARIABLE) ?? "main.ts";
}
