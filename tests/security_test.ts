/** That the threats in `docs/security.md` are tested as it says: every test that its table names is there. */
import { assert } from "@std/assert";

Deno.test("Every threat in docs/security.md names tests, and they exist", async (t) => {
  const page = await Deno.readTextFile(new URL("../docs/security.md", import.meta.url));
  const table = page.split("## Threats")[1]!.split("\n## ")[0]!;
  const rows = table.split("\n").filter((line) => line.startsWith("| ")).slice(2);
  assert(rows.length > 20, "the table was found");
  for (const row of rows) {
    const [, threat, , tests] = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
    await t.step(threat!, async () => {
      const named = [...tests!.matchAll(/`([a-z_]+_test\.ts)`|"([^"]+)"/g)];
      let names = "";
      let count = 0;
      for (const [, file, words] of named) {
        if (file !== undefined) names = await namesIn(file);
        else assert(names.includes(words!), `no test has "${words}" in its name`), count++;
      }
      assert(count > 0, "the row names a test by words of its name");
    });
  }
});

/** The names of a file's tests and steps, and of the attacks it runs. */
async function namesIn(file: string): Promise<string> {
  const read = (path: string) => Deno.readTextFile(new URL(path, import.meta.url));
  let source = await read(file);
  if (source.includes('from "./hostile/attacks.ts"')) source += await read("./hostile/attacks.ts");
  const name =
    /(?:\b(?:Deno\.test|\w+Test|onEachStore|t\.step)\(\s*|name: |async \[?)(["'`])((?:(?!\1)[^\\\n]|\\.)+)\1/g;
  return [...source.matchAll(name)].map(([, , name]) => name).join("\n");
}
