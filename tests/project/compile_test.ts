/**
 * `deno task compile`, as far as it can be tested without denort: with the ordinary deno as the base, the binary
 * holds what it should, but does not run. What Deno put into it is read back from the file. That the program works
 * with these permissions and outside of the project is shown by `bundle_test.ts`.
 */
import { assert, assertEquals, assertGreater, assertMatch, assertNotMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import manifest from "../../deno.json" with { type: "json" };
import { PERMISSIONS, V8_FLAGS } from "../../src/processes/rights.ts";
import { assets } from "../../src/web/assets.ts";
import { withDeadline } from "../../testkit/deadline.ts";

const ROOT = new URL("../../", import.meta.url);
/** As the task has it. */
const COMPILE = ["run", "-A", "deploy/compile.ts"];
/** This machine but for the processor: the base fits, and nobody expects the binary to run here. */
const OTHER_TARGET = Deno.build.target.replace(
  /^[^-]+/,
  Deno.build.arch === "x86_64" ? "aarch64" : "x86_64",
);
const COMPILE_MS = 120_000;
/** Where every address leads nowhere. */
const NO_NETWORK = {
  ALL_PROXY: "http://127.0.0.1:1",
  HTTP_PROXY: "http://127.0.0.1:1",
  HTTPS_PROXY: "http://127.0.0.1:1",
  NO_PROXY: "",
};

async function deno(args: readonly string[], env: Record<string, string> = {}) {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
  });
  const { code, stdout, stderr } = await withDeadline(command.output(), COMPILE_MS, `deno ${args.join(" ")}`);
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Runs the test with an empty folder that is gone afterwards. */
async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "userwire-compile-" });
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("Binary holds the program, its page and its permissions, and nothing of the tests", async (t) => {
  await inFolder(async (folder) => {
    const output = `${folder}/made/here/userwire`;
    const { code, stdout, stderr } = await deno(
      [...COMPILE, "--target", OTHER_TARGET, "--output", output],
      { DENORT_BIN: Deno.execPath() },
    );
    assertEquals({ code, stderr }, { code: 0, stderr: "" });
    assertEquals(stdout, `${output}: userwire ${manifest.version} for ${OTHER_TARGET}\n`);
    assertEquals(Array.from(Deno.readDirSync(`${folder}/made/here`), ({ name }) => name), ["userwire"]);
    const { metadata, files, packages } = await readBinary(output);

    await t.step("starts main.ts with the arguments it is given and no others", () => {
      assertEquals(metadata.entrypoint_key, "main.ts");
      assertEquals(metadata.argv, []);
      assertEquals(metadata.preload_modules, []);
      assertEquals(metadata.env_vars_from_env_file, {});
      assertEquals(metadata.app_name, "userwire");
      assertEquals(metadata.app_version, manifest.version);
    });

    await t.step(
      "may use network, environment and files, and may not run programs or import from afar",
      () => {
        // Null stands for "no", and an empty list for "everything".
        const { allow_import: _refusedBelow, ...permissions } = metadata.permissions as Record<
          string,
          unknown
        >;
        assertEquals(Object.fromEntries(Object.entries(permissions).filter(([, value]) => value !== null)), {
          allow_net: [],
          allow_env: [],
          allow_read: [],
          allow_write: [],
          allow_sys: ["hostname"],
          deny_import: [],
          prompt: false,
        });
      },
    );

    await t.step("has the unstable features that deno.json asks for", () => {
      assertEquals((metadata.unstable_config as { features: string[] }).features, manifest.unstable);
    });

    await t.step("holds every file of the page as it is", () => {
      assertGreater(assets.size, 1);
      for (const [path, { body }] of assets) {
        if (path === "/page.css") continue; // made of its chapters
        const name = `src/web${path === "/" ? "/index.html" : path}`;
        assertEquals(files.get(name), body, name);
      }
      const chapters = [...files].filter(([path]) => path.startsWith("src/web/css/"));
      assertGreater(chapters.length, 1);
      for (const [path, text] of chapters) assert(assets.get("/page.css")!.body.includes(text), path);
    });

    await t.step("holds sources of the program only", () => {
      const outside = [...files.keys()].filter((path) =>
        !/^(?:main\.ts|deno\.json|src\/.+|links\/.+)$/.test(path)
      );
      assertEquals(outside, []);
      assertEquals([...files.keys()].filter((path) => path.includes("_test.")), []);
      assert(files.has("main.ts") && files.has("src/server/server.ts"));
    });

    await t.step("holds the packages that the program imports, and none that only the tests do", async () => {
      for (const name of ["@hono/zod-openapi", "@redis/client", "commander", "hono", "redis", "zod"]) {
        assert(packages.has(name), name);
      }
      const lock = await Deno.readTextFile(new URL("tests/deno.lock", ROOT));
      for (const name of ["fast-check", "playwright-core"]) {
        assert(lock.includes(`npm:${name}@`), `${name} is no package of the tests any more`);
        assertEquals(packages.has(name), false, name);
      }
      assertEquals(packages.has("deno-std"), false);
    });
  });
});

Deno.test("Binary may do what deno task start may do, with the same V8 flags, and no more", () => {
  const flags = (text: readonly string[]) => text.filter((word) => /^--(allow|v8)/.test(word)).sort();
  assertEquals(flags([...PERMISSIONS, V8_FLAGS]), flags(manifest.tasks.start.command.split(" ")));
});

// ---------------------------------------------------------------------------------------------------------
// The task

/** Runs the task's script in a folder that holds an earlier binary, and sees that only that is left there. */
async function failToCompile(
  args: string[],
  env: Record<string, string>,
): Promise<{ code: number; said: string }> {
  let result;
  await inFolder(async (folder) => {
    const output = `${folder}/userwire`;
    await Deno.writeTextFile(output, "an earlier binary");
    const { code, stdout, stderr } = await deno(
      [...COMPILE, "--output", output, ...args],
      env,
    );
    assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["userwire"]);
    assertEquals(await Deno.readTextFile(output), "an earlier binary");
    assertEquals(stdout, "");
    assertNotMatch(stderr, /^ +at |backtrace/im);
    assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
    result = { code, said: stderr };
  });
  return result!;
}

Deno.test("compile says in one sentence what is missing where denort can't be downloaded", async () => {
  await inFolder(async (denoDir) => {
    // The caches of this machine, except the one that may hold denort.
    const { stdout } = await deno(["info", "--json"]);
    const real = JSON.parse(stdout).denoDir;
    for await (const { name } of Deno.readDir(real)) {
      // SQLite finds the files beside a database by itself.
      if (name !== "dl" && !/-(?:wal|shm)$/.test(name)) {
        await Deno.symlink(`${real}/${name}`, `${denoDir}/${name}`);
      }
    }
    const { code, said } = await failToCompile([], { ...NO_NETWORK, DENO_DIR: denoDir, DENORT_BIN: "" });
    assertEquals(code, 1);
    const { deno: version } = Deno.version;
    assertMatch(
      said,
      new RegExp(
        `^error: Can't get denort ${version} for ${Deno.build.target}, .*\\(.+\\): set DENORT_BIN to `,
      ),
    );
    assert(
      said.includes(`put denort-${Deno.build.target}.zip into ${denoDir}/dl/release/v${version}\n`),
      said,
    );
  });
});

Deno.test("compile says in one sentence that DENORT_BIN leads nowhere", async () => {
  const { code, said } = await failToCompile([], { DENORT_BIN: "/nowhere/denort" });
  assertEquals(code, 1);
  assertMatch(said, /^error: DENORT_BIN "\/nowhere\/denort" can't be used \(No such file.*\): set it to /);
});

Deno.test("compile does not hand over a binary that is no userwire, as with deno for denort", async () => {
  const { code, said } = await failToCompile([], { DENORT_BIN: Deno.execPath() });
  assertEquals(code, 1);
  assertMatch(
    said,
    /^error: The binary is not userwire, it says "deno \d.*: set DENORT_BIN to the path of denort/,
  );
});

Deno.test("compile refuses an argument it does not know with exit code 2", async () => {
  const { code, said } = await failToCompile(["--taget", "x"], {});
  assertEquals(code, 2);
  assertMatch(said, /^error: .*--taget/);
});

// ---------------------------------------------------------------------------------------------------------
// Reading a binary

interface Binary {
  readonly metadata: Record<string, unknown>;
  /** Text of every embedded file that belongs to no package, by its path in the project. */
  readonly files: ReadonlyMap<string, string>;
  /** Names of the embedded packages. */
  readonly packages: ReadonlySet<string>;
}

const MARK = "d3n0l4nd";

/** One entry of the embedded tree. Names and shapes are Deno's. */
type Entry = { Dir: { n: string; e: Entry[] } } | {
  File: { n: string; o: [offset: number, length: number] };
};

/**
 * Reads what `deno compile` put behind the base: a mark, then sections with their lengths before them as 64-bit
 * numbers: metadata as JSON, a snapshot of the packages, …, the tree of files as JSON, the contents of the files.
 */
async function readBinary(path: string): Promise<Binary> {
  const bytes = Buffer.from((await Deno.readFile(path)).buffer);
  const section = (at: number) => {
    const end = at + 8 + Number(bytes.readBigUInt64LE(at));
    return { json: () => JSON.parse(bytes.toString("utf8", at + 8, end)), end };
  };

  // The mark is a constant in the code of the base too: this one JSON follows.
  let mark = bytes.indexOf(MARK);
  while (mark >= 0 && bytes[mark + 16] !== "{".charCodeAt(0)) mark = bytes.indexOf(MARK, mark + 1);
  assertGreater(mark, 0, "the binary holds no program");
  const metadata = section(mark + MARK.length);
  const treeAt = bytes.indexOf('[{"Dir":{"n":', section(metadata.end).end);
  assertGreater(treeAt, 0, "the binary holds no files");
  const tree = section(treeAt - 8);
  const contentsAt = tree.end + 8;

  const files = new Map<string, string>();
  const packages = new Set<string>();
  (function walk(entries: Entry[], folder: string) {
    for (const entry of entries) {
      if ("Dir" in entry) {
        walk(entry.Dir.e, `${folder}${entry.Dir.n}/`);
      } else if ("File" in entry) {
        const { n: name, o: [offset, length] } = entry.File;
        // …/<registry>/[@scope/]<package>/<version>/…
        const npm = /^\.deno_compile_node_modules\/[^/]+\/((?:@[^/]+\/)?[^/]+)\//.exec(folder);
        const start = contentsAt + offset;
        if (npm) packages.add(npm[1]!);
        else files.set(folder + name, bytes.toString("utf8", start, start + length));
      }
    }
  })(tree.json(), "");
  return { metadata: metadata.json(), files, packages };
}
