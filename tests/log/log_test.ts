/**
 * The log: levels, lines, rotation, flushing, and trouble with the disk. Files are real; what reaches the console is
 * read from a child process, whose streams can be told apart.
 */
import {
  assert,
  assertEquals,
  assertExists,
  assertGreater,
  assertLessOrEqual,
  assertMatch,
  assertObjectMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { ConfigError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { type LogOptions, openLog } from "../../src/log/open.ts";
import { Terminal } from "../../src/log/console.ts";
import { formatPretty, isoTime } from "../../src/log/format.ts";
import { stretched, until } from "../../testkit/deadline.ts";

const ROOT = new URL("../../", import.meta.url);

/** Long enough that no timer writes anything while a test runs. */
const NEVER_MS = 1_000_000;

class Folder implements Disposable {
  readonly path = Deno.makeTempDirSync({ prefix: "userwire_log_" });

  options(options: Partial<LogOptions> = {}): LogOptions {
    return {
      level: "debug",
      dir: this.path,
      name: "app",
      format: "pretty",
      console: false,
      flushMs: NEVER_MS,
      ...options,
    };
  }

  lines(file = "app.log"): Record<string, unknown>[] {
    const text = Deno.readTextFileSync(`${this.path}/${file}`);
    assert(text === "" || text.endsWith("\n"), "the file ends in the middle of a line");
    return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  }

  events(file?: string): unknown[] {
    return this.lines(file).map((line) => line.event);
  }

  files(): string[] {
    return [...Deno.readDirSync(this.path)].map((entry) => entry.name).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/**
 * Runs a program that finds `openLog` and `dir` in its scope.
 * @param options.console Path that standard output and error go to, instead of being read.
 */
async function run(
  dir: string,
  program: string,
  options: { console?: string } = {},
): Promise<{ code: number; out: string[]; err: string[] }> {
  const redirection = options.console === undefined ? "" : `>${options.console} 2>&1`;
  const child = new Deno.Command("sh", {
    args: [
      ...["-c", `exec "$0" "$@" ${redirection}`],
      ...[Deno.execPath(), "run", "-A", "--no-lock", "--cached-only", "-"],
    ],
    cwd: ROOT,
    env: { NO_COLOR: "" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const kill = setTimeout(() => child.kill("SIGKILL"), stretched(60_000));
  const output = child.output().finally(() => clearTimeout(kill));
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(
    `import { openLog } from "./src/log/open.ts"; const dir = ${JSON.stringify(dir)};\n${program}`,
  ));
  await writer.close();
  const { code, stdout, stderr } = await output;
  const lines = (bytes: Uint8Array) => new TextDecoder().decode(bytes).split("\n").slice(0, -1);
  return { code, out: lines(stdout), err: lines(stderr) };
}

Deno.test("Log drops events below its level", () => {
  using folder = new Folder();
  for (const level of ["debug", "info", "warn", "error"] as const) {
    const log = openLog(folder.options({ level, name: level }));
    assertEquals(log.level, level);
    log.debug("a");
    log.info("b");
    log.warn("c");
    log.error("d");
    log.close();
  }
  assertEquals(folder.events("debug.log"), ["a", "b", "c", "d"]);
  assertEquals(folder.events("info.log"), ["b", "c", "d"]);
  assertEquals(folder.events("warn.log"), ["c", "d"]);
  assertEquals(folder.events("error.log"), ["d"]);
  assertEquals(folder.lines("debug.log").map((line) => line.level), ["debug", "info", "warn", "error"]);
});

Deno.test("Log writes lines of JSON that parse back to what was logged", () => {
  using folder = new Folder();
  const before = Date.now();
  const log = openLog(folder.options());
  log.info("connection opened", { user: "jürgen 😀", bytes: 12, open: true, none: null, left: undefined });
  log.info("no fields");
  log.info("odd names", JSON.parse('{"time": 1, "level": 2, "event": 3, "__proto__": 4, "": 5}'));
  log.close();

  const [opened, bare, odd] = folder.lines();
  assertExists(opened);
  const { time, ...rest } = opened;
  assertEquals(rest, {
    level: "info",
    event: "connection opened",
    user: "jürgen 😀",
    bytes: 12,
    open: true,
    none: null,
  });
  assertEquals(new Date(time as string).toISOString(), time);
  assertGreater(Date.parse(time as string), before - 1);
  assertLessOrEqual(Date.parse(time as string), Date.now());
  assertEquals(Object.keys(bare ?? {}), ["time", "level", "event"]);
  assertObjectMatch(odd ?? {}, { level: "info", event: "odd names", time_: 1, level_: 2, event_: 3, "": 5 });
  assertEquals(Object.entries(odd ?? {}).find(([name]) => name === "__proto__"), ["__proto__", 4]);
});

Deno.test("Log writes errors with their cause, and anything else as far as it can be read", () => {
  using folder = new Folder();
  const cycle: Record<string, unknown> = { name: "cycle" };
  cycle.self = cycle;
  const caused = new TypeError("outer", { cause: new RangeError("inner") });
  const looped = new Error("looped");
  looped.cause = looped;
  const many = new AggregateError([new Error("first"), new Error("second")]);
  const broken = Object.defineProperty(new Error("x"), "message", {
    get() {
      throw new Error("no message for you");
    },
  });
  const hostile = new Proxy({}, {
    get() {
      throw new Error("no");
    },
    getPrototypeOf() {
      throw new Error("no");
    },
    ownKeys() {
      throw new Error("no");
    },
  });
  const fields = {
    cycle,
    caused,
    looped,
    many,
    broken,
    hostile,
    get thrower(): string {
      throw new Error("no field for you");
    },
    big: 10n ** 20n,
    symbol: Symbol("s"),
    fn: () => 1,
    nan: NaN,
    infinite: -Infinity,
    date: new Date(0),
    map: new Map([["k", 1]]),
    long: "x".repeat(100_000),
    last: "here",
  };
  const log = openLog(folder.options());
  log.error("everything", fields);
  log.close();

  const [line] = folder.lines();
  assertExists(line);
  assertEquals(Object.keys(line).slice(3), Object.keys(fields));
  assertObjectMatch(line, {
    caused: { name: "TypeError", message: "TypeError: outer (caused by RangeError: inner)" },
    many: { name: "AggregateError", message: "AggregateError (caused by Error: first; Error: second)" },
    thrower: "[unreadable]",
    broken: "[unreadable]",
    big: "100000000000000000000",
    symbol: "Symbol(s)",
    nan: "NaN",
    infinite: "-Infinity",
    date: "1970-01-01T00:00:00.000Z",
    last: "here",
  });
  assertStringIncludes((line.caused as { stack: string }).stack, "log_test.ts");
  assertStringIncludes(line.cycle as string, "Circular");
  assertStringIncludes(line.map as string, '"k" => 1');
  assertStringIncludes((line.looped as { message: string }).message, "looped");
  assertEquals(line.long, "x".repeat(4096) + "…");
  const pretty = formatPretty({
    time: new Date(0).toISOString(),
    level: "error",
    event: "everything",
    fields,
  });
  assertStringIncludes(pretty, ' caused="TypeError: outer (caused by RangeError: inner)"');
  assert(!pretty.includes("\n"));
});

Deno.test("Log rotates by size, keeps at most maxFiles files, and loses lines only with the files it deletes", () => {
  using folder = new Folder();
  const maxBytes = 1000;
  let number = 0;
  // Opened three times, so that the size of the file that is there counts too.
  for (const count of [120, 1, 80]) {
    const log = openLog(folder.options({ maxBytes, maxFiles: 3 }));
    for (let i = 0; i < count; i++) log.info("line", { number: number++, pad: "é".repeat(number % 50) });
    log.close();
  }
  assertEquals(folder.files(), ["app.log", "app.log.1", "app.log.2"]);
  const kept = ["app.log.2", "app.log.1", "app.log"].flatMap((file) => {
    const lines = folder.lines(file);
    assertLessOrEqual(Deno.statSync(`${folder.path}/${file}`).size, maxBytes);
    return lines.map((line) => line.number as number);
  });
  assertGreater(kept.length, 10);
  assertEquals(
    kept,
    Array.from(kept, (_, i) => number - kept.length + i),
    "no line is missing, twice or moved",
  );
});

Deno.test("Log loses no line over many rotations when no file has to go", () => {
  using folder = new Folder();
  const log = openLog(folder.options({ maxBytes: 500, maxFiles: 200 }));
  for (let number = 0; number < 300; number++) {
    if (number % 7 === 0) log.warn("line", { number });
    else log.info("line", { number });
    if (number % 11 === 0) log.flush();
  }
  log.close();
  const files = folder.files().sort((a, b) => backup(b) - backup(a));
  assertGreater(files.length, 30);
  assertEquals(files.flatMap((file) => folder.lines(file)).map((line) => line.number), [
    ...Array(300).keys(),
  ]);

  function backup(file: string): number {
    return Number(file.split(".log.")[1] ?? 0);
  }
});

Deno.test("Log keeps a line that is bigger than a file may be", () => {
  using folder = new Folder();
  const log = openLog(folder.options({ maxBytes: 200, maxFiles: 4 }));
  log.info("small");
  log.info("big", { text: "x".repeat(1000) });
  log.info("small again");
  log.close();
  assertEquals(folder.files(), ["app.log", "app.log.1", "app.log.2"]);
  assertEquals(["app.log.2", "app.log.1", "app.log"].flatMap((file) => folder.events(file)), [
    "small",
    "big",
    "small again",
  ]);
});

Deno.test("Log that rotates daily begins a file at midnight, names the old one after its day, and keeps so many", () => {
  using folder = new Folder();
  const RealDate = Date;
  let now = "2026-11-26T23:59:59.999Z";
  // The file system's clock is the real one, so the files' times are set by hand.
  const dayEnds = () => Deno.utimeSync(`${folder.path}/day.log`, new RealDate(now), new RealDate(now));
  globalThis.Date = class extends RealDate {
    constructor(time?: number) {
      super(time ?? now);
    }
    static override now() {
      return RealDate.parse(now);
    }
  } as DateConstructor;
  try {
    const log = openLog(folder.options({ name: "day", rotate: "daily", maxFiles: 3 }));
    log.info("late");
    now = "2026-11-27T00:00:00.000Z";
    log.info("early");
    log.info("same day");
    log.flush();
    assertEquals(folder.events("day.2026-11-26.log"), ["late"]);
    assertEquals(folder.events("day.log"), ["early", "same day"]);
    log.close();
    dayEnds();
    // What was not there at midnight puts the old file away when it starts; a name that is taken stays as it is.
    Deno.writeTextFileSync(`${folder.path}/day.2026-11-27.log`, "");
    Deno.writeTextFileSync(`${folder.path}/day-other.2026-11-01.log`, "");
    now = "2026-11-30T12:00:00.000Z";
    const later = openLog(folder.options({ name: "day", rotate: "daily", maxFiles: 3 }));
    later.info("noon");
    later.close();
    assertEquals(folder.events("day.2026-11-27.2.log"), ["early", "same day"]);
    assertEquals(folder.events("day.log"), ["noon"]);
    assertEquals(folder.files(), [
      "day-other.2026-11-01.log",
      "day.2026-11-27.2.log",
      "day.2026-11-27.log",
      "day.log",
    ]);
  } finally {
    globalThis.Date = RealDate;
  }
});

Deno.test("Log gathers events and writes them by its timer, without being asked", async () => {
  using folder = new Folder();
  const log = openLog(folder.options({ flushMs: 20 }));
  log.info("first");
  assertEquals(folder.events(), [], "an info line waits");
  await until(() => folder.events().length === 1, "the timer to write one line");
  log.debug("second");
  await until(() => folder.events().length === 2, "the timer to write a second line");
  log.close();
});

Deno.test("Log writes when it is told to", () => {
  using folder = new Folder();
  const log = openLog(folder.options());
  log.info("first");
  log.flush();
  assertEquals(folder.events(), ["first"]);
  log.close();
});

Deno.test("Log writes warnings and errors at once, with what came before them", () => {
  using folder = new Folder();
  const log = openLog(folder.options());
  log.info("a");
  log.warn("b");
  assertEquals(folder.events(), ["a", "b"]);
  log.debug("c");
  log.error("d");
  assertEquals(folder.events(), ["a", "b", "c", "d"]);
  log.close();
});

Deno.test("Log leaves the rest of a storm of warnings to its timer", async () => {
  using folder = new Folder();
  const log = openLog(folder.options({ flushMs: 50 }));
  for (let i = 0; i < 1000; i++) log.warn("storm", { i });
  const atOnce = folder.lines().length;
  assertGreater(atOnce, 0);
  assertLessOrEqual(atOnce, 900, "each warning waited for the disk");
  await until(() => folder.lines().length === 1000, "the timer to write the rest");
  log.warn("calm again");
  assertEquals(folder.events().at(-1), "calm again");
  log.close();
});

Deno.test("Log writes what it holds when it is closed, and can be closed and used afterwards", () => {
  using folder = new Folder();
  const log = openLog(folder.options());
  log.info("last words");
  log.close();
  assertEquals(folder.events(), ["last words"]);
  log.close();
  log.error("too late");
  log.flush();
  assertEquals(folder.events(), ["last words"]);
});

Deno.test("Log that is closed has no more to do with its file, whatever happened to it before", async () => {
  using folder = new Folder();
  const { code, err } = await run(
    `${folder.path}/logs`,
    `
    const log = openLog({ level: "info", dir, name: "app", format: "json", console: false, flushMs: 5 });
    const healthy = openLog({ level: "info", dir, name: "b", format: "json", console: false, flushMs: 5 });
    healthy.close();
    Deno.removeSync(dir, { recursive: true });
    Deno.writeTextFileSync(dir, "in the way");
    log.error("kept nowhere");
    log.close();
    Deno.removeSync(dir);
    for (const late of [healthy, log]) {
      for (let i = 0; i < 2000; i++) late.error("too late", { pad: "x".repeat(100) });
      late.flush();
    }
    log.close();
  `,
  );
  assertEquals(code, 0, err.join("\n"));
  assertEquals(err.map((line) => JSON.parse(line).event), ["log file can't be written"]);
  assertEquals(folder.files(), []);
});

Deno.test("Log of a process that ends without closing it is whole, and does not keep the process alive", async () => {
  using folder = new Folder();
  const ended = await run(
    folder.path,
    `openLog({ level: "info", dir, name: "app", format: "pretty", flushMs: ${NEVER_MS} }).info("the end");`,
  );
  assertEquals(ended.code, 0);
  assertEquals(folder.events(), ["the end"]);
  const exited = await run(
    folder.path,
    `openLog({ level: "info", dir, name: "app", format: "pretty", flushMs: ${NEVER_MS} }).info("exit"); Deno.exit(7);`,
  );
  assertEquals(exited.code, 7);
  assertEquals(folder.events(), ["the end", "exit"]);
});

Deno.test("openLog makes the folder when it is missing", () => {
  using folder = new Folder();
  const dir = `${folder.path}/a/b`;
  const log = openLog(folder.options({ dir }));
  log.info("here");
  log.close();
  assertEquals(folder.events("a/b/app.log"), ["here"]);
});

Deno.test("openLog says what to do when the folder or the file can't be written", () => {
  using folder = new Folder();
  Deno.writeTextFileSync(`${folder.path}/file`, "");
  const below = assertThrows(() => openLog(folder.options({ dir: `${folder.path}/file/logs` })), ConfigError);
  assertEquals(below.faults.length, 1);
  assertStringIncludes(below.message, `"${folder.path}/file/logs"`);
  assertStringIncludes(below.message, "set LOG_DIR");
  Deno.mkdirSync(`${folder.path}/app.log`);
  const taken = assertThrows(() => openLog(folder.options()), ConfigError);
  assertStringIncludes(taken.message, "set LOG_DIR");
});

Deno.test("openLog lists every option that makes no sense", () => {
  using folder = new Folder();
  const error = assertThrows(
    () => openLog(folder.options({ name: "../up", maxBytes: 0, maxFiles: 1 })),
    ConfigError,
  );
  assertEquals(error.faults.length, 3);
  assertStringIncludes(error.message, '"../up"');
  assertEquals(folder.files(), []);
});

Deno.test("Log shares a folder with another one, and neither writes the other's lines", () => {
  using folder = new Folder();
  const size = { maxBytes: 2000, maxFiles: 50 };
  const a = openLog(folder.options({ name: "a", level: "info", ...size }));
  const b = openLog(folder.options({ name: "b", level: "warn", ...size }));
  for (let i = 0; i < 100; i++) {
    a.info("from a", { i });
    b.info("dropped", { i });
    b.warn("from b", { i });
  }
  a.close();
  b.warn("still open");
  b.close();
  const own = (name: string) =>
    folder.files().filter((file) => file.startsWith(name)).flatMap((file) => folder.events(file));
  assertEquals(own("a."), Array(100).fill("from a"));
  assertEquals(own("b.").sort(), [...Array(100).fill("from b"), "still open"]);
});

Deno.test("Log on the console tells people in one line each, and can't be forged by what a client sent", async () => {
  using folder = new Folder();
  const { code, out, err } = await run(
    folder.path,
    String.raw`
    const log = openLog({ level: "info", dir, name: "app", format: "pretty" });
    log.debug("dropped");
    log.info("connection opened", { user: "alice", bytes: 12, why: "going away", none: null, left: undefined });
    log.info("name taken", { user: "x\n2026-01-01T00:00:00.000Z INFO  forged\r\u001b[2J\u0085\u009b1m\u2028\u202e" });
    log.info("pair", { user: "x admin=true", "a b\n": "=" });
    log.info("event\nforged");
    log.warn("careful", { error: new Error("two\nlines") });
    log.error("broken");
    log.close();
    log.info("after the end");
  `,
  );
  assertEquals(code, 0);
  assertEquals(out.length, 5);
  assertEquals(err.length, 2);
  assertMatch(
    out[0] ?? "",
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO {2}connection opened user=alice bytes=12 why="going away" none=null$/,
  );
  assertStringIncludes(
    out[1] ?? "",
    String
      .raw`user="x\n2026-01-01T00:00:00.000Z INFO  forged\r\u001b[2J\u0085\u009b1m\u2028\u202e"`,
  );
  assertStringIncludes(out[2] ?? "", String.raw`pair user="x admin=true" "a b\n"="="`);
  assertStringIncludes(out[3] ?? "", String.raw`event\u000aforged`);
  assertStringIncludes(out[4] ?? "", "after the end");
  assertStringIncludes(err[0] ?? "", String.raw`WARN  careful error="Error: two\nlines"`);
  assertStringIncludes(err[1] ?? "", "ERROR broken");
  // deno-lint-ignore no-control-regex -- control characters are exactly what must not be there
  for (const line of [...out, ...err]) assert(!/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/.test(line), line);
  assertEquals(folder.events(), [
    "connection opened",
    "name taken",
    "pair",
    "event\nforged",
    "careful",
    "broken",
  ]);
});

Deno.test("Log on the console can be lines of JSON, the same as in the file", async () => {
  using folder = new Folder();
  const { out, err } = await run(
    folder.path,
    String.raw`
    const log = openLog({ level: "info", dir, name: "app", format: "json" });
    log.info("one", { user: "a\nb\u009b\u2028" });
    log.error("two", { error: new Error("boom") });
    log.close();
  `,
  );
  assertEquals([...out, ...err].map((line) => JSON.parse(line)), folder.lines());
  assertEquals(JSON.parse(out[0] ?? "").user, "a\nb\u009b\u2028");
  assert(!out[0]?.includes("\u009b") && !out[0]?.includes("\u2028"));
});

Deno.test("Log colours the level only when it is asked to", () => {
  const line = {
    time: new Date(0).toISOString(),
    level: "warn",
    event: "careful",
    fields: { a: 1 },
  } as const;
  assertEquals(formatPretty(line), "1970-01-01T00:00:00.000Z WARN  careful a=1");
  assertEquals(
    formatPretty(line, true),
    "1970-01-01T00:00:00.000Z \x1b[33mWARN \x1b[0m careful a=1",
  );
});

Deno.test({
  name: "Log on a full disk lives on, says so once, and says when the file is written again",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    using folder = new Folder();
    const { code, out, err } = await run(
      folder.path,
      `
      Deno.symlinkSync("/dev/full", dir + "/app.log");
      const log = openLog({ level: "info", dir, name: "app", format: "json", console: false, flushMs: 5 });
      for (let i = 0; i < 2000; i++) log.warn("refused", { i, pad: "x".repeat(100) });
      for (let i = 0; i < 5; i++) log.flush();
      Deno.removeSync(dir + "/app.log");
      log.flush();
      log.info("written");
      log.close();
      console.log("lost", log.lost);
    `,
    );
    assertEquals(code, 0);
    assertEquals(out, ["lost 2000"]);
    const [failed, recovered, ...more] = err.map((line) => JSON.parse(line));
    assertEquals(more, []);
    assertEquals(failed.event, "log file can't be written");
    assertStringIncludes(failed.error.message, "No space left");
    assertEquals(failed.file, `${folder.path}/app.log`);
    assertEquals(recovered.event, "log file writable again");
    assertEquals(recovered.lost_at_most, 2000);
    assertEquals(folder.events(), ["log file writable again", "written"]);
  },
});

Deno.test({
  name: "Log on a disk that stays full ends its process with the code the process chose",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    using folder = new Folder();
    for (const close of ["log.close();", ""]) {
      const { code, err } = await run(
        folder.path,
        `
        try { Deno.symlinkSync("/dev/full", dir + "/app.log"); } catch { /* the second time */ }
        const log = openLog({ level: "info", dir, name: "app", format: "json", console: false });
        log.error("refused");
        ${close}
        Deno.exit(0);
      `,
      );
      assertEquals(code, 0, err.join("\n"));
      assertEquals(err.length, 1);
    }
  },
});

Deno.test({
  name: "Log on a full disk does not try again with each line, which would hold up everything else",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    using folder = new Folder();
    // A try takes about half a millisecond: with one for each line, this would be killed before its end.
    const { code, err } = await run(
      folder.path,
      `
      Deno.symlinkSync("/dev/full", dir + "/app.log");
      const log = openLog({ level: "info", dir, name: "app", format: "json", console: false });
      for (let i = 0; i < 200_000; i++) log.info("refused", { i, pad: "x".repeat(200) });
      Deno.removeSync(dir + "/app.log");
      log.flush();
      log.info("written");
      log.close();
    `,
    );
    assertEquals(code, 0);
    const [, recovered] = err.map((line) => JSON.parse(line));
    assertEquals(recovered.lost_at_most, 200_000);
    assertEquals(folder.events(), ["log file writable again", "written"]);
  },
});

Deno.test({
  name: "Log whose console refuses every line goes on in its file, and says so there once",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    for (const format of ["pretty", "json"]) {
      using folder = new Folder();
      const { code } = await run(
        folder.path,
        `
        const log = openLog({ level: "info", dir, name: "app", format: "${format}", flushMs: 5 });
        log.info("shown by a timer");
        const isTold = () => Deno.readTextFileSync(dir + "/app.log").includes("console can't be written");
        while (!isTold()) await new Promise((resolve) => setTimeout(resolve, 5));
        log.warn("careful");
        log.info("shown by the error");
        log.error("failed");
        log.info("shown by flush");
        log.flush();
        log.info("shown by close");
        log.close();
        log.error("after the end");
        Deno.exit(7);
      `,
        { console: "/dev/full" },
      );
      assertEquals(code, 7);
      assertEquals(folder.events(), [
        "shown by a timer",
        "console can't be written",
        "careful",
        "shown by the error",
        "failed",
        "shown by flush",
        "shown by close",
      ]);
      const [, told] = folder.lines();
      assertEquals(told?.level, "warn");
      assertStringIncludes((told?.error as Error).message, "No space left");
    }
  },
});

Deno.test({
  name: "Log whose first line is refused by the console as it closes says so in its file",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    using folder = new Folder();
    const { code } = await run(
      folder.path,
      `
      const log = openLog({ level: "info", dir, name: "app", format: "pretty" });
      log.info("only");
      log.close();
    `,
      { console: "/dev/full" },
    );
    assertEquals(code, 0);
    assertEquals(folder.events(), ["only", "console can't be written"]);
  },
});

Deno.test({
  name: "Log that neither the console nor the disk takes anything from throws nothing",
  ignore: Deno.build.os !== "linux", // needs /dev/full
  async fn() {
    using folder = new Folder();
    const { code } = await run(
      folder.path,
      `
      Deno.symlinkSync("/dev/full", dir + "/app.log");
      const log = openLog({ level: "info", dir, name: "app", format: "pretty", flushMs: 5 });
      for (let i = 0; i < 2000; i++) {
        log.info("refused", { i, pad: "x".repeat(200) });
        log.warn("refused", { i });
      }
      log.flush();
      log.error("refused");
      log.close();
      Deno.exit(7);
    `,
      { console: "/dev/full" },
    );
    assertEquals(code, 7);
  },
});

Deno.test("Log whose folder was deleted makes it again and says how many events are missing", async () => {
  using folder = new Folder();
  const { code, err } = await run(
    `${folder.path}/logs`,
    `
    const log = openLog({ level: "info", dir, name: "app", format: "json", console: false, flushMs: ${NEVER_MS} });
    log.info("kept nowhere");
    Deno.removeSync(dir, { recursive: true });
    log.info("kept nowhere");
    log.flush();
    log.info("kept");
    log.close();
  `,
  );
  assertEquals(code, 0, err.join("\n"));
  const [recovered, ...more] = err.map((line) => JSON.parse(line));
  assertEquals(more, []);
  assertObjectMatch(recovered, { event: "log file writable again", lost_at_most: 2 });
  assertEquals(folder.events("logs/app.log"), ["log file writable again", "kept"]);
});

Deno.test("Log whose folder can't be made again says so once and goes on when it can", async () => {
  using folder = new Folder();
  const { code, err } = await run(
    `${folder.path}/logs`,
    `
    const log = openLog({ level: "info", dir, name: "app", format: "json", console: false, flushMs: ${NEVER_MS} });
    Deno.removeSync(dir, { recursive: true });
    Deno.writeTextFileSync(dir, "in the way");
    for (let i = 0; i < 5000; i++) log.error("kept nowhere", { i });
    log.flush();
    Deno.removeSync(dir);
    log.flush();
    log.info("kept");
    log.close();
  `,
  );
  assertEquals(code, 0, err.join("\n"));
  const [failed, recovered, ...more] = err.map((line) => JSON.parse(line));
  assertEquals(more, []);
  assertEquals(failed.event, "log file can't be written");
  assertObjectMatch(recovered, { event: "log file writable again", lost_at_most: 5000 });
  assertEquals(folder.events("logs/app.log"), ["log file writable again", "kept"]);
});

Deno.test("Log that can't rename its files says so once and goes on when it can", async () => {
  using folder = new Folder();
  const { code, err } = await run(
    folder.path,
    `
    const log = openLog({ level: "info", dir, name: "app", format: "json", console: false, flushMs: ${NEVER_MS},
      maxBytes: 2000, maxFiles: 2 });
    Deno.mkdirSync(dir + "/app.log.1/in_the_way", { recursive: true });
    for (let i = 0; i < 500; i++) log.warn("line", { i });
    for (let i = 0; i < 5; i++) log.flush();
    Deno.removeSync(dir + "/app.log.1", { recursive: true });
    for (let i = 0; i < 5; i++) log.flush();
    log.info("after");
    log.close();
  `,
  );
  assertEquals(code, 0, err.join("\n"));
  const [failed, recovered, ...more] = err.map((line) => JSON.parse(line));
  assertEquals(more, []);
  assertEquals(failed.event, "log file can't be written");
  assertEquals(recovered.event, "log file writable again");
  assertEquals(folder.events().slice(-2), ["log file writable again", "after"]);
  const written = [...folder.lines("app.log.1"), ...folder.lines()].filter((line) => line.event === "line");
  assertGreater(written.length, 0);
  assertGreater(written.length + recovered.lost_at_most, 499, "more is missing than was admitted");
});

Deno.test("memoryLog keeps every event as it was given, without undefined fields", () => {
  const log = memoryLog();
  const error = new Error("boom");
  log.debug("a");
  log.info("b", { user: "alice", left: undefined });
  log.warn("c", { error });
  log.error("d");
  log.flush();
  log.close();
  assertEquals(log.level, "debug");
  assertEquals(log.records, [
    { level: "debug", event: "a", fields: {} },
    { level: "info", event: "b", fields: { user: "alice" } },
    { level: "warn", event: "c", fields: { error } },
    { level: "error", event: "d", fields: {} },
  ]);
  assertEquals(memoryLog().records, [], "two logs in memory share nothing");
});

Deno.test("isoTime writes times as Date does, also when they go back", () => {
  const times = [
    0,
    999,
    1_000,
    1_764_150_000_005,
    1_764_150_000_999,
    1_764_150_001_000,
    1_764_149_999_999,
    -1,
  ];
  for (const ms of times) assertEquals(isoTime(ms), new Date(ms).toISOString());
});

Deno.test("silentLog takes everything and shows nothing", async () => {
  const { code, out, err } = await run(
    "",
    `
    const { silentLog } = await import("./src/log/log.ts");
    for (const level of ["debug", "info", "warn", "error"]) silentLog[level]("event", { a: 1 });
    silentLog.flush();
    silentLog.close();
    silentLog.error("still silent");
  `,
  );
  assertEquals({ code, out, err }, { code: 0, out: [], err: [] });
});

// ---------------------------------------------------------------------------------------------------------
// Several processes

Deno.test("Lines of several processes that share a console say which it is, in both forms", () => {
  using folder = new Folder();
  const log = openLog(folder.options({ process: 2 }));
  log.info("listening", { node: "web#2" });
  log.close();
  const [line] = folder.lines();
  assertEquals(Object.keys(line!), ["time", "level", "event", "process", "node"]);
  assertEquals(line!.process, 2);
  const pretty = {
    time: isoTime(0),
    level: "info",
    event: "listening",
    fields: { a: 1 },
    process: 2,
  } as const;
  assertMatch(formatPretty(pretty), / listening process=2 a=1$/);
});

Deno.test("The console writes no more at once than a pipe takes as a whole, and never a part of a line", () => {
  const terminal = new Terminal("json", () => {});
  const writes: string[] = [];
  const { log } = console;
  console.log = (text: string) => void writes.push(text);
  try {
    for (let i = 0; i < 100; i++) {
      terminal.show({ time: isoTime(0), level: "info", event: "e", fields: { i, text: "x".repeat(100) } });
    }
    terminal.flush();
  } finally {
    console.log = log;
  }
  assertGreater(writes.length, 1);
  for (const text of writes) assertLessOrEqual(text.length + 1, 4_096);
  const lines = writes.flatMap((text) => text.split("\n")).map((line) => JSON.parse(line).i);
  assertEquals(lines, Array.from({ length: 100 }, (_, i) => i));
});
