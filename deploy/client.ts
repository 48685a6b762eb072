/**
 * Builds the client as one file without imports, for `<script type="module">` and every runtime:
 *
 *     deno task client
 *
 * It is written twice: to dist/client.js, to be taken elsewhere, and to src/web/client.js, which the service
 * serves at /client.js. The second is kept in the repository, so that a start needs no build.
 */
import { fileURLToPath } from "node:url";

const ROOT = new URL("../", import.meta.url);
const SOURCE = fileURLToPath(new URL("src/client/mod.ts", ROOT));
/** Where the built client goes. */
const TARGETS: readonly URL[] = ["src/web/client.js", "dist/client.js"].map((path) => new URL(path, ROOT));
const HEADER = "// The client of Userwire. Built from src/client/ by `deno task client`: change it there.\n";

/**
 * The client as the text of one module.
 * @throws {Error} with what the bundler says. It is fetched from npm when it is used for the first time.
 */
export async function buildClient(): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--minify", "--platform", "browser", SOURCE],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Can't build the client:\n${decoder.decode(stderr)}`);
  return HEADER + decoder.decode(stdout).trimEnd() + "\n";
}

if (import.meta.main) {
  const text = await buildClient();
  for (const target of TARGETS) {
    await Deno.mkdir(new URL(".", target), { recursive: true });
    await Deno.writeTextFile(target, text);
    console.log(`${fileURLToPath(target)}: ${text.length} bytes`);
  }
}
