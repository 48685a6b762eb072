/**
 * The log of one app: a short event with fields, as a readable line on the console and as a line of JSON in a file
 * that rotates by size, or every day too. Owns the file, its buffer and its flush timer.
 *
 * A call never throws: when the disk refuses, the console says so once, when the console does, the file, and the app
 * lives on. Two processes must not write one file. Secrets are not hidden: callers keep tokens and keys out of the
 * fields.
 * This is the only file that imports @std/log, and it leaves that package's process-wide registry alone, so that two
 * apps can live in one process.
 */
import { BaseHandler, Logger, type LogRecord, RotatingFileHandler } from "@std/log";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import type { Log } from "./log.ts";
import { Terminal } from "./console.ts";
import { formatJson, type LogFields, type LogLevel, type LogLine, trouble } from "./format.ts";

/** How a log is opened. */
export interface LogOptions {
  level: LogLevel;
  /** Folder of the files; it is made when it is missing. */
  dir: string;
  /** Name of the file, to which ".log" is added. Logs that share a folder need names of their own. */
  name: string;
  /** How the console shows events. The file is always JSON lines. */
  format: "pretty" | "json";
  /**
   * Size in bytes at which the next file is begun.
   * @default {10485760} 10 MiB
   */
  maxBytes?: number;
  /**
   * Whether a new file is begun at midnight (UTC) too. That of the day before is named after it then:
   * `<name>.2026-11-26.log`.
   * @default {"size"}
   */
  rotate?: "size" | "daily";
  /**
   * How many files are kept, the current one included: at least 2. With `rotate: "daily"` as many of days, and of
   * those that a day grew out of.
   * @default {5}
   */
  maxFiles?: number;
  /**
   * Longest time in milliseconds that an event waits in the buffer. Warnings and errors do not wait.
   * @default {1000}
   */
  flushMs?: number;
  /**
   * Whether events go to the console too. Trouble with the file does in any case.
   * @default {true}
   */
  console?: boolean;
}

const DEFAULT_MAX_BYTES = 10 * 1024 * 1024;
const DEFAULT_MAX_FILES = 5;
const DEFAULT_FLUSH_MS = 1000;

/** A busy server writes a few times a second, not once per handful of lines: each write waits for the disk. */
const BUFFER_BYTES = 256 * 1024;

/**
 * So many warnings and errors per flush interval are written at once, the rest by the timer: a flush waits for the
 * disk, and a storm of warnings must not hold up the sockets.
 */
const URGENT_PER_INTERVAL = 10;

/**
 * Opens a log.
 * @throws {ConfigError} when the folder or the file in it can't be made or written, or an option makes no sense.
 */
export function openLog(options: LogOptions): Log {
  const { level, dir, name, format } = options;
  const { maxBytes = DEFAULT_MAX_BYTES, maxFiles = DEFAULT_MAX_FILES, flushMs = DEFAULT_FLUSH_MS } = options;
  const faults: string[] = [];
  if (!/^[\w.-]+$/.test(name)) {
    faults.push(`Log name "${name}" can't name a file: use letters, digits, ".", "_" and "-" only`);
  }
  if (!(maxBytes >= 1)) faults.push(`Log size "${maxBytes}" is too small: let a file have at least 1 byte`);
  if (!(maxFiles >= 2)) faults.push(`Number of log files "${maxFiles}" is too small: keep at least 2`);
  if (faults.length > 0) throw new ConfigError(faults);

  const terminal = new Terminal(format, (line) => file.show(line));
  const file = new LogFile(terminal, {
    dir,
    name,
    maxBytes,
    maxFiles,
    isDaily: options.rotate === "daily",
  });
  try {
    file.open();
  } catch (error) {
    throw new ConfigError([
      `Log folder "${dir}" can't be written: ${messageOf(error)}; ` +
      `set LOG_DIR to a folder in which this process may make files`,
    ]);
  }
  const outlets = new Outlets(options.console ?? true ? [terminal, file] : [file]);
  const logger = new Logger(name, LEVEL_NAMES[level], { handlers: [outlets] });
  return new AppLog(logger, { level, terminal, file, flushMs });
}

const LEVEL_NAMES = { debug: "DEBUG", info: "INFO", warn: "WARN", error: "ERROR" } as const;

class AppLog implements Log {
  readonly level: LogLevel;
  readonly #logger: Logger;
  readonly #terminal: Terminal;
  readonly #file: LogFile;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(
    logger: Logger,
    options: { level: LogLevel; terminal: Terminal; file: LogFile; flushMs: number },
  ) {
    this.level = options.level;
    this.#logger = logger;
    this.#terminal = options.terminal;
    this.#file = options.file;
    this.#timer = setInterval(() => this.#file.tick(), options.flushMs);
    // A log must not keep a process alive that has nothing else to do.
    Deno.unrefTimer(this.#timer);
  }

  debug(event: string, fields?: LogFields): void {
    this.#logger.debug(event, fields);
  }

  info(event: string, fields?: LogFields): void {
    this.#logger.info(event, fields);
  }

  warn(event: string, fields?: LogFields): void {
    this.#logger.warn(event, fields);
  }

  error(event: string, fields?: LogFields): void {
    this.#logger.error(event, fields);
  }

  flush(): void {
    this.#terminal.flush();
    this.#file.flush();
  }

  close(): void {
    clearInterval(this.#timer);
    // First: its own trouble goes to the file.
    this.#terminal.flush();
    this.#file.destroy();
  }
}

// ---------------------------------------------------------------------------------------------------------
// Where lines go

interface Outlet {
  show(line: LogLine): void;
}

/** Reads a record once for all who show it. */
class Outlets extends BaseHandler {
  readonly #outlets: readonly Outlet[];

  constructor(outlets: readonly Outlet[]) {
    super("DEBUG");
    this.#outlets = outlets;
  }

  override handle(record: LogRecord): void {
    const line: LogLine = {
      time: record.datetime.toISOString(),
      level: record.levelName.toLowerCase() as LogLevel,
      event: record.msg,
      fields: (record.args[0] ?? {}) as LogFields,
    };
    for (const outlet of this.#outlets) outlet.show(line);
  }

  override log(): void {}
}

/** A rotating file that can be let go of while the disk is full, and does not spoil the exit code then. */
class RotatingFile extends RotatingFileHandler {
  override destroy(): void {
    try {
      super.destroy();
    } catch {
      // The flush before has said it already.
    }
  }
}

/**
 * The file, as long as the app lives: it survives a full disk and a folder that was deleted or can't be renamed in,
 * says on the console when trouble starts and ends, and counts what may be lost.
 */
class LogFile implements Outlet {
  readonly #terminal: Terminal;
  readonly #dir: string;
  readonly #path: string;
  readonly #file: RotatingFile;
  readonly #days: DayFiles | undefined;
  /** Records since the last flush. */
  #waiting = 0;
  #lost = 0;
  #urgent = 0;
  #isClosed = false;
  #isFailing = false;
  /** The buffer is, and the disk takes none of it. */
  #isFull = false;
  /** The handler lost its open file in a rotation that went wrong. */
  #isStale = false;

  constructor(
    terminal: Terminal,
    options: { dir: string; name: string; maxBytes: number; maxFiles: number; isDaily: boolean },
  ) {
    const { dir, name, maxFiles } = options;
    this.#terminal = terminal;
    this.#dir = dir;
    this.#path = `${dir}/${name}.log`;
    if (options.isDaily) this.#days = new DayFiles(dir, name, maxFiles - 1);
    this.#file = new RotatingFile("DEBUG", {
      filename: this.#path,
      maxBytes: options.maxBytes,
      maxBackupCount: maxFiles - 1,
      bufferSize: BUFFER_BYTES,
    });
  }

  /** @throws what the file system throws. */
  open(): void {
    Deno.mkdirSync(this.#dir, { recursive: true });
    this.#days?.begin(new Date().toISOString());
    this.#file.setup();
  }

  show(line: LogLine): void {
    if (this.#isClosed) return;
    // The timer tries again. If each line did, a full disk would hold up the sockets.
    if (this.#isFull) {
      this.#lost++;
      return;
    }
    if (this.#days?.isOver(line.time)) this.#turn(this.#days, line.time);
    try {
      this.#file.log(formatJson(line));
      this.#waiting++;
    } catch (error) {
      this.#isFull = true;
      this.#lost++;
      this.#fail(error);
      return;
    }
    const isTrouble = line.level === "warn" || line.level === "error";
    if (isTrouble && this.#urgent < URGENT_PER_INTERVAL) {
      this.#urgent++;
      this.flush();
    }
  }

  tick(): void {
    this.#urgent = 0;
    this.flush();
  }

  flush(): void {
    if (this.#isClosed || this.#waiting === 0 && !this.#isFailing) return;
    try {
      if (this.#isStale || !exists(this.#path)) this.#reopen();
      this.#file.flush();
      this.#waiting = 0;
      this.#isFull = false;
      if (this.#isFailing) this.#recover();
    } catch (error) {
      this.#fail(error);
    }
  }

  destroy(): void {
    this.flush();
    this.#isClosed = true;
    this.#file.destroy();
  }

  /** Begins the file of a new day. As long as the disk takes nothing the old one waits for what is buffered. */
  #turn(days: DayFiles, time: string): void {
    this.flush();
    if (this.#isFailing) return;
    try {
      this.#file.destroy();
      days.begin(time);
    } catch (error) {
      this.#fail(error);
    }
    try {
      this.#file.setup();
    } catch (error) {
      this.#isStale = true;
      this.#fail(error);
    }
  }

  /** What was buffered goes to the file that is no longer there. */
  #reopen(): void {
    this.#file.destroy();
    this.open();
    this.#isStale = false;
    this.#isFailing = true;
    this.#lost += this.#waiting;
    this.#waiting = 0;
  }

  #fail(error: unknown): void {
    if (error instanceof Deno.errors.BadResource) this.#isStale = true;
    if (this.#isFailing) return;
    this.#isFailing = true;
    this.#terminal.show(trouble("log file can't be written", { file: this.#path, error }));
  }

  #recover(): void {
    const line = trouble("log file writable again", { file: this.#path, lost_at_most: this.#lost });
    this.#file.log(formatJson(line));
    this.#file.flush();
    this.#isFailing = false;
    this.#lost = 0;
    this.#terminal.show(line);
  }
}

/** The files of the days before: the current one is named after its day when that is over. */
class DayFiles {
  readonly #dir: string;
  readonly #name: string;
  readonly #maxFiles: number;
  /** Of the current file, such as "2026-11-27". */
  #day = "";

  constructor(dir: string, name: string, maxFiles: number) {
    this.#dir = dir;
    this.#name = name;
    this.#maxFiles = maxFiles;
  }

  /** @param time As in a line, which begins with its day. */
  isOver(time: string): boolean {
    return !time.startsWith(this.#day);
  }

  /**
   * Puts a file of another day away, and those beyond the number to be kept.
   * @throws what the file system throws. The day counts as begun all the same: the next line does not try again.
   */
  begin(time: string): void {
    const path = `${this.#dir}/${this.#name}.log`;
    // At a start the last write says of which day the file is.
    const day = this.#day || (exists(path) && Deno.statSync(path).mtime?.toISOString().slice(0, 10)) || "";
    this.#day = time.slice(0, 10);
    if (day !== "" && day !== this.#day && exists(path)) {
      const free = (n: number): string => {
        const target = `${this.#dir}/${this.#name}.${day}${n > 1 ? `.${n}` : ""}.log`;
        return exists(target) ? free(n + 1) : target;
      };
      Deno.renameSync(path, free(1));
    }
    const old = [...Deno.readDirSync(this.#dir)].map(({ name }) => name).filter((name) => this.#isOurs(name))
      .sort();
    for (const name of old.slice(0, Math.max(0, old.length - this.#maxFiles))) {
      Deno.removeSync(`${this.#dir}/${name}`);
    }
  }

  #isOurs(name: string): boolean {
    const day = name.startsWith(`${this.#name}.`) ? name.slice(this.#name.length) : "";
    return /^\.\d{4}-\d\d-\d\d(?:\.\d+)?\.log$/.test(day);
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
