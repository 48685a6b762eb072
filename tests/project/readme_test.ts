/** What the README claims, where it can be checked. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { settingsTable } from "../../src/config/settings.ts";
import { CALLS } from "../../src/http/api/calls.ts";
import denoJson from "../../deno.json" with { type: "json" };
import { stretched } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));

Deno.test("README's table of settings is that of config.ts", () => {
  const table = readme.split("<!-- settings -->")[1]!.split("<!-- /settings -->")[0]!;
  assertEquals(table.trim(), settingsTable().trim());
});

Deno.test("README names every call of the HTTP API", () => {
  for (const { route } of CALLS) assertStringIncludes(readme, route.path);
});

Deno.test("README speaks of tasks and files that exist", async () => {
  for (const [, task] of readme.matchAll(/deno task (\w+)/g)) assert(task! in denoJson.tasks, task);
  for (const [, path] of readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
    assert((await Deno.stat(new URL(`../../${path}`, import.meta.url))) !== undefined, path);
  }
});

redisTest(
  "README's example of a backend in Deno is checked and runs in a project that is not this one",
  async () => {
    const section = readme.split("### From a backend in Deno")[1]!;
    const example = section.split("```ts\n")[1]!.split("```")[0]!;
    const config = JSON.parse(/`(\{ "imports".*\})`/.exec(section)![1]!);
    assertEquals(config, { imports: { redis: denoJson.imports.redis } });
    await using redis = await RedisServer.start();
    const folder = await Deno.makeTempDir({ prefix: "userwire-backend-" });
    try {
      const program = example
        .replace("../userwire/", new URL("../../", import.meta.url).href)
        .replace(/redis:\/\/[^"]+/, redis.url);
      assert(program.includes(redis.url) && program.includes("file:"), program);
      await Deno.writeTextFile(`${folder}/backend.ts`, `${program}\nconsole.log(typeof id, sockets);\n`);
      await Deno.writeTextFile(`${folder}/deno.json`, JSON.stringify(config));
      for (const args of [["check", "backend.ts"], ["run", "--no-prompt", "--allow-net", "backend.ts"]]) {
        const command = new Deno.Command(Deno.execPath(), {
          args,
          cwd: folder,
          env: { NO_COLOR: "1" },
          stdin: "null",
          signal: AbortSignal.timeout(stretched(240_000)),
        });
        const output = await command.output();
        const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) =>
          new TextDecoder().decode(bytes)
        );
        assertEquals([output.code, stdout], [0, args[0] === "run" ? "string 0\n" : ""], stderr);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);
