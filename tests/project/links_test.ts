/**
 * The stand-ins in `links/`: they are found without any network, they are typed as strictly as the originals, and the
 * parts of `@std/log` that `log_test.ts` does not reach behave as the original says.
 */
import { assert, assertEquals, assertExists, assertThrows } from "@std/assert";
import {
  BaseHandler,
  FileHandler,
  getLevelByName,
  getLevelName,
  type LevelName,
  Logger,
  LogLevels,
  type LogRecord,
  RotatingFileHandler,
} from "@std/log";

const ROOT = new URL("../../", import.meta.url);

/** Every address that is not this process's own leads nowhere. */
const NO_NETWORK = {
  ALL_PROXY: "http://127.0.0.1:1",
  HTTP_PROXY: "http://127.0.0.1:1",
  HTTPS_PROXY: "http://127.0.0.1:1",
  JSR_URL: "http://127.0.0.1:1",
  NO_COLOR: "1",
  NO_PROXY: "",
};

async function deno(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, env: NO_NETWORK });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** Checks the types of programs that can import what the project can. @returns The errors of each, by its name. */
async function check(programs: Readonly<Record<string, string>>): Promise<Record<string, string[]>> {
  const folder = await Deno.makeTempDir({ prefix: "userwire_links_" });
  try {
    const names = Object.keys(programs);
    for (const name of names) await Deno.writeTextFile(`${folder}/${name}.ts`, programs[name]!);
    const { err } = await deno(
      ...["check", "--no-lock", "--config", "deno.json"],
      ...names.map((name) => `${folder}/${name}.ts`),
    );
    const faults = Array.from(
      err.matchAll(/^(TS\d+) [^]+?at file:\S+\/(\w+)\.ts:/gm),
      ([, code, name]) => [name!, code!] as const,
    );
    const of = (name: string) => faults.flatMap(([its, code]) => its === name ? [code] : []);
    return Object.fromEntries(names.map((name) => [name, of(name)]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "Links are found without network",
  // Whoever took them out of deno.json wants the originals, and those come from the network.
  ignore: JSON.parse(Deno.readTextFileSync(new URL("deno.json", ROOT))).links === undefined,
  async fn() {
    const program = `
      import { assertEquals } from "@std/assert";
      import { LogLevels } from "@std/log";
      assertEquals(LogLevels.INFO, 20);
      console.log(import.meta.resolve("@std/assert"));
      console.log(import.meta.resolve("@std/log"));
    `;
    const { code, out, err } = await deno("eval", "--no-lock", "--no-remote", "--cached-only", program);
    assertEquals(code, 0, err);
    const expected = ["links/std_assert/mod.js", "links/std_log/mod.ts"];
    assertEquals(out.trimEnd().split("\n"), expected.map((path) => new URL(path, ROOT).href));
  },
});

Deno.test("Links are typed: they narrow, and refuse to compare what can't be equal and a level there is not", async () => {
  const narrows = `
    import { assert, assertExists, assertInstanceOf, assertObjectMatch, assertRejects, assertThrows } from "@std/assert";
    interface Named { name: string }
    export function nameOf(named: Named | undefined, value: unknown, text: string | number): string {
      assertExists(named);
      assertInstanceOf(value, Error);
      assert(typeof text === "string");
      assertObjectMatch(named, { name: "x" });
      const thrown: RangeError = assertThrows(() => nameOf(named, value, text), RangeError, "text");
      const rejected: Promise<TypeError> = assertRejects(() => Promise.resolve(), TypeError);
      return [named.name, value.message, text.trim(), thrown.message, typeof rejected].join();
    }
  `;
  const compares = `import { assertEquals } from "@std/assert"; assertEquals(1, "x");`;
  const logs = `import { Logger } from "@std/log"; new Logger("x", "LOUD");`;
  // In one go: what takes long is the same for all.
  assertEquals(await check({ narrows, compares, logs }), {
    narrows: [],
    compares: ["TS2345"],
    logs: ["TS2345"],
  });
});

Deno.test("getLevelByName and getLevelName are each other's inverse and refuse what is not a level", () => {
  const names = Object.keys(LogLevels) as LevelName[];
  assertEquals(names, ["NOTSET", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]);
  for (const name of names) assertEquals(getLevelName(getLevelByName(name)), name);
  assertThrows(() => getLevelByName("LOUD" as LevelName), Error, "LOUD");
  assertThrows(() => getLevelName(11 as 10), Error, "11");
});

class ListHandler extends BaseHandler {
  readonly records: LogRecord[] = [];
  readonly lines: string[] = [];

  override handle(record: LogRecord): void {
    this.records.push(record);
    super.handle(record);
  }

  log(msg: string): void {
    this.lines.push(msg);
  }
}

Deno.test("Logger hands records from its level upwards to handlers, which have levels of their own", () => {
  const all = new ListHandler("NOTSET");
  const grave = new ListHandler("ERROR", {
    formatter: ({ msg, args, loggerName }) => `${loggerName}:${msg}:${args}`,
  });
  const logger = new Logger("test", "INFO", { handlers: [all, grave] });
  assertEquals(logger.debug("a"), "a");
  logger.info("b");
  logger.warn("c");
  logger.error("d", 1, 2);
  logger.critical("e");
  assertEquals(all.lines, ["INFO b", "WARN c", "ERROR d", "CRITICAL e"]);
  assertEquals(grave.lines, ["test:d:1,2", "test:e:"]);
  assertEquals([logger.levelName, logger.level, logger.loggerName], ["INFO", 20, "test"]);
});

Deno.test("LogRecord gives away copies only", () => {
  const list = new ListHandler("NOTSET");
  new Logger("test", "NOTSET", { handlers: [list] }).warn("m", 1);
  const [record] = list.records;
  assertExists(record);
  record.args.push(2);
  const time = record.datetime.getTime();
  record.datetime.setTime(0);
  assertEquals([record.args, record.datetime.getTime(), record.levelName], [[1], time, "WARN"]);
});

Deno.test("FileHandler appends, writes when its buffer is full, on a critical record and when told", () => {
  const folder = Deno.makeTempDirSync({ prefix: "userwire_links_" });
  try {
    const filename = `${folder}/plain.log`;
    Deno.writeTextFileSync(filename, "before\n");
    const handler = new FileHandler("INFO", { filename, bufferSize: 20, formatter: ({ msg }) => msg });
    const logger = new Logger("test", "DEBUG", { handlers: [handler] });
    const text = () => Deno.readTextFileSync(filename);
    handler.setup();
    logger.debug("below the handler's level");
    logger.info("123456789");
    logger.info("abcdefghi");
    assertEquals(text(), "before\n", "20 bytes fit the buffer");
    logger.info("é");
    assertEquals(text(), "before\n123456789\nabcdefghi\n");
    handler.flush();
    assertEquals(text(), "before\n123456789\nabcdefghi\né\n");
    logger.info("longer than the buffer is");
    logger.info("x");
    logger.critical("y");
    assertEquals(text(), "before\n123456789\nabcdefghi\né\nlonger than the buffer is\nx\ny\n");
    logger.info("last");
    handler.destroy();
    assert(text().endsWith("y\nlast\n"));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("FileHandler writes the rest of what the disk took a part of, each byte once, also after a fault", () => {
  const folder = Deno.makeTempDirSync({ prefix: "userwire_links_" });
  const { writeSync } = Deno.FsFile.prototype;
  try {
    const filename = `${folder}/full.log`;
    const handler = new FileHandler("INFO", { filename, bufferSize: 1_000, formatter: ({ msg }) => msg });
    const logger = new Logger("test", "DEBUG", { handlers: [handler] });
    handler.setup();
    let room = 12;
    Deno.FsFile.prototype.writeSync = function (bytes) {
      if (room === 0) throw new Error("No space left on device");
      const count = Math.min(room, bytes.length, 5);
      room -= count;
      return writeSync.call(this, bytes.subarray(0, count));
    };
    logger.info("123456789");
    logger.info("abcdefghi");
    assertThrows(() => handler.flush(), Error, "No space");
    assertEquals(Deno.readTextFileSync(filename), "123456789\nab");
    logger.info("later");
    room = Infinity;
    handler.destroy();
    assertEquals(Deno.readTextFileSync(filename), "123456789\nabcdefghi\nlater\n");
  } finally {
    Deno.FsFile.prototype.writeSync = writeSync;
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("RotatingFileHandler refuses sizes that make no sense, when it is set up", () => {
  const options = { filename: "never made", maxBytes: 1, maxBackupCount: 1 };
  assertThrows(() => new RotatingFileHandler("INFO", { ...options, maxBytes: 0 }).setup(), Error, "maxBytes");
  assertThrows(
    () => new RotatingFileHandler("INFO", { ...options, maxBackupCount: 0 }).setup(),
    Error,
    "maxBackupCount",
  );
});

Deno.test("RotatingFileHandler fills a file to the last byte, also one that it found, and forgets the oldest", () => {
  const folder = Deno.makeTempDirSync({ prefix: "userwire_links_" });
  try {
    const filename = `${folder}/rotating.log`;
    Deno.writeTextFileSync(filename, "found\n");
    const handler = new RotatingFileHandler("INFO", {
      filename,
      maxBytes: 10,
      maxBackupCount: 2,
      formatter: ({ msg }) => msg,
    });
    const logger = new Logger("test", "INFO", { handlers: [handler] });
    handler.setup();
    for (const msg of ["é1", "abcd", "efgh", "i", "jk"]) logger.info(msg);
    handler.destroy();
    const text = (file: string) => Deno.readTextFileSync(`${folder}/${file}`);
    assertEquals(text("rotating.log.2"), "found\né1\n");
    assertEquals(text("rotating.log.1"), "abcd\nefgh\n");
    assertEquals(text("rotating.log"), "i\njk\n");
    handler.setup();
    logger.info("lmnopqrst");
    handler.destroy();
    assertEquals([...Deno.readDirSync(folder)].length, 3);
    assertEquals(text("rotating.log.2"), "abcd\nefgh\n");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("FileHandler without an open file keeps a buffer full at most, then throws", () => {
  const handler = new FileHandler("INFO", {
    filename: "never made",
    bufferSize: 10,
    formatter: ({ msg }) => msg,
  });
  const logger = new Logger("test", "INFO", { handlers: [handler] });
  logger.info("123456789");
  assertThrows(() => logger.info("x"));
});
