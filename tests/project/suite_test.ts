/**
 * The commands that run the tests, with tiny tests of their own: what `deno task test:again` says of tests that fail, and
 * that nothing is left of a run that failed, was cut off, or leaves things behind.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { basename } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { writeBatches } from "../../testkit/batches.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { type PortRange, rangeBeside } from "../../testkit/own_port.ts";
import { findRedisServer } from "../../testkit/programs.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SUPPORT = new URL("../../testkit/", import.meta.url);

/** One of the commands, run on files of a folder. */
class Command implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #outputs: [Promise<void>, Promise<void>];
  output = "";

  constructor(script: "suite.ts" | "again.ts", args: readonly string[], folder: TempFolder) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        fileURLToPath(new URL(`../${script}`, import.meta.url)),
        ...args,
        "--no-check",
        folder.path,
      ],
      // What it makes is to be looked for there.
      env: { TMPDIR: folder.path, NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#outputs = [this.#read(this.#child.stdout), this.#read(this.#child.stderr)];
  }

  get pid(): number {
    return this.#child.pid;
  }

  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Resolves with its exit code, when nobody has its output any more. */
  async ended(): Promise<number> {
    const end = Promise.all([this.#child.status, ...this.#outputs]);
    const [{ code }] = await withDeadline(
      end,
      60_000,
      "the command and its children to end",
      () => this.output,
    );
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      // It ends what it has started.
      this.signal("SIGINT");
    } catch {
      // It had ended by itself.
    }
    await this.ended();
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) this.output += text;
  }
}

/** A test that starts a Redis and services; what it does then is up to the caller. */
function testOfProcesses(rest: string): string {
  return `
    import { ProcessService } from "${SUPPORT}process_service.ts";
    import { RedisServer } from "${SUPPORT}redis_server.ts";
    import { Service } from "${SUPPORT}service.ts";
    import { TempFolder } from "${SUPPORT}temp_folder.ts";
    Deno.test("starts processes", async () => {
      using _folder = new TempFolder("left");
      await using redis = await RedisServer.start();
      await using _here = await Service.start({ REDIS_URL: redis.url });
      await using _there = await ProcessService.start({ REDIS_URL: redis.url }, { through: "task" });
      ${rest}
    });`;
}

/** Numbers of the processes that have the folder in their environment, without the command itself. */
async function processesOf(folder: TempFolder, command: Command): Promise<number[]> {
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => name).filter((name) => /^\d+$/.test(name));
  const { stdout } = await new Deno.Command("grep", {
    args: ["-sl", "--text", folder.path, ...pids.map((pid) => `/proc/${pid}/environ`)],
  }).output();
  return [...new TextDecoder().decode(stdout).matchAll(/\d+/g)].map(Number)
    .filter((pid) => pid !== command.pid);
}

async function assertNothingLeft(folder: TempFolder, command: Command): Promise<void> {
  assertEquals(await processesOf(folder, command), []);
  assertEquals(Array.from(Deno.readDirSync(folder.path), ({ name }) => name), ["x_test.ts"]);
}

Deno.test("The command that repeats the tests says which failed how often, and passes on what follows the number", async () => {
  using folder = new TempFolder("again");
  await Deno.writeTextFile(
    `${folder}/x_test.ts`,
    `
    const order = (text) => Deno.writeTextFileSync(${
      JSON.stringify(`${folder}/order`)
    }, text, { append: true });
    for (const name of "abcdefgh") Deno.test(name, () => order(name));
    Deno.test("fails always: <&>", async (t) => {
      order("\\n");
      await t.step("in a step", () => { throw new Error("the cause of it"); });
    });
    Deno.test("fails at the second time", () => {
      const file = ${JSON.stringify(`${folder}/count`)};
      Deno.writeTextFileSync(file, ".", { append: true });
      if (Deno.readTextFileSync(file) === "..") throw new Error("the second time");
    });
    Deno.test({ name: "is skipped", ignore: true, fn() {} });`,
  );
  await using command = new Command("again.ts", ["3", "--shuffle=2"], folder);
  assertEquals(await command.ended(), 1);
  const { output } = command;
  assertMatch(output, /^Run 1 of 3: 9 passed, 2 failed, 1 skipped in \d+ s$/m);
  assertMatch(output, /^Run 2 of 3: 8 passed, 3 failed, 1 skipped in \d+ s$/m);
  assertMatch(output, /^\| 2 \| \d+ \| 8 \| 3 \| 1 \|$/m);
  assertMatch(output, /^\| 3 of 3 \| fails always: <&> \|\n\| 3 of 3 \| fails always: <&> > in a step \|$/m);
  assertMatch(output, /^\| 1 of 3 \| fails at the second time \|$/m);
  assertMatch(output, /^\| \d+\.\d \| .*x_test\.ts \|$/m);
  assertMatch(output, /the cause of it/);
  const order = (await Deno.readTextFile(`${folder}/order`)).replaceAll("\n", "");
  assertEquals(order.length, 24);
  assert(!order.startsWith("abcdefgh"), "it shuffles");
  assertEquals(order.slice(0, 8), order.slice(8, 16), "by the number that was given");
});

Deno.test("The command that repeats the tests tells a run that passed from one that ran no test", async () => {
  using folder = new TempFolder("again");
  await Deno.writeTextFile(`${folder}/x_test.ts`, `Deno.test("passes", () => {});`);
  {
    await using command = new Command("again.ts", ["2"], folder);
    assertEquals(await command.ended(), 0);
    assertMatch(command.output, /^All 2 runs passed$/m);
  }
  await Deno.writeTextFile(`${folder}/x_test.ts`, "throw new Error('can not be loaded')");
  await using command = new Command("again.ts", ["1"], folder);
  assertEquals(await command.ended(), 1);
  assertMatch(command.output, /^No single test failed$/m);
  assertMatch(command.output, /can not be loaded/);
});

/** Linux says what processes there are. */
const ignore = Deno.build.os !== "linux" || findRedisServer() === undefined;

Deno.test({
  name: "Of a test that fails no process and no folder is left",
  ignore,
  async fn() {
    using folder = new TempFolder("fails");
    await Deno.writeTextFile(`${folder}/x_test.ts`, testOfProcesses(`throw new Error("fails");`));
    await using command = new Command("suite.ts", [], folder);
    assertEquals(await command.ended(), 1);
    assertMatch(command.output, /error: Error: fails/);
    // Each test clears up for itself: nothing is left for the command to do.
    assert(!command.output.includes("left behind"), command.output);
    await assertNothingLeft(folder, command);
  },
});

const CUT_OFF = [["suite.ts", [], "SIGINT", 130], ["again.ts", ["3"], "SIGTERM", 1]] as const;
for (const [script, args, signal, code] of CUT_OFF) {
  Deno.test({
    name: `Of tests that ${signal} cuts off no process and no folder is left: ${script}`,
    ignore,
    async fn() {
      using folder = new TempFolder("cut");
      const ready = `${folder}/ready`;
      await Deno.writeTextFile(
        `${folder}/x_test.ts`,
        testOfProcesses(`
          Deno.writeTextFileSync(${JSON.stringify(ready)}, "");
          await new Promise((resolve) => setTimeout(resolve, 600_000));`),
      );
      await using command = new Command(script, args, folder);
      const isReady = () => Deno.stat(ready).then(() => true, () => false);
      await until(isReady, "the tests to be under way", 60_000, () => command.output);
      await Deno.remove(ready);
      const count = (await processesOf(folder, command)).length;
      assert(count >= 3, `the tests, a Redis and a service are there: ${count}`);
      command.signal(signal);
      assertEquals(await command.ended(), code);
      assert(!command.output.includes("Run 2"), command.output);
      await assertNothingLeft(folder, command);
    },
  });
}

Deno.test({
  name: "Tests that pass and leave a process or a folder behind fail the run, which says what it was",
  ignore,
  async fn() {
    using folder = new TempFolder("leaves");
    await Deno.writeTextFile(
      `${folder}/x_test.ts`,
      `
      Deno.test({ name: "leaves", sanitizeResources: false, sanitizeOps: false, fn() {
        Deno.makeTempDirSync({ prefix: "userwire-forgotten-" });
        new Deno.Command("sleep", { args: ["600"] }).spawn().unref();
      }});`,
    );
    await using command = new Command("suite.ts", [], folder);
    assertEquals(await command.ended(), 1);
    assertMatch(command.output, /1 passed/);
    assertMatch(
      command.output,
      /^The tests left behind processes: \S*sleep 600 \(\d+\); and in the temporary folder: userwire-forgotten-\w+$/m,
    );
    await assertNothingLeft(folder, command);
  },
});

Deno.test("A run of all tests has each file once: the long ones by themselves and first, others put together", async () => {
  using folder = new TempFolder("batches of tests");
  const names = Array.from({ length: 20 }, (_, i) => `${i % 2 === 0 ? "room/" : ""}t${i}_test.ts`);
  for (const name of ["tests/room", "batches"]) await Deno.mkdir(`${folder}/${name}`, { recursive: true });
  for (const name of [...names, "no_tests.ts"]) await Deno.writeTextFile(`${folder}/tests/${name}`, "");
  const tests = pathToFileURL(`${folder}/tests/`);
  const long = ["t3_test.ts", "room/t0_test.ts"];
  const plan = await writeBatches(tests, long, `${folder}/batches`);
  assertEquals(plan.slice(0, 2), long.map((name) => `${folder}/tests/${name}`));
  const batches = [];
  for (const path of plan.slice(2)) {
    batches.push([...(await Deno.readTextFile(path)).matchAll(/"file:.*\/(.*)"/g)].map(([, name]) => name!));
  }
  assertEquals(batches.map(({ length }) => length), [6, 6, 6]);
  assertEquals(
    [...long.map((name) => basename(name)), ...batches.flat()].sort(),
    names.map((name) => basename(name)).sort(),
  );
  await assertRejects(
    () => writeBatches(tests, ["gone_test.ts"], `${folder}/batches`),
    Error,
    "gone_test.ts",
  );
});

Deno.test("The project may lie in a folder whose name has a space: no path is the path of a URL, which has %20", async () => {
  const found: string[] = [];
  const folders = ["src", "tests", "testkit", "deploy", "bench", "conformance"].map((name) =>
    `${ROOT}${name}`
  );
  for (const folder of folders) {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      const path = `${folder}/${name}`;
      if (isDirectory) folders.push(path);
      else if (name.endsWith(".ts") && /import\.meta\.url\)\.pathname/.test(await Deno.readTextFile(path))) {
        found.push(path);
      }
    }
  }
  assertEquals(found, []);
});

Deno.test("A test's own port is none that the kernel hands out, wherever its range lies", () => {
  const cases: [handedOut: PortRange, own: PortRange][] = [
    [{ first: 32_768, last: 60_999 }, { first: 20_000, last: 29_999 }],
    [{ first: 16_000, last: 65_535 }, { first: 1_024, last: 15_999 }],
    [{ first: 1_024, last: 40_000 }, { first: 40_001, last: 65_535 }],
    // There is none beside it.
    [{ first: 1_024, last: 65_535 }, { first: 20_000, last: 29_999 }],
  ];
  for (const [handedOut, own] of cases) assertEquals(rangeBeside(handedOut), own);
});
