/** What a start fetches: `deno task` takes all of deno.lock and all imports of deno.json, needed or not. */
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import manifest from "../../deno.json" with { type: "json" };
import { TempFolder } from "../../testkit/temp_folder.ts";

interface Lock {
  readonly npm: Readonly<Record<string, { integrity: string }>>;
}

async function read(path: string): Promise<Lock> {
  return JSON.parse(await Deno.readTextFile(new URL(path, import.meta.url)));
}

Deno.test("The tests run with the very packages that the program is locked to", async () => {
  const program = await read("../../deno.lock");
  const tests = await read("../deno.lock");
  for (const [name, { integrity }] of Object.entries(program.npm)) {
    assertEquals(tests.npm[name]?.integrity, integrity, `${name}: take it over into tests/deno.lock`);
  }
  const suite = await Deno.readTextFile(new URL("../suite.ts", import.meta.url));
  assert(suite.includes('"--lock=tests/deno.lock"'));
});

Deno.test("deno.json imports no package that only tests need", async () => {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  let sources = await Deno.readTextFile(`${root}main.ts`);
  const folders = [`${root}src`];
  for (const folder of folders) {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory) folders.push(`${folder}/${name}`);
      else if (name.endsWith(".ts")) sources += await Deno.readTextFile(`${folder}/${name}`);
    }
  }
  // The first is asked for; the second is a peer of what checks requests.
  const idle = Object.keys(manifest.imports).filter((name) =>
    name !== "@std/assert" && name !== "zod" && !sources.includes(`from "${name}"`) &&
    !sources.includes(`import("${name}")`)
  );
  assertEquals(idle, []);
});

/** What Deno says of a registry to which it finds no way; of one that answers it says something else. */
const NO_NETWORK = /client error \(Connect\)/;

Deno.test("A cold start fetches the packages of deno.lock, and no others", async () => {
  using cache = new TempFolder("cold");
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "start", "--version"],
    cwd: new URL("../../", import.meta.url),
    env: { DENO_DIR: cache.path },
  }).output();
  const said = new TextDecoder().decode(stderr);
  if (code !== 0 && NO_NETWORK.test(said)) {
    return console.warn("What a cold start fetches is not shown: the registry can't be reached from here");
  }
  assertEquals(code, 0, said);
  const locked = Object.keys((await read("../../deno.lock")).npm).map((name) =>
    /^@?[^@]+@[^_]+/.exec(name)![0]
  );
  assertEquals(packagesIn(`${cache}/npm`), locked.sort());
});

/** The packages in a cache, which keeps each in `<host>/<name>/<version>`; a name with a scope is two folders. */
function packagesIn(cache: string): string[] {
  const foldersIn = (path: string) => [...Deno.readDirSync(path)].filter((one) => one.isDirectory);
  const packages: string[] = [];
  for (const { name: host } of foldersIn(cache)) {
    const names = foldersIn(`${cache}/${host}`).flatMap(({ name }) =>
      name.startsWith("@")
        ? foldersIn(`${cache}/${host}/${name}`).map((inner) => `${name}/${inner.name}`)
        : name
    );
    for (const name of names) {
      packages.push(...foldersIn(`${cache}/${host}/${name}`).map((version) => `${name}@${version.name}`));
    }
  }
  return packages.sort();
}
