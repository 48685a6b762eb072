/**
 * The shape of the house, enforced: which file may import which, read from the import lines. The table below is
 * the rule; whoever adds a file to `src/` finds its row, or adds one.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { dirname, join, relative } from "node:path/posix";

interface Row {
  readonly name: string;
  readonly files: RegExp;
  /** Whether files of this row may import each other. */
  readonly together?: boolean;
  /** Narrows what may be imported to these rows. */
  readonly only?: readonly string[];
  /** Narrows who may import it to these files, and to files of its own folder. */
  readonly by?: readonly string[];
}

/** From the top down: a file may import from the rows below its own. */
const ROWS: readonly Row[] = [
  { name: "main", files: /^main\.ts$/ },
  { name: "cli", files: /^src\/cli\//, together: true },
  { name: "server", files: /^src\/server\.ts$/ },
  { name: "app", files: /^src\/app\.ts$/ },
  { name: "http", files: /^src\/http\//, together: true },
  {
    name: "connection",
    files:
      /^src\/(connections?|newcomer|sign_in|frame_quota|send_buffer|hang_up|replay|publisher|payload|receipts|turns)\.ts$/,
    together: true,
  },
  // Who picks the implementations; then, in broker/, inbox/ and auth/, the implementations and what they are made of.
  { name: "backbone", files: /^src\/backbone\.ts$/, by: ["src/app.ts", "src/publisher.ts"] },
  {
    name: "implementation",
    files: /^src\/(broker|inbox|auth)\//, // and see isImplementation
    only: ["part", "contract", "redis", "log", "wire"],
    by: ["src/backbone.ts", "src/app.ts"],
  },
  {
    name: "part",
    files: /^src\/(broker|inbox|auth)\/(?!(broker|inbox|auth)\.ts$)/,
    together: true,
    only: ["part", "contract", "redis", "log", "wire"],
    by: ["src/backbone.ts", "src/app.ts", "src/cli/key.ts"], // which makes keys without a service
  },
  { name: "client", files: /^src\/client\//, together: true, only: ["client", "wire"] },
  { name: "page", files: /^src\/web\//, together: true, only: ["page"] },
  { name: "contract", files: /^src\/(broker\/broker|inbox\/inbox|auth\/auth)\.ts$/, only: ["wire"] },
  { name: "redis", files: /^src\/redis\.ts$/ },
  { name: "command connection", files: /^src\/redis\//, together: true, by: ["src/redis.ts"] },
  { name: "metrics", files: /^src\/(metrics|open_files)\.ts$/, together: true },
  { name: "log", files: /^src\/log(_console|_file|_line)?\.ts$/, together: true },
  { name: "config", files: /^src\/(config|setting|unknown_names|addresses|paths|pem)\.ts$/, together: true },
  { name: "wire", files: /^src\/(protocol|errors|deadlines|json_text)\.ts$/, together: true },
  { name: "manifest", files: /^deno\.json$/ },
];

/** Packages that one file stands for. */
const PACKAGES = [
  { name: "redis", is: /^(npm:)?(redis|@redis\/\w+)(@|$)/, in: "src/redis/library.ts" },
  { name: "@std/log", is: /^(jsr:)?@std\/log(@|\/|$)/, in: "src/log_file.ts" },
];

const BANNED_NAME = /(^|[/_.])(utils?|helpers?|services|managers?)(?=[/_.]|$)/;

interface Import {
  readonly specifier: string;
  readonly typesOnly: boolean;
}

type Tree = ReadonlyMap<string, string>;

Deno.test("Source files import only downwards, as the table of rows says", async () => {
  const tree = await readTree();
  assertEquals(findFaults(tree), []);
  assertEquals([...tree.keys()].includes("src/broker/broker.ts"), true); // it did read the tree
});

Deno.test("findFaults catches every kind of wrong import in a made-up tree", () => {
  const cases: { path: string; source: string; says: RegExp }[] = [
    {
      path: "src/connection.ts",
      source: 'import { App } from "./app.ts";',
      says: /src\/connection\.ts imports "\.\/app\.ts": "connection" lies below "app"/,
    },
    {
      path: "src/protocol.ts",
      source: 'import type {\n  Broker,\n} from "./broker/broker.ts";',
      says: /"wire" lies below "contract"/,
    },
    { path: "src/server.ts", source: 'export * from "./cli/cli.ts";', says: /"server" lies below "cli"/ },
    { path: "src/app.ts", source: 'await import("./server.ts");', says: /"app" lies below "server"/ },
    {
      path: "src/broker/memory.ts",
      source: 'import { R } from "./redis_shared.ts";\nclass M implements Broker {}',
      says: /"implementation" may import only part, contract, redis, log, wire, not "implementation"/,
    },
    {
      path: "src/inbox/memory.ts",
      source: 'import { Slots } from "../broker/slots.ts";\nclass M implements Inbox {}',
      says: /belongs to src\/broker/,
    },
    {
      path: "src/broker/slots.ts",
      source: 'import { loadConfig } from "../config.ts";',
      says: /"part" may import only .*, not "config"/,
    },
    {
      path: "src/broker/slots.ts",
      source: 'import { openLog } from "../log.ts";',
      says: /only its types may be imported/,
    },
    {
      path: "src/http/router.ts",
      source: 'import { openBackbone } from "../backbone.ts";',
      says: /backbone/,
    },
    {
      path: "src/connections.ts",
      source: 'import { R } from "./broker/redis_shared.ts";',
      says: /belongs to src\/broker/,
    },
    {
      path: "src/client/client.ts",
      source: 'import { Log } from "../log.ts";',
      says: /"client" may import only client, wire, not "log"/,
    },
    { path: "src/client/client.ts", source: 'import { z } from "zod";', says: /takes no packages/ },
    {
      path: "src/broker/slots.ts",
      source: 'import { createClient } from "npm:redis@6";',
      says: /only src\/redis\/library\.ts imports redis/,
    },
    {
      path: "src/app.ts",
      source: 'import * as log from "@std/log";',
      says: /only src\/log_file\.ts imports @std\/log/,
    },
    { path: "src/server.ts", source: "Deno.exit(1);", says: /only main\.ts calls Deno\.exit/ },
    { path: "src/app.ts", source: "export default 1;", says: /export default/ },
    { path: "src/http/string_utils.ts", source: "", says: /name "utils"/ },
    { path: "src/thing.ts", source: "", says: /has no row in the table/ },
    { path: "src/app.ts", source: 'import "./nowhere.ts";', says: /no row in the table/ },
    {
      path: "src/connection.ts",
      source: 'import "./connections.ts";',
      says: /go in a circle: src\/connection\.ts → src\/connections\.ts → src\/connection\.ts/,
    },
  ];
  const sound: [string, string][] = [
    ["main.ts", 'import { main } from "./src/cli/cli.ts";\nDeno.exit(await main());'],
    ["src/app.ts", 'import { openBackbone } from "./backbone.ts";\n// import "./server.ts"; Deno.exit(1)'],
    ["src/connections.ts", 'import type { Connection } from "./connection.ts";'],
    ["src/connection.ts", 'import type { Broker } from "./broker/broker.ts";\nconst url = "//x";'],
    ["src/backbone.ts", 'import { Shared } from "./broker/redis_shared.ts";'],
    [
      "src/broker/redis_shared.ts",
      'import type { Broker } from "./broker.ts";\nimport { Slots } from "./slots.ts";\nclass Shared implements Broker {}',
    ],
    ["src/broker/slots.ts", 'import type { Log } from "../log.ts";\nimport { E } from "../errors.ts";'],
    ["src/broker/broker.ts", ""],
    ["src/redis.ts", 'import { CommandConnection } from "./redis/command_connection.ts";'],
    ["src/redis/command_connection.ts", 'import { newClient } from "./library.ts";'],
    ["src/redis/library.ts", 'import { createClient } from "redis";'],
  ];
  assertEquals(findFaults(new Map(sound)), []);
  for (const { path, source, says } of cases) {
    assertMatch(findFaults(new Map([...sound, [path, source]])).join("\n"), says);
  }
});

/** One sentence per fault, naming the file, the import and the rule. */
function findFaults(tree: Tree): string[] {
  const faults: string[] = [];
  for (const [path, source] of tree) {
    const code = withoutComments(source);
    const banned = BANNED_NAME.exec(path);
    if (banned) {
      faults.push(`${path} has the name "${banned[2]}", which says nothing: name it after what it does`);
    }
    if (/\bexport\s+default\b/.test(code)) {
      faults.push(`${path} has an export default: give the export a name`);
    }
    if (/\bDeno\.exit\b/.test(code) && path !== "main.ts") {
      faults.push(`${path} calls Deno.exit: only main.ts calls Deno.exit`);
    }
    for (const entry of importsOf(code)) {
      const fault = faultOf(path, entry, tree);
      if (fault) faults.push(`${path} imports "${entry.specifier}": ${fault}`);
    }
    if (!rowOf(path, tree)) {
      faults.push(`${path} has no row in the table of tests/arrows_test.ts: give it one`);
    }
  }
  return [...faults, ...circlesOf(tree)];
}

function faultOf(from: string, { specifier, typesOnly }: Import, tree: Tree): string | undefined {
  const row = rowOf(from, tree);
  if (!specifier.startsWith(".")) {
    if (row?.name === "client") return "the client takes no packages";
    const owned = PACKAGES.find(({ is }) => is.test(specifier));
    return owned && owned.in !== from ? `only ${owned.in} imports ${owned.name}` : undefined;
  }
  const to = join(dirname(from), specifier);
  const target = rowOf(to, tree);
  if (!row || !target) return `${row ? to : from} has no row in the table`;
  if (target.by && !target.by.includes(from) && dirname(from) !== dirname(to)) {
    return `a "${target.name}" belongs to ${dirname(to)} and may be imported only there and by ${
      target.by.join(", ")
    }`;
  }
  if (row.only && !row.only.includes(target.name)) {
    return `"${row.name}" may import only ${row.only.join(", ")}, not "${target.name}"`;
  }
  if (row.only && target.name === "log" && !typesOnly) {
    return "only its types may be imported here: import type";
  }
  if (row === target) return row.together ? undefined : `"${row.name}" may not import each other`;
  if (ROWS.indexOf(target) < ROWS.indexOf(row)) return `"${row.name}" lies below "${target.name}"`;
  return undefined;
}

function rowOf(path: string, tree: Tree): Row | undefined {
  return ROWS.find((row) =>
    row.files.test(path) && (row.name !== "implementation" || isImplementation(path, tree))
  );
}

/** Whether a class in the file implements what the folder is named after: `implements Broker` in broker/. */
function isImplementation(path: string, tree: Tree): boolean {
  const folder = path.split("/")[1]!;
  const code = withoutComments(tree.get(path) ?? "");
  // What is abstract is not one yet: it is what they are made of.
  return new RegExp(`(?<!abstract )class \\w+[^{]*\\b(implements|extends)\\s[^{]*${folder}`, "i").test(code);
}

function importsOf(code: string): Import[] {
  const statements =
    /^\s*(?:import|export)\b(\s+type\b)?(?:[^"';]*?\bfrom)?\s*"([^"]+)"|\bimport\(\s*"([^"]+)"/gm;
  return [...code.matchAll(statements)].map(([, type, specifier, dynamic]) => ({
    specifier: (specifier ?? dynamic)!,
    typesOnly: type !== undefined,
  }));
}

/** Strings are matched only to be kept: `"//"` starts no comment. */
function withoutComments(source: string): string {
  return source.replaceAll(
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    (_, text?: string) => text ?? "",
  );
}

/** Every circle of imports once, as the path around it. */
function circlesOf(tree: Tree): string[] {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, trail: readonly string[]) => {
    const start = trail.indexOf(path);
    if (start >= 0) circles.push(`Imports go in a circle: ${[...trail.slice(start), path].join(" → ")}`);
    if (start >= 0 || done.has(path)) return;
    for (const { specifier } of importsOf(withoutComments(tree.get(path) ?? ""))) {
      if (specifier.startsWith(".")) visit(join(dirname(path), specifier), [...trail, path]);
    }
    done.add(path);
  };
  for (const path of [...tree.keys()].sort()) visit(path, []);
  return circles;
}

/** main.ts and every TypeScript file under src/, by path from the root of the project. */
async function readTree(): Promise<Tree> {
  const root = new URL("../", import.meta.url).pathname;
  const tree = new Map([["main.ts", await Deno.readTextFile(`${root}main.ts`)]]);
  const folders = [`${root}src`];
  for (const folder of folders) {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      const path = join(folder, name);
      if (isDirectory) folders.push(path);
      else if (name.endsWith(".ts")) tree.set(relative(root, path), await Deno.readTextFile(path));
    }
  }
  return tree;
}
