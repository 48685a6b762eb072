/**
 * Stand-in for `jsr:@std/log` 0.224.14, for machines that cannot reach JSR. It offers what `src/log` uses,
 * `BaseHandler`, `RotatingFileHandler` and `Logger`, and what these are made of, `FileHandler` and all the levels, with
 * the original's names, signatures and behaviour. Left out: `setup`, `getLogger` and
 * the default logger, which are one registry for the whole process; the console handler; the formatters; a handler's
 * `mode`, which is always "a". `LogRecord` is a type only, as it is there, too. See ../README.md.
 */
export * from "./handlers.ts";
export { getLevelByName, getLevelName, Logger, LogLevels } from "./logger.ts";
export type { LevelName, LoggerOptions, LogLevel, LogRecord, LogRecordOptions } from "./logger.ts";
