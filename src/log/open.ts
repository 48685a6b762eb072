/**
 * Opens a log: a short event with fields, as a readable line on the console and as a line of JSON in a file that rotates
 * by size, or every day too. A call never throws. Secrets are not hidden: callers keep tokens and keys out of the fields.
 *
 * Each line goes through two layers: `Log`, which the rest of the app knows, and @std/log, which the project is asked to
 * use. @std/log's process-wide registry is left alone, so that two apps can live in one process.
 */
import { resolve } from "node:path";
import { BaseHandler, Logger, type LogRecord } from "@std/log";
import { ticker } from "../async/ticker.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { Terminal } from "./console.ts";
import { LogFile } from "./file.ts";
import { isoTime, type LogFields, type LogLevel, type LogLine } from "./format.ts";
import type { Log } from "./log.ts";

/** How a log is opened. */
export interface LogOptions {
  level: LogLevel;
  /** Folder of the files; it is made when it is missing. */
  dir: string;
  /** Name of the file, to which ".log" is added. Logs that share a folder need names of their own. */
  name: string;
  /** How the console shows events. The file is always JSON lines. */
  format: "pretty" | "json";
  /** Size in bytes at which the next file is begun. @default 10 MiB */
  maxBytes?: number;
  /**
   * Whether a new file is begun at midnight (UTC) too. That of the day before is then named after it:
   * `<name>.2026-11-26.log`. @default "size"
   */
  rotate?: "size" | "daily";
  /**
   * How many files are kept, the current one included: at least 2. With `rotate: "daily"` as many of days, and as many of
   * those that were begun because of their size. @default 5
   */
  maxFiles?: number;
  /**
   * Longest time that an event waits in the buffer, in milliseconds and rounded to quarters of a second. Warnings and errors
   * do not wait. @default 1000
   */
  flushMs?: number;
  /** Whether events go to the console too. Trouble with the file does in any case. @default true */
  console?: boolean;
  /** Which of several processes writes, for each line to say. */
  process?: number | undefined;
}

/**
 * Opens a log.
 * @throws {ConfigError} when the folder or the file in it can't be made or written, or an option makes no sense.
 */
export function openLog(options: LogOptions): Log {
  const { level, dir, name, format, maxBytes = 10 * 1024 ** 2, maxFiles = 5, flushMs = 1_000 } = options;
  const faults: string[] = [];
  if (!/^[\w.-]+$/.test(name)) {
    faults.push(`Log name "${name}" can't name a file: use letters, digits, ".", "_" and "-" only`);
  }
  if (!(maxBytes >= 1)) faults.push(`Log size "${maxBytes}" is too small: let a file have at least 1 byte`);
  if (!(maxFiles >= 2)) faults.push(`Number of log files "${maxFiles}" is too small: keep at least 2`);
  if (faults.length > 0) throw new ConfigError(faults);

  const terminal = new Terminal(format, (line) => file.show(line));
  const isDaily = options.rotate === "daily";
  const file = new LogFile(terminal, { dir, name, maxBytes, maxFiles, isDaily });
  try {
    file.open();
  } catch (error) {
    throw new ConfigError([
      `Log folder "${dir}" can't be written: ${messageOf(error)}; ` +
      `set LOG_DIR to a folder in which this process may make files`,
    ]);
  }
  const outlets = new Outlets(options.console ?? true ? [terminal, file] : [file], options.process);
  const logger = new Logger(name, LEVEL_NAMES[level], { handlers: [outlets] });
  // A log must not keep a process alive that has nothing else to do.
  const stopFlushing = ticker.every(flushMs, () => file.tick(), { holds: false });
  return {
    level,
    get lost() {
      return terminal.lost + file.lost;
    },
    debug: (event, fields) => void logger.debug(event, fields),
    info: (event, fields) => void logger.info(event, fields),
    warn: (event, fields) => void logger.warn(event, fields),
    error: (event, fields) => void logger.error(event, fields),
    flush() {
      terminal.flush();
      file.flush();
    },
    close() {
      stopFlushing();
      // First: its own trouble goes to the file.
      terminal.flush();
      file.destroy();
    },
  };
}

/** The settings of a service that are of its log. */
export interface LogSettings {
  readonly logLevel: LogLevel;
  readonly logDir: string;
  readonly logFormat: "pretty" | "json";
  readonly logMaxBytes: number;
  readonly logRotate: "size" | "daily";
  readonly logMaxFiles: number;
}

/**
 * Opens the log of a service, or of one of its processes.
 * @param name What tells its file from those of others.
 * @throws {ConfigError} as `openLog`.
 */
export function openServiceLog(name: string, settings: LogSettings, process?: number): Log {
  const suffix = process === undefined ? "" : `_${process}`;
  return openLog({
    level: settings.logLevel,
    dir: resolve(settings.logDir),
    name: `userwire-${name.replaceAll(/[^\w.-]/g, "_")}${suffix}`,
    format: settings.logFormat,
    maxBytes: settings.logMaxBytes,
    rotate: settings.logRotate,
    maxFiles: settings.logMaxFiles,
    process,
  });
}

const LEVEL_NAMES = { debug: "DEBUG", info: "INFO", warn: "WARN", error: "ERROR" } as const;

/** Makes a line of each record, once for the console and the file. */
class Outlets extends BaseHandler {
  readonly #outlets: readonly (Terminal | LogFile)[];
  readonly #process: number | undefined;

  constructor(outlets: readonly (Terminal | LogFile)[], process: number | undefined) {
    super("DEBUG");
    this.#outlets = outlets;
    this.#process = process;
  }

  override handle(record: LogRecord): void {
    const line: LogLine = {
      time: isoTime(record.datetime.getTime()),
      level: record.levelName.toLowerCase() as LogLevel,
      event: record.msg,
      fields: (record.args[0] ?? {}) as LogFields,
      process: this.#process,
    };
    for (const outlet of this.#outlets) outlet.show(line);
  }

  override log(): void {}
}
