/**
 * What the pages claim, where it can be checked: blocks of code run, links lead somewhere, files and tasks that are named
 * exist, generated parts are up to date.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { dirname, join } from "node:path/posix";
import denoJson from "../../deno.json" with { type: "json" };
import { pageAnew, PAGES as GENERATED } from "../../deploy/docs.ts";
import { CALLS } from "../../src/http/api/calls.ts";
import { type Block, blocksIn, pagePaths, readPage } from "../../testkit/pages.ts";
import { PageRun } from "../../testkit/page_run.ts";
import { redisTest } from "../../testkit/redis_server.ts";

const ROOT = new URL("../../", import.meta.url);
/** What the changelog says of old versions need not be so today. */
const HISTORY = "CHANGELOG.md";

const pages = new Map<string, string>();
for (const path of await pagePaths()) pages.set(path, await readPage(path));

/** Blocks in other languages can't run. */
const RUNNABLE = ["sh", "js", "html"];

for (const [path, page] of pages) {
  const blocks = blocksIn(page, path);
  const isRun = ({ language, reason }: Block) => reason === undefined && RUNNABLE.includes(language);
  if (!blocks.some(isRun)) continue;
  const declare = blocks.some(({ text }) => text.includes("redis-server")) ? redisTest : Deno.test;
  declare(`${path}: its blocks of code do what they say`, async () => {
    await using run = new PageRun();
    if (!blocks.some(PageRun.serves)) await run.serve();
    for (const block of blocks) await run.block(block);
    await run.finished();
  });
}

Deno.test("A block that fails is noticed, and so is one whose first line means nothing", async () => {
  await using run = new PageRun();
  const [failing] = blocksIn("```sh\necho said\nfalse\n```\n", "a page");
  await assertRejects(() => run.block(failing!), Error, "a page:1 ends with 1: said");
  assertThrows(
    () => blocksIn("```sh norun\n```\n", "a page"),
    SyntaxError,
    'a page:1: the block begins with "sh norun"',
  );
});

Deno.test("Every block of code in the pages is run, or says why not", () => {
  for (const [path, page] of pages) {
    const blocks = blocksIn(page, path);
    for (const [i, { place, language, file, reason, text }] of blocks.entries()) {
      if (language === "json") parseJson(text, place);
      if (file !== undefined && file !== "deno.json") {
        const isUsed = blocks.slice(i).some((later) => later.language === "sh" && later.text.includes(file));
        assert(isUsed, `${place}: no later block uses ${file}`);
      }
      const isExplained = reason !== undefined || file !== undefined;
      assert(
        isExplained || ["json", "text", ...RUNNABLE].includes(language),
        `${place}: say "no-run: reason"`,
      );
    }
  }
});

/** One value, or one on each line. */
function parseJson(text: string, place: string): void {
  try {
    JSON.parse(text);
  } catch {
    for (const line of text.trim().split("\n")) {
      try {
        JSON.parse(line);
      } catch (cause) {
        throw new Error(`${place} is no JSON`, { cause });
      }
    }
  }
}

Deno.test("Links in the pages lead to files and headings that exist", async () => {
  const faults: string[] = [];
  for (const [path, page] of pages) {
    for (const [, link] of withoutBlocks(page).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [target, anchor] = link!.split("#");
      const to = target === "" ? path : join(dirname(path), target!);
      const text = pages.get(to);
      if (text === undefined && !await exists(to)) faults.push(`${path}: ${link}`);
      if (anchor !== undefined && !anchorsOf(text ?? "").includes(anchor)) faults.push(`${path}: ${link}`);
    }
  }
  assertEquals(faults, []);
});

Deno.test("Files that the pages name exist", async () => {
  const named = /`((?:src|tests|testkit|bench|deploy|docs|links|bin)\/[\w./-]+)`/g;
  const faults: string[] = [];
  for (const [path, page] of pages) {
    if (path === HISTORY) continue;
    for (const [, file] of page.matchAll(named)) if (!await exists(file!)) faults.push(`${path}: ${file}`);
  }
  assertEquals(faults, []);
});

Deno.test("Tasks that the pages name exist", () => {
  for (const [path, page] of pages) {
    for (const [, task] of page.matchAll(/deno task ([\w:]+)/g)) {
      assert(task! in denoJson.tasks, `${path}: ${task}`);
    }
  }
});

for (const path of Object.keys(GENERATED)) {
  Deno.test(`${path} is what "deno task docs" makes of it`, async () => {
    assertEquals(pages.get(path), await pageAnew(path));
  });
}

Deno.test("README.md is read in one go", () => {
  assert(pages.get("README.md")!.split("\n").length <= 151);
});

Deno.test("docs/backends.md asks for the package that the publisher is tested with", () => {
  const manifest = blocksIn(pages.get("docs/backends.md")!, "").find(({ file }) => file === "deno.json")!;
  assertEquals(JSON.parse(manifest.text), { imports: { redis: denoJson.imports.redis } });
});

Deno.test("docs/README.md leads to every page", () => {
  const index = pages.get("docs/README.md")!;
  for (const path of pages.keys()) {
    if (path.startsWith("docs/") && path !== "docs/README.md") assertStringIncludes(index, path.slice(5));
  }
});

Deno.test("docs/http_api.md names every call and every problem code", async () => {
  const page = pages.get("docs/http_api.md")!;
  for (const { route } of CALLS) assertStringIncludes(page, route.path);
  const table = page.split("## Refusals")[1]!;
  const described = [...table.matchAll(/^\| (\d{3}) +\| ([^|]+)/gm)].flatMap(([, status, codes]) =>
    Array.from(codes!.matchAll(/`(\w+)`/g), ([, code]) => `${code} ${status}`)
  );
  const source = await readPage("src/http/problem.ts");
  const there = Array.from(
    source.matchAll(/^ {2}(\w+): \{ status: (\d+)/gm),
    ([, code, status]) => `${code} ${status}`,
  );
  assertEquals(described.sort(), there.sort());
});

Deno.test("docs/architecture.md has every room, and its walks name few files and never turn round", async () => {
  const page = pages.get("docs/architecture.md")!;
  const rooms = Array.from(page.matchAll(/^\| `(\w+)` /gm), ([, room]) => room!);
  const folders = (await Array.fromAsync(Deno.readDir(new URL("src", ROOT)))).filter(({ isDirectory }) =>
    isDirectory
  );
  assertEquals(rooms.toSorted(), folders.map(({ name }) => name).sort());

  const walks = page.split("## Four walks")[1]!.split("\n## ")[0]!.split("\n### ").slice(1);
  assertEquals(walks.map((walk) => walk.split("\n")[0]), ["Connect", "Send", "Deliver", "Close"]);
  for (const walk of walks) {
    const files = new Set(Array.from(walk.matchAll(/`(src\/[\w/.]+)`/g), ([, file]) => file!));
    assert(files.size <= 8, `${walk.split("\n")[0]} names ${files.size} files`);
    const floors = Array.from(walk.matchAll(/^\d+\. `src\/(\w+)\//gm), ([, room]) => rooms.indexOf(room!));
    const sorted = floors.toSorted((a, b) => a - b);
    const isRising = floors[0]! > floors.at(-1)!;
    assertEquals(floors, isRising ? sorted.reverse() : sorted, walk);
  }
});

function withoutBlocks(page: string): string {
  return page.replaceAll(/^( *)```[\s\S]*?^\1```$/gm, "");
}

/** The anchors that headings have where the pages are read. */
function anchorsOf(page: string): string[] {
  return Array.from(
    withoutBlocks(page).matchAll(/^#+ (.+)$/gm),
    ([, heading]) => heading!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-"),
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(new URL(path, ROOT));
    return true;
  } catch {
    return false;
  }
}

Deno.test("docs/operations.md names every warning and error of the log, and no line that there is not", async () => {
  const page = pages.get("docs/operations.md")!;
  const named = [...page.matchAll(/^\| (?:info|warn|error) +\| (.*?) +\|/gm)].flatMap(([, names]) =>
    Array.from(names!.matchAll(/`([^`]+)`/g), ([, name]) => name!.replace(/ …$/, ""))
  );
  assert(named.length > 30, "the table was found");
  const sources = (await sourcesOf("src")).join("\n");
  assertEquals(named.filter((name) => !sources.includes(`"${name}`)), []);
  const written = [...sources.matchAll(/\.(?:warn|error)\(\s*"([a-z][^"]*)"/g)].map(([, name]) => name!)
    .filter((name) => !/^(?:error: |userwire:)/.test(name)); // of the command line, and of the client
  const isNamed = (event: string) => named.some((name) => event.startsWith(name));
  assertEquals(written.filter((event) => !isNamed(event)), []);
});

async function sourcesOf(folder: string): Promise<string[]> {
  const sources: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    if (isDirectory) sources.push(...await sourcesOf(`${folder}/${name}`));
    else if (name.endsWith(".ts")) sources.push(await Deno.readTextFile(new URL(`${folder}/${name}`, ROOT)));
  }
  return sources;
}
