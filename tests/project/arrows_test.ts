/**
 * The shape of the house, enforced: which room of `src/` may import which, read from the import lines. The table below
 * is the rule; whoever adds a room finds out here where it stands.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { dirname, join, relative } from "node:path/posix";
import { fileURLToPath } from "node:url";

/** A folder of `src/`. Files of one room import each other as they like, but never in a circle. */
interface Room {
  readonly name: string;
  /** Narrows what may be imported to these rooms, of all that lie below. */
  readonly only?: readonly string[];
  /** Files of it that every room above may import; without this, all of them. */
  readonly doors?: readonly string[];
  /** Rooms, or files of them, that may import all of its files. */
  readonly opensTo?: readonly string[];
  /** Rooms of which only types may be imported. */
  readonly typesOf?: readonly string[];
}

/** From the top down: a room may import from those below its own. */
const ROOMS: readonly Room[] = [
  { name: "cli" },
  // What a set-up needs, asked of the parts that serve.
  { name: "doctor", doors: ["doctor.ts", "finding.ts"] },
  // What loads running nodes, as clients and backends do: it sees what they see.
  { name: "load", only: ["async", "protocol"], doors: ["load.ts", "figures.ts", "histogram.ts"] },
  { name: "server" },
  // What several processes have of each other. The supervisor loads no more of the program than this names.
  {
    name: "processes",
    only: ["http", "config", "log", "net", "async", "protocol"],
    doors: ["supervisor.ts", "place.ts", "signals.ts", "rights.ts"],
  },
  { name: "http" },
  { name: "session", typesOf: ["publisher", "broker"] },
  { name: "requests", doors: ["requests.ts"], opensTo: ["server", "mod.ts"] },
  { name: "publisher", typesOf: ["broker", "metrics", "groups"] },
  {
    name: "webhooks",
    only: ["events", "log", "metrics", "async", "protocol"],
    doors: ["carrier.ts", "webhook.ts"],
    opensTo: ["server", "cli"],
    typesOf: ["events", "log", "metrics"],
  },
  {
    name: "events",
    only: ["broker", "redis", "log", "async", "protocol"],
    doors: ["events.ts", "open.ts", "presence.ts", "unacked.ts", "unacked_teller.ts"],
    typesOf: ["broker", "log"],
  },
  // Who picks the implementations of the contracts.
  { name: "engine", doors: [], opensTo: ["server", "publisher", "doctor"], typesOf: ["log"] },
  {
    name: "auth",
    only: ["broker", "redis", "log", "async", "protocol"],
    doors: ["auth.ts"],
    opensTo: ["server", "doctor", "cli/key.ts"], // which makes keys without a service
    typesOf: ["broker", "log"],
  },
  {
    name: "groups",
    only: ["redis", "protocol"],
    doors: ["groups.ts"],
    opensTo: ["engine"],
  },
  {
    name: "history",
    only: ["broker", "redis", "log", "async", "protocol"],
    doors: ["history.ts", "epochs.ts"],
    opensTo: ["engine"],
    typesOf: ["broker", "log"],
  },
  {
    name: "broker",
    only: ["redis", "log", "async", "protocol"],
    doors: ["broker.ts"],
    opensTo: ["engine"],
    typesOf: ["log"],
  },
  { name: "client", only: ["async", "protocol"], doors: ["mod.ts"] },
  { name: "web", only: [], doors: ["assets.ts"] },
  { name: "config", only: ["redis", "net", "protocol"] },
  {
    name: "redis",
    only: ["log", "async", "protocol"],
    // Nobody else knows where a Redis is, or what goes over its connections.
    doors: ["commands.ts", "address.ts"],
    opensTo: ["broker", "engine"],
  },
  { name: "metrics" },
  { name: "log", only: ["async", "protocol"] },
  { name: "net", only: ["protocol"] },
  { name: "async", only: ["protocol"] },
  { name: "protocol" },
];

/** What may lie in no room: it is imported by these paths. */
const LOOSE = ["main.ts", "src/publisher.ts", "src/mod.ts"];

/** A contract says what its implementations promise, and knows none of them. */
const CONTRACTS = [
  "src/broker/broker.ts",
  "src/history/history.ts",
  "src/groups/groups.ts",
  "src/auth/auth.ts",
];

/** Packages that only these files import. */
const PACKAGES = [
  { name: "redis", is: /^(npm:)?(redis|@redis\/\w+)(@|$)/, in: ["src/redis/client_library.ts"] },
  { name: "@std/log", is: /^(jsr:)?@std\/log(@|\/|$)/, in: ["src/log/open.ts", "src/log/file.ts"] },
];

const BANNED_NAME = /(^|[/_.])(utils?|helpers?|services|managers?)(?=[/_.]|$)/;

interface Import {
  readonly specifier: string;
  readonly typesOnly: boolean;
}

type Tree = ReadonlyMap<string, string>;

Deno.test("Source files import only downwards, as the table of rooms says", async () => {
  const tree = await readTree();
  assertEquals(findFaults(tree), []);
  assertEquals([...tree.keys()].includes("src/broker/broker.ts"), true); // it did read the tree
  const rooms = new Set([...tree.keys()].flatMap((path) => roomOf(path)?.name ?? []));
  assertEquals(ROOMS.map(({ name }) => name).filter((name) => !rooms.has(name)), []);
});

Deno.test("The supervisor of several processes loads no part of the service that clients or Redis reach", async () => {
  const tree = await readTree();
  const loaded = new Set(["src/processes/supervisor.ts"]);
  for (const path of loaded) {
    for (const { specifier, typesOnly } of importsOf(withoutComments(tree.get(path)!))) {
      if (specifier.startsWith(".") && !typesOnly) loaded.add(join(dirname(path), specifier));
    }
  }
  const allowed = /^src\/(?:processes|config|log|net|async|protocol)\/|^src\/http\/problem\.ts$/;
  assertEquals([...loaded].filter((path) => !allowed.test(path)), []);
  assertEquals(loaded.has("src/processes/child.ts"), true); // it did follow the imports
});

Deno.test("A service that starts loads no doctor and no load: they are loaded by who asks for them", async () => {
  const tree = await readTree();
  const loaded = new Set(["main.ts"]);
  for (const path of loaded) {
    // What a command imports when it runs is not loaded by the others.
    const code = withoutComments(tree.get(path) ?? "").replaceAll(/\bimport\(\s*"[^"]+"\s*\)/g, "");
    for (const { specifier, typesOnly } of importsOf(code)) {
      if (specifier.startsWith(".") && !typesOnly) loaded.add(join(dirname(path), specifier));
    }
  }
  assertEquals([...loaded].filter((path) => /^src\/(?:doctor|load)\//.test(path)), []);
  assertEquals(loaded.has("src/cli/serve.ts"), true); // it did follow the imports
});

Deno.test("findFaults catches every kind of wrong import in a made-up tree", () => {
  const cases: { path: string; source: string; says: RegExp }[] = [
    {
      path: "src/session/session.ts",
      source: 'import { App } from "../server/app.ts";',
      says: /src\/session\/session\.ts imports "\.\.\/server\/app\.ts": "session" lies below "server"/,
    },
    {
      path: "src/protocol/frames.ts",
      source: 'import type {\n  Broker,\n} from "../broker/broker.ts";',
      says: /"protocol" lies below "broker"/,
    },
    {
      path: "src/server/server.ts",
      source: 'export * from "../cli/cli.ts";',
      says: /"server" lies below "cli"/,
    },
    { path: "src/http/page.ts", source: 'await import("../server/server.ts");', says: /"http" lies below/ },
    {
      path: "src/broker/broker.ts",
      source: 'import { R } from "./shared.ts";',
      says: /a contract may import only "protocol"/,
    },
    {
      path: "src/history/memory.ts",
      source: 'import type { ByChannel } from "../broker/by_channel.ts";',
      says: /"broker" is entered by broker\.ts, unless from engine/,
    },
    {
      path: "src/broker/shared.ts",
      source: 'import { readConfig } from "../config/settings.ts";',
      says: /"broker" may import only .*, not "config"/,
    },
    {
      path: "src/broker/shared.ts",
      source: 'import { openLog } from "../log/log.ts";',
      says: /only its types may be imported/,
    },
    {
      path: "src/http/router.ts",
      source: 'import { openEngine } from "../engine/engine.ts";',
      says: /"engine" is entered by nothing, unless from server or publisher/,
    },
    {
      path: "src/client/client.ts",
      source: 'import { Log } from "../log/log.ts";',
      says: /"client" may import only async, protocol, not "log"/,
    },
    { path: "src/client/client.ts", source: 'import { z } from "zod";', says: /takes no packages/ },
    {
      path: "src/broker/shared.ts",
      source: 'import { createClient } from "npm:redis@6";',
      says: /only src\/redis\/client_library\.ts may import redis/,
    },
    {
      path: "src/server/app.ts",
      source: 'import * as log from "@std/log";',
      says: /only src\/log\/open\.ts and src\/log\/file\.ts may import @std\/log/,
    },
    { path: "src/server/server.ts", source: "Deno.exit(1);", says: /only main\.ts calls Deno\.exit/ },
    { path: "src/server/app.ts", source: "export default 1;", says: /export default/ },
    { path: "src/http/string_utils.ts", source: "", says: /name "utils"/ },
    { path: "src/thing.ts", source: "", says: /src\/thing\.ts lies loose: give it a room/ },
    { path: "src/attic/thing.ts", source: "", says: /no room "attic" in the table/ },
    {
      path: "src/server/app.ts",
      source: 'import "../nowhere/thing.ts";',
      says: /no room "nowhere" in the table/,
    },
    {
      path: "src/session/session.ts",
      source: 'import "./registry.ts";',
      says:
        /go in a circle: src\/session\/registry\.ts → src\/session\/session\.ts → src\/session\/registry\.ts/,
    },
  ];
  const sound: [string, string][] = [
    ["main.ts", 'import { main } from "./src/cli/cli.ts";\nDeno.exit(await main());'],
    ["src/publisher.ts", 'export * from "./publisher/publisher.ts";'],
    [
      "src/server/app.ts",
      'import { openEngine } from "../engine/engine.ts";\n// import "../cli/cli.ts"; Deno.exit(1)\n' +
      'import denoJson from "../../deno.json" with { type: "json" };',
    ],
    ["src/session/registry.ts", 'import type { Session } from "./session.ts";'],
    ["src/session/session.ts", 'import type { Broker } from "../broker/broker.ts";\nconst url = "//x";'],
    ["src/engine/engine.ts", 'import { Shared } from "../broker/shared.ts";'],
    [
      "src/broker/shared.ts",
      'import type { Broker } from "./broker.ts";\nimport type { Log } from "../log/log.ts";\n' +
      'import { Semaphore } from "../async/semaphore.ts";\nclass Shared implements Broker {}',
    ],
    ["src/broker/broker.ts", 'import type { CloseOrder } from "../protocol/close_codes.ts";'],
    ["src/redis/commands.ts", 'import { CommandConnection } from "./command_connection.ts";'],
    ["src/redis/command_connection.ts", 'import { newClient } from "./client_library.ts";'],
    ["src/redis/client_library.ts", 'import { createClient } from "redis";'],
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
    const homeless = homelessnessOf(path);
    if (homeless) faults.push(`${path} ${homeless}`);
    for (const entry of importsOf(code)) {
      const fault = faultOf(path, entry);
      if (fault) faults.push(`${path} imports "${entry.specifier}": ${fault}`);
    }
  }
  return [...faults, ...circlesOf(tree)];
}

/** What is wrong with where a file lies. */
function homelessnessOf(path: string): string | undefined {
  if (LOOSE.includes(path) || roomOf(path)) return undefined;
  const [, name, ...rest] = path.split("/");
  return rest.length === 0
    ? "lies loose: give it a room"
    : `lies in no room "${name}" in the table of tests/project/arrows_test.ts: give it a row`;
}

function faultOf(from: string, { specifier, typesOnly }: Import): string | undefined {
  const room = roomOf(from);
  if (!specifier.startsWith(".")) {
    if (room?.name === "client") return "the client takes no packages";
    const owned = PACKAGES.find(({ is }) => is.test(specifier));
    return owned && !owned.in.includes(from)
      ? `only ${owned.in.join(" and ")} may import ${owned.name}`
      : undefined;
  }
  const to = join(dirname(from), specifier);
  if (to === "deno.json") return undefined; // of which the version is read
  const target = roomOf(to);
  if (!target) return `it ${homelessnessOf(to) ?? "may be imported from outside only"}`;
  if (CONTRACTS.includes(from) && target.name !== "protocol") {
    return `a contract may import only "protocol", not "${target.name}"`;
  }
  if (LOOSE.includes(from) || !room || room === target) return undefined;
  if (ROOMS.indexOf(target) < ROOMS.indexOf(room)) return `"${room.name}" lies below "${target.name}"`;
  if (room.only && !room.only.includes(target.name)) {
    return `"${room.name}" may import only ${room.only.join(", ")}, not "${target.name}"`;
  }
  if (room.typesOf?.includes(target.name) && !typesOnly) {
    return "only its types may be imported here: import type";
  }
  const { doors, opensTo = [] } = target;
  if (!doors || doors.some((file) => to === `src/${target.name}/${file}`)) return undefined;
  if (opensTo.includes(room.name) || opensTo.some((file) => from === `src/${file}`)) return undefined;
  return `"${target.name}" is entered by ${doors.join(", ") || "nothing"}, unless from ${
    opensTo.join(" or ")
  }`;
}

function roomOf(path: string): Room | undefined {
  return ROOMS.find(({ name }) => path.startsWith(`src/${name}/`));
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
  const root = fileURLToPath(new URL("../../", import.meta.url));
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
