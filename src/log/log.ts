/**
 * The contract of a log, and one that writes nowhere. The room owns lines, their form, the console and the file; it knows
 * nothing of what happens in the app. The log that writes is opened in `open.ts`: a room that imports only the contract,
 * as the publisher does, must not need the log package.
 */
import type { LogFields, LogLevel } from "./format.ts";

export type { LogFields, LogLevel } from "./format.ts";

/** Where an app says what happens to it. No method throws. */
export interface Log {
  /** Events below this level are dropped: look here before building costly fields. */
  readonly level: LogLevel;
  /** How many lines nobody can read, since it was opened; undefined where that is not known. */
  readonly lost?: number | undefined;
  /** Says that something happened. The event is a short constant text such as "connection opened". */
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** Writes what is buffered to the file. */
  flush(): void;
  /** Flushes, stops the timer and closes the file. Later events reach the console only. Idempotent. */
  close(): void;
}

/** A log that drops everything: for a check of settings, which starts nothing. */
export const silentLog: Log = Object.freeze(
  { level: "error", debug() {}, info() {}, warn() {}, error() {}, flush() {}, close() {} },
);
