/**
 * Turns an event into one line of text, as JSON or for people. Promises that it never throws, whatever the fields
 * hold, that a line has a bounded length per field, and that nothing in an event or a field can end the line, move
 * the cursor or pass for another field. Knows nothing of files, consoles or the log package.
 */

/** From the most talkative to the gravest. */
export type LogLevel = "debug" | "info" | "warn" | "error";

/**
 * What an event is about. Strings, numbers, booleans, null and errors are meant; anything else is written as far as
 * it can be read. A field that is undefined is left out, and text is cut after 4,096 characters.
 */
export type LogFields = Readonly<Record<string, unknown>>;

/** One event. */
export interface LogLine {
  readonly time: Date;
  readonly level: LogLevel;
  readonly event: string;
  readonly fields: LogFields;
}

const MAX_TEXT = 4096;

/** Control characters, and characters that reorder or hide what stands around them. */
// deno-lint-ignore no-control-regex -- control characters are exactly what is meant
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Codes for terminals. */
const COLOURS = { debug: 2, info: 32, warn: 33, error: 31 } as const;

/** Text that needs no quotes to be told from what stands around it. */
const BARE = /^[\w.:/@+-]+$/;

/**
 * One line of JSON: `time`, `level`, `event`, then the fields. A field that has one of these three names gets an
 * underscore behind it.
 */
export function formatJson(record: LogLine): string {
  const line: Record<string, unknown> = {
    time: record.time.toISOString(),
    level: record.level,
    event: record.event,
  };
  for (const [name, value] of fieldsOf(record, jsonValue)) {
    const isTaken = name === "time" || name === "level" || name === "event";
    line[isTaken ? `${name}_` : name] = value;
  }
  return escape(JSON.stringify(line));
}

/**
 * One line for people: time, level, event, then `name=value` with quotes where they are needed.
 * @param options.colour Colour the level, for terminals.
 * @default {false}
 */
export function formatPretty(record: LogLine, options: { colour?: boolean } = {}): string {
  const level = record.level.toUpperCase().padEnd(5);
  const shownLevel = options.colour ? `\x1b[${COLOURS[record.level]}m${level}\x1b[0m` : level;
  let line = `${record.time.toISOString()} ${shownLevel} ${escape(record.event)}`;
  for (const [name, value] of fieldsOf(record, prettyValue)) line += ` ${quote(name)}=${quote(value)}`;
  return line;
}

/** The fields that are there, each shown on its own: a getter or a proxy that throws spoils its own field only. */
function fieldsOf<T>({ fields }: LogLine, show: (value: unknown) => T): [name: string, value: T | string][] {
  const shown: [string, T | string][] = [];
  for (const name of Object.keys(fields)) {
    try {
      const value = fields[name];
      if (value !== undefined) shown.push([cut(name), show(value)]);
    } catch {
      shown.push([cut(name), "[unreadable]"]);
    }
  }
  return shown;
}

/** What stands in JSON for a value. */
function jsonValue(value: unknown): unknown {
  switch (typeof value) {
    case "string":
      return cut(value);
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "bigint":
      return String(value);
  }
  if (value === null) return null;
  const text = cut(Deno.inspect(value, { colors: false, depth: 2, iterableLimit: 20 }));
  if (!(value instanceof Error)) return text;
  return { name: cut(String(value.name)), message: cut(describe(value)), stack: text };
}

function prettyValue(value: unknown): string {
  return value instanceof Error ? cut(describe(value)) : String(jsonValue(value));
}

/** An error and what caused it, in one line of text. */
function describe(error: Error, depth = 0): string {
  const inner = [error.cause, ...(error instanceof AggregateError ? error.errors : [])];
  const causes = inner.filter((reason) => reason instanceof Error).slice(0, 3);
  const text = error.message === "" ? error.name : `${error.name}: ${error.message}`;
  if (causes.length === 0 || depth === 3) return text;
  return `${text} (caused by ${causes.map((cause) => describe(cause, depth + 1)).join("; ")})`;
}

function cut(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

function quote(text: string): string {
  return BARE.test(text) ? text : escape(JSON.stringify(text));
}

function escape(text: string): string {
  return text.replace(UNSAFE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
