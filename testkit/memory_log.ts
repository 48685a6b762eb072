import type { Log, LogFields, LogLevel } from "../src/log/log.ts";

/** One event in memory. Fields that were undefined are left out. */
export interface MemoryRecord {
  level: LogLevel;
  event: string;
  fields: LogFields;
}

/** A log that only keeps its events, of all levels and as they were given. */
export function memoryLog(): Log & { readonly records: MemoryRecord[] } {
  const records: MemoryRecord[] = [];
  const keep = (level: LogLevel) => (event: string, fields: LogFields = {}) => {
    const known = Object.entries(fields).filter(([, value]) => value !== undefined);
    records.push({ level, event, fields: Object.fromEntries(known) });
  };
  return {
    level: "debug",
    records,
    debug: keep("debug"),
    info: keep("info"),
    warn: keep("warn"),
    error: keep("error"),
    flush() {},
    close() {},
  };
}
