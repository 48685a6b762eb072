/** That the threats in `docs/threats.md` are tested as it says: every test that its table names is there. */
import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);
const ATTACKS = "tests/programs/hostile/attacks.ts";

Deno.test("Every threat in docs/threats.md names tests, and they exist", async (t) => {
  const files = await testFiles();
  const table = await threats();
  const rows = table.split("\n").filter((line) => line.startsWith("| ")).slice(2);
  assert(rows.length > 20, "the table was found");
  for (const row of rows) {
    const [, threat, , tests] = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
    await t.step(threat!, async () => {
      const named = [...tests!.matchAll(/`([a-z_]+_test\.ts)`|"([^"]+)"/g)];
      let names: string[] = [];
      let count = 0;
      for (const [, file, words] of named) {
        if (file !== undefined) names = await namesIn(files.get(file) ?? `tests/${file}`);
        else {
          assert(names.some((name) => name.includes(words!)), `no test has "${words}" in its name`);
          count++;
        }
      }
      assert(count > 0, "the row names a test by words of its name");
    });
  }
});

Deno.test("Every attack of hostile clients is a threat in docs/threats.md", async () => {
  const table = await threats();
  const words = Array.from(table.matchAll(/"([^"]+)"/g), ([, words]) => words!);
  const attacks = await namesIn(ATTACKS);
  assert(attacks.length > 5, "the attacks were found");
  const isNamed = (attack: string) => words.some((word) => attack.includes(word));
  assertEquals(attacks.filter((attack) => !isNamed(attack)), []);
});

/** The table, as Markdown. */
async function threats(): Promise<string> {
  const page = await read("docs/threats.md");
  return page.split("## Threats")[1]!.split("\n## ")[0]!;
}

/** The names of a file's tests and steps, and of the attacks it runs. */
async function namesIn(file: string): Promise<string[]> {
  let source = await read(file);
  if (source.includes('/hostile/attacks.ts"')) source += await read(ATTACKS);
  const name =
    /(?:\b(?:Deno\.test|\w+Test|onEachStore|onRedis|everywhere|t\.step)\(\s*|name:\s+|async \[?)(["'`])((?:(?!\1)[^\\\n]|\\.)+)\1/g;
  return Array.from(source.matchAll(name), ([, , name]) => name!);
}

/** Where each test file is, by its name. */
async function testFiles(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const folders = ["tests"];
  for (const folder of folders) {
    for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
      const path = `${folder}/${name}`;
      if (isDirectory) folders.push(path);
      else if (name.endsWith("_test.ts")) {
        assert(!files.has(name), `${path} and ${files.get(name)} have one name`);
        files.set(name, path);
      }
    }
  }
  return files;
}

function read(path: string): Promise<string> {
  return Deno.readTextFile(new URL(path, ROOT));
}
