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
  /** As ISO 8601 writes it. */
  readonly time: string;
  readonly level: LogLevel;
  readonly event: string;
  readonly fields: LogFields;
  /** Which of several processes that share a console it comes from. */
  readonly process?: number | undefined;
}

/**
 * The time as `Date.toISOString` writes it, for less: a socket writes two lines, and busy services many a second, so the
 * part that they have in common is written once.
 * @param ms Unix milliseconds.
 */
export function isoTime(ms: number): string {
  const second = Math.floor(ms / 1_000);
  if (second !== lastSecond) {
    // With its point: "2026-11-26T10:00:00."
    lastSecondText = new Date(second * 1_000).toISOString().slice(0, -4);
    lastSecond = second;
  }
  return `${lastSecondText}${String(ms - second * 1_000).padStart(3, "0")}Z`;
}

let lastSecond: number | undefined;
let lastSecondText = "";

/** What a log has to say about itself, now. */
export function trouble(event: string, fields: LogFields): LogLine {
  return { time: new Date().toISOString(), level: "warn", event, fields };
}

const MAX_TEXT = 4096;
/** Names that are remembered; whoever makes them up pays for each anew. */
const MAX_NAMES = 500;

/** Control characters, and characters that reorder or hide what stands around them. */
// deno-lint-ignore no-control-regex -- control characters are exactly what is meant
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Codes for terminals. */
const COLOURS = { debug: 2, info: 32, warn: 33, error: 31 } as const;

const LEVELS = { debug: "DEBUG", info: "INFO ", warn: "WARN ", error: "ERROR" } as const;

/** Text that needs no quotes: nothing in it can be taken for the end of the field. */
const BARE = /^[\w.:/@+-]+$/;

/**
 * One line of JSON: `time`, `level`, `event`, `process` where there is one, then the fields. A field that has one of the
 * first three names gets an underscore behind it.
 */
export function formatJson(given: LogLine): string {
  // The console and the file show the same one after the other.
  if (given === lastLine) return lastText;
  const { time, level, event, fields, process } = given;
  let line = `{"time":"${time}","level":"${level}","event":${jsonText(event)}`;
  if (process !== undefined) line += `,"process":${process}`;
  for (const name of Object.keys(fields)) {
    const value = show(fields, name, json);
    if (value === undefined) continue;
    line += `,${jsonNames.of(name)}:${value}`;
  }
  lastLine = given;
  return lastText = `${line}}`;
}

/** What stands for the name of a field, worked out once: a program has few names. */
class Names {
  readonly #known = new Map<string, string>();

  constructor(readonly make: (name: string) => string) {}

  of(name: string): string {
    let text = this.#known.get(name);
    if (text !== undefined) return text;
    text = this.make(name);
    if (this.#known.size < MAX_NAMES) this.#known.set(name, text);
    return text;
  }
}

const jsonNames = new Names((name) => {
  const isTaken = name === "time" || name === "level" || name === "event";
  return jsonText(isTaken ? `${name}_` : cut(name));
});
const prettyNames = new Names((name) => quote(cut(name)));

let lastLine: LogLine | undefined;
let lastText = "";

/**
 * One line for people: time, level, event, then `name=value` with quotes where they are needed.
 * @param hasColour Colour the level, for terminals.
 */
export function formatPretty(given: LogLine, hasColour = false): string {
  const { time, level, event, fields, process } = given;
  const shownLevel = hasColour ? `\x1b[${COLOURS[level]}m${LEVELS[level]}\x1b[0m` : LEVELS[level];
  let line = `${time} ${shownLevel} ${escape(event)}`;
  if (process !== undefined) line += ` process=${process}`;
  for (const name of Object.keys(fields)) {
    const value = show(fields, name, pretty);
    if (value !== undefined) line += ` ${prettyNames.of(name)}=${value}`;
  }
  return line;
}

/** Undefined when it is not there. A getter or a proxy that throws spoils its own field only. */
function show(fields: LogFields, name: string, format: (value: unknown) => string): string | undefined {
  try {
    const value = fields[name];
    return value === undefined ? undefined : format(value);
  } catch {
    return format("[unreadable]");
  }
}

function json(value: unknown): string {
  const plain = plainOf(value);
  if (plain === null || typeof plain === "boolean") return String(plain);
  if (typeof plain === "number") return Number.isFinite(plain) ? String(plain) : `"${plain}"`;
  if (!(value instanceof Error)) return jsonText(plain);
  const name = jsonText(cut(String(value.name)));
  return `{"name":${name},"message":${jsonText(cut(describe(value)))},"stack":${jsonText(plain)}}`;
}

function pretty(value: unknown): string {
  return quote(value instanceof Error ? cut(describe(value)) : String(plainOf(value)));
}

/** The value itself where JSON has its like, else text. */
function plainOf(value: unknown): string | number | boolean | null {
  switch (typeof value) {
    case "string":
      return cut(value);
    case "boolean":
    case "number":
      return value;
    case "bigint":
      return String(value);
  }
  return value === null ? null : cut(Deno.inspect(value, { colors: false, depth: 2, iterableLimit: 20 }));
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

function jsonText(text: string): string {
  return BARE.test(text) ? `"${text}"` : escape(JSON.stringify(text));
}

function escape(text: string): string {
  return text.replace(UNSAFE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
