/** Where files go that settings name: to the working directory, whether Deno runs the program or it was compiled. */
import { assertEquals, assertGreater, assertMatch } from "@std/assert";
import { cp } from "node:fs/promises";
import { until, withDeadline } from "../../testkit/deadline.ts";

const ROOT = new URL("../../", import.meta.url);

Deno.test("Sources find no file by where they or the program lie, which is nowhere in a compiled binary", async () => {
  let sources = 0;
  for await (const [path, text] of codeOf("")) {
    sources++;
    // Whoever starts processes starts Deno and the program; a compiled binary says that it does not.
    if (/^processes\/|^cli\/serve\.ts$/.test(path)) continue;
    const found = text.match(/import\.meta\.(?:dirname|filename|url|resolve)|Deno\.(?:execPath|mainModule)/);
    assertEquals(found?.[0], undefined, path);
  }
  assertGreater(sources, 20);
});

/** What the compiled program consists of. */
async function* codeOf(folder: string): AsyncGenerator<[path: string, text: string]> {
  if (folder === "") yield ["main.ts", await Deno.readTextFile(new URL("main.ts", ROOT))];
  for await (const { name, isDirectory } of Deno.readDir(new URL(`src/${folder}`, ROOT))) {
    const path = `${folder}${name}`;
    if (isDirectory) yield* codeOf(`${path}/`);
    else if (path.endsWith(".ts")) yield [path, await Deno.readTextFile(new URL(`src/${path}`, ROOT))];
  }
}

Deno.test("deno task start keeps its logs at the project's root, from whichever folder it is called", async () => {
  const project = await Deno.realPath(await Deno.makeTempDir({ prefix: "userwire-paths-" }));
  try {
    for (const part of ["deno.json", "deno.lock", "main.ts", "src", "links"]) {
      await cp(new URL(part, ROOT), `${project}/${part}`, { recursive: true });
    }
    const { PATH = "", HOME = "", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    const child = new Deno.Command(Deno.execPath(), {
      args: ["task", "--quiet", "start"],
      cwd: `${project}/src/broker`,
      clearEnv: true,
      env: { PATH, HOME, DENO_DIR, PORT: "0", USERWIRE_NODE: "paths" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    let isOver = false;
    const status = child.status.finally(() => isOver = true);
    try {
      const log = `${project}/logs/userwire-paths.log`;
      await until(async () => isOver || await isFile(log), "the service to log", 30_000);
      await until(
        async () => isOver || (await Deno.readTextFile(log)).includes("listening"),
        "its first line",
      );
    } finally {
      // Not SIGKILL, which the task could not pass on to the service.
      if (!isOver) child.kill("SIGTERM");
      await withDeadline(status, 15_000, "the task to end");
    }
    assertEquals((await status).code, 0);
    assertMatch(await Deno.readTextFile(`${project}/logs/userwire-paths.log`), /"stopped"/);
  } finally {
    await Deno.remove(project, { recursive: true });
  }
});

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}
