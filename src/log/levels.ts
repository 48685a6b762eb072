/**
 * Which lines are written: a level for each area of the log, which may change while the service runs. Each area is a log of
 * its own, and all write to one.
 */
import type { Log, LogFields, LogLevel } from "./log.ts";

/**
 * The areas: the start, the listener and the end; calls and handshakes; sessions and what they deliver; Redis and all that
 * is kept there; keys and tokens; events for the backend.
 */
export const AREAS = ["service", "http", "session", "redis", "auth", "webhooks"] as const;
export type Area = (typeof AREAS)[number];

export const LEVELS: readonly [LogLevel, ...LogLevel[]] = ["debug", "info", "warn", "error"];

export class LogLevels {
  readonly #sink: Log;
  readonly #areas: Readonly<Record<Area, AreaLog>>;

  /** @param sink Writes whatever it is given, and stays the caller's to close. */
  constructor(sink: Log, level: LogLevel) {
    this.#sink = sink;
    const logs = AREAS.map((area) => [area, new AreaLog(sink, level)] as const);
    this.#areas = Object.fromEntries(logs) as Record<Area, AreaLog>;
  }

  /** How many lines nobody can read, as far as that is known. */
  get lost(): number {
    return this.#sink.lost ?? 0;
  }

  /** The log of an area. */
  in(area: Area): Log {
    return this.#areas[area];
  }

  /** Lines of this level and above are written from now on. @param area @default all */
  set(level: LogLevel, area?: Area): void {
    for (const one of area === undefined ? AREAS : [area]) this.#areas[one].level = level;
  }

  /** The level of each area. */
  all(): Record<Area, LogLevel> {
    return Object.fromEntries(AREAS.map((area) => [area, this.#areas[area].level])) as Record<Area, LogLevel>;
  }
}

class AreaLog implements Log {
  /** A field: it is read for each message that is delivered. */
  level: LogLevel;
  readonly #sink: Log;

  constructor(sink: Log, level: LogLevel) {
    this.#sink = sink;
    this.level = level;
  }

  debug(event: string, fields?: LogFields): void {
    this.#write("debug", event, fields);
  }

  info(event: string, fields?: LogFields): void {
    this.#write("info", event, fields);
  }

  warn(event: string, fields?: LogFields): void {
    this.#write("warn", event, fields);
  }

  error(event: string, fields?: LogFields): void {
    this.#write("error", event, fields);
  }

  flush(): void {
    this.#sink.flush();
  }

  close(): void {
    this.#sink.close();
  }

  #write(level: LogLevel, event: string, fields: LogFields | undefined): void {
    if (LEVELS.indexOf(level) >= LEVELS.indexOf(this.level)) this.#sink[level](event, fields);
  }
}
