/** What the README claims, where it can be checked. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { settingsTable } from "../src/config.ts";
import * as api from "../src/http/api.ts";
import denoJson from "../deno.json" with { type: "json" };

const readme = await Deno.readTextFile(new URL("../README.md", import.meta.url));

Deno.test("README's table of settings is that of config.ts", () => {
  const table = readme.split("<!-- settings -->")[1]!.split("<!-- /settings -->")[0]!;
  assertEquals(table.trim(), settingsTable().trim());
});

Deno.test("README names every call of the HTTP API", () => {
  for (const { path } of Object.values(api)) assertStringIncludes(readme, path);
});

Deno.test("README speaks of tasks and files that exist", async () => {
  for (const [, task] of readme.matchAll(/deno task (\w+)/g)) assert(task! in denoJson.tasks, task);
  for (const [, path] of readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
    assert((await Deno.stat(new URL(`../${path}`, import.meta.url))) !== undefined, path);
  }
});
