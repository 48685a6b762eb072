/**
 * Builds the client as one file without imports, for `<script type="module">` and every runtime; and beside it what it
 * loads only where WebSockets are blocked, or where it asks the backend:
 *
 *     deno task client
 *
 * Both are written twice: to dist/, to be taken elsewhere, and to src/web/, from where the service serves them. The
 * second are kept in the repository, so that a start needs no build.
 */
import { fileURLToPath } from "node:url";

const ROOT = new URL("../", import.meta.url);
const HEADER = "// The client of Userwire. Built from src/client/ by `deno task client`: change it there.\n";
/** What is loaded late: files of `src/client/`, without their endings. */
const LATE = ["event_stream", "requests"] as const;

/**
 * The client, and what it loads late, as the texts of modules, by the names of their files.
 * @throws {Error} with what the bundler says. It is fetched from npm when it is used for the first time.
 */
export async function buildClient(): Promise<Record<string, string>> {
  const client = await bundle("mod.ts", LATE.map((name) => `--external=./${name}.ts`));
  const late = LATE.map(async (name) => [`${name}.js`, await bundle(`${name}.ts`, [])] as const);
  return {
    "client.js": LATE.reduce((text, name) => text.replaceAll(`./${name}.ts`, `./${name}.js`), client),
    ...Object.fromEntries(await Promise.all(late)),
  };
}

async function bundle(source: string, args: readonly string[]): Promise<string> {
  const path = fileURLToPath(new URL(`src/client/${source}`, ROOT));
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--minify", "--platform", "browser", ...args, path],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Can't build the client:\n${decoder.decode(stderr)}`);
  return HEADER + decoder.decode(stdout).trimEnd() + "\n";
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(await buildClient())) {
    for (const folder of ["src/web/", "dist/"]) {
      const target = new URL(folder + name, ROOT);
      await Deno.mkdir(new URL(".", target), { recursive: true });
      await Deno.writeTextFile(target, text);
      console.log(`${fileURLToPath(target)}: ${text.length} bytes`);
    }
  }
}
