/**
 * Levels, records, and the logger that hands records to its handlers. A call below the logger's level makes no
 * record. Handlers run in order, on the caller's stack: what a handler throws reaches the caller.
 */
import type { BaseHandler } from "./handlers.ts";

/** Levels by name: the higher the graver. */
export const LogLevels = {
  NOTSET: 0,
  DEBUG: 10,
  INFO: 20,
  WARN: 30,
  ERROR: 40,
  CRITICAL: 50,
} as const;

/** Name of a level. */
export type LevelName = keyof typeof LogLevels;

/** Number of a level. */
export type LogLevel = (typeof LogLevels)[LevelName];

/**
 * The number of a level.
 * @throws {Error} when no level has that name.
 */
export function getLevelByName(name: LevelName): LogLevel {
  const level: LogLevel | undefined = LogLevels[name];
  if (level === undefined) throw new Error(`Cannot get log level: no level is named "${name}"`);
  return level;
}

/**
 * The name of a level.
 * @throws {Error} when no level has that number.
 */
export function getLevelName(level: LogLevel): LevelName {
  for (const name of Object.keys(LogLevels) as LevelName[]) {
    if (LogLevels[name] === level) return name;
  }
  throw new Error(`Cannot get log level: no level has the number "${level}"`);
}

/** What a record is made from. */
export interface LogRecordOptions {
  msg: string;
  args: unknown[];
  level: LogLevel;
  loggerName: string;
}

/** One call of a logger, with the time it was made. */
export class LogRecord {
  readonly msg: string;
  readonly level: number;
  readonly levelName: string;
  readonly loggerName: string;
  readonly #args: readonly unknown[];
  readonly #time = Date.now();

  constructor(options: LogRecordOptions) {
    this.msg = options.msg;
    this.level = options.level;
    this.levelName = getLevelName(options.level);
    this.loggerName = options.loggerName;
    this.#args = [...options.args];
  }

  /** A copy of what followed the message. */
  get args(): unknown[] {
    return [...this.#args];
  }

  /** When the record was made, as a copy. */
  get datetime(): Date {
    return new Date(this.#time);
  }
}

/** How a logger is set up. */
export interface LoggerOptions {
  /** @default {[]} */
  handlers?: BaseHandler[];
}

/** Makes records from its level upwards and hands them to its handlers. */
export class Logger {
  handlers: BaseHandler[];
  readonly #name: string;
  readonly #level: LogLevel;

  constructor(loggerName: string, levelName: LevelName, options: LoggerOptions = {}) {
    this.#name = loggerName;
    this.#level = getLevelByName(levelName);
    this.handlers = options.handlers ?? [];
  }

  get level(): LogLevel {
    return this.#level;
  }

  get levelName(): LevelName {
    return getLevelName(this.#level);
  }

  get loggerName(): string {
    return this.#name;
  }

  debug(msg: string, ...args: unknown[]): string {
    return this.#log(LogLevels.DEBUG, msg, args);
  }

  info(msg: string, ...args: unknown[]): string {
    return this.#log(LogLevels.INFO, msg, args);
  }

  warn(msg: string, ...args: unknown[]): string {
    return this.#log(LogLevels.WARN, msg, args);
  }

  error(msg: string, ...args: unknown[]): string {
    return this.#log(LogLevels.ERROR, msg, args);
  }

  critical(msg: string, ...args: unknown[]): string {
    return this.#log(LogLevels.CRITICAL, msg, args);
  }

  #log(level: LogLevel, msg: string, args: unknown[]): string {
    if (level >= this.#level) {
      const record = new LogRecord({ msg, args, level, loggerName: this.#name });
      for (const handler of this.handlers) handler.handle(record);
    }
    return msg;
  }
}
