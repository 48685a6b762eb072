/**
 * Builds the package `userwire` for npm: dist/npm/, and its tarball beside that.
 *
 *     deno task npm [--output folder]
 *
 * It has four parts, each one file of JavaScript: the client, `react`, `server` and `publisher`. Types are as the compiler
 * writes them, a file for each of ours, without those that no part's types lead to.
 */
// deno-lint-ignore-file no-import-prefix -- tools of the build, which the program must not fetch
import * as esbuild from "npm:esbuild@0.28.2";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import manifest from "../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const COMPILER = "npm:typescript@7.0.2/tsc";
const SOURCES = "clients/npm";

/** A part of the package, and its name in imports. */
interface Part {
  readonly name: "." | "./react" | "./server" | "./publisher";
  readonly source: string;
  readonly output: string;
  readonly build: esbuild.BuildOptions;
}

/** What has `const enum`, private fields and top-level `await`, and not yet `using`. */
const LANGUAGE = "es2022";

const PARTS: readonly Part[] = [
  {
    name: ".",
    source: "client",
    output: "index",
    build: { platform: "neutral", target: LANGUAGE, minify: true, sourcemap: true },
  },
  {
    name: "./react",
    source: "react",
    output: "react",
    // Frameworks that render on servers must know that hooks are for browsers.
    build: { platform: "neutral", target: LANGUAGE, banner: { js: `"use client";` } },
  },
  { name: "./server", source: "server", output: "server", build: { platform: "neutral", target: LANGUAGE } },
  {
    name: "./publisher",
    source: "publisher",
    output: "publisher",
    build: {
      platform: "node",
      target: "node20",
      // Else nobody would learn that it is missing before a connection is made.
      banner: { js: `import "redis";` },
      inject: [join(ROOT, SOURCES, "node_runtime.ts")],
      define: { "Promise.withResolvers": "withResolvers", "URL.parse": "parseUrl" },
    },
  },
];

/** What the client loads when it needs it: files beside it, and no parts by themselves. */
const LATE = ["event_stream", "requests"].map((output): Pick<Part, "source" | "output" | "build"> => ({
  source: `../../src/client/${output}`,
  output,
  build: { platform: "neutral", target: LANGUAGE, minify: true, sourcemap: true },
}));

/** Imports that stay imports of the package: of other packages, of its own client, and of what that loads late. */
const outside: esbuild.Plugin = {
  name: "outside",
  setup(build) {
    build.onResolve({ filter: /^npm:react@/ }, () => ({ path: "react", external: true, sideEffects: false }));
    build.onResolve({ filter: /^redis$/ }, () => ({ path: "redis", external: true }));
    for (const { output } of LATE) {
      build.onResolve(
        { filter: new RegExp(`^\\./${output}\\.ts$`) },
        () => ({ path: `./${output}.js`, external: true }),
      );
    }
    build.onResolve({ filter: /^\.\/client\.ts$/ }, ({ resolveDir }) => {
      return resolveDir === join(ROOT, SOURCES) ? { path: "./index.js", external: true } : undefined;
    });
  },
};

/**
 * Builds the package into a folder, which is emptied before.
 * @throws {Error} with what a tool said. The tools are fetched from npm when they are used for the first time.
 */
export async function buildPackage(folder: string): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  await Deno.mkdir(folder, { recursive: true });
  try {
    await Promise.all([
      ...[...PARTS, ...LATE].map((part) => buildPart(part, folder)),
      buildTypes(join(folder, "types")),
    ]);
  } finally {
    await esbuild.stop();
  }
  await Deno.writeTextFile(join(folder, "package.json"), JSON.stringify(packageJson(), undefined, 2) + "\n");
  await Deno.copyFile(join(ROOT, SOURCES, "README.md"), join(folder, "README.md"));
  await Deno.copyFile(join(ROOT, "LICENSE"), join(folder, "LICENSE"));
}

async function buildPart(
  { source, output, build }: Pick<Part, "source" | "output" | "build">,
  folder: string,
): Promise<void> {
  const { warnings } = await esbuild.build({
    ...build,
    entryPoints: [join(ROOT, SOURCES, `${source}.ts`)],
    outfile: join(folder, `${output}.js`),
    bundle: true,
    format: "esm",
    plugins: [outside],
    logLevel: "silent",
    legalComments: "none",
  });
  if (warnings.length > 0) throw new Error(`${source}: ${warnings.map(({ text }) => text).join("; ")}`);
}

/** What compilers know since TypeScript 5.7, and what those before it take for the same. */
const BYTES = { new: /\bUint8Array<ArrayBuffer>/g, all: "ReturnType<typeof Uint8Array.of>" };
/** The address of a module in a line of types. */
const SPECIFIER = /^(?!\s*\*)(.*(?:from|import\()\s*")(\.[^"]*)\.ts"/gm;

async function buildTypes(folder: string): Promise<void> {
  const scratch = await Deno.makeTempDir({ prefix: "userwire-types-" });
  try {
    const all = join(scratch, "all");
    await compile(scratch, {
      compilerOptions: {
        target: "esnext",
        module: "esnext",
        moduleResolution: "bundler",
        lib: ["esnext", "dom"],
        types: [],
        strict: true,
        exactOptionalPropertyTypes: true,
        allowImportingTsExtensions: true,
        declaration: true,
        emitDeclarationOnly: true,
        rootDir: ROOT,
        outDir: all,
      },
      files: PARTS.map(({ source }) => join(ROOT, SOURCES, `${source}.ts`)),
    });
    const waiting = PARTS.map(({ source }) => `${SOURCES}/${source}.d.ts`);
    const done = new Set<string>();
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      if (done.has(path)) continue;
      done.add(path);
      const text = await Deno.readTextFile(join(all, path));
      for (const [, , target] of text.matchAll(SPECIFIER)) {
        waiting.push(join(dirname(path), `${target}.d.ts`));
      }
      const isPart = path.startsWith(`${SOURCES}/`);
      // Whoever has an older library than the one that knows `using` gets what the types need of it.
      const head = isPart ? '/// <reference lib="esnext.disposable" />\n' : "";
      await Deno.mkdir(join(folder, dirname(path)), { recursive: true });
      const portable = text.replaceAll(SPECIFIER, '$1$2.js"').replaceAll(BYTES.new, BYTES.all);
      await Deno.writeTextFile(join(folder, path), head + portable);
    }
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Writes the types. That it does not know Deno, which the sources are checked for elsewhere, is no fault. */
async function compile(scratch: string, settings: unknown): Promise<void> {
  await Deno.writeTextFile(join(scratch, "tsconfig.json"), JSON.stringify(settings));
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-lock", "--no-config", COMPILER, "-p", scratch],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const isWritten = await Deno.stat(join(scratch, "all", SOURCES)).then(() => true, () => false);
  if (isWritten) return;
  const decoder = new TextDecoder();
  throw new Error(`Can't write the types:\n${decoder.decode(stdout)}${decoder.decode(stderr)}`);
}

function packageJson(): Record<string, unknown> {
  const { redis } = manifest.imports;
  return {
    name: "userwire",
    version: manifest.version,
    description: "Client, React hooks and backend calls for Userwire, which pushes messages to named users",
    license: manifest.license,
    type: "module",
    sideEffects: false,
    engines: { node: ">=20.9" },
    exports: {
      ...Object.fromEntries(PARTS.map(({ name, source, output }) => [
        name,
        { types: `./types/${SOURCES}/${source}.d.ts`, default: `./${output}.js` },
      ])),
      "./package.json": "./package.json",
    },
    // For tools that read no "exports".
    main: "./index.js",
    types: `./types/${SOURCES}/client.d.ts`,
    peerDependencies: { react: ">=18", redis: redis.replace(/^npm:redis@/, "") },
    peerDependenciesMeta: { react: { optional: true }, redis: { optional: true } },
    keywords: ["websocket", "push", "realtime", "redis", "react"],
  };
}

/**
 * Packs the folder.
 * @returns Path of the tarball, beside it.
 * @throws {Error} when npm is not here, or fails.
 */
export async function pack(folder: string): Promise<string> {
  const target = dirname(folder);
  const { success, stderr } = await new Deno.Command("npm", {
    args: ["pack", "--json", "--pack-destination", target],
    cwd: folder,
    stdin: "null",
  }).output().catch((cause) => {
    throw new Error("Can't pack the tarball: npm is missing, install Node.js", { cause });
  });
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Can't pack the tarball: ${decoder.decode(stderr)}`);
  return join(target, `userwire-${manifest.version}.tgz`);
}

if (import.meta.main) {
  const { values } = parseArgs({ args: Deno.args, options: { output: { type: "string" } } });
  const folder = resolve(values.output ?? join(ROOT, "dist", "npm"));
  await buildPackage(folder);
  console.log(`${folder}\n${await pack(folder)}`);
}
