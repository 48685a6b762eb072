/**
 * A file of settings, in JSON: one object, whose keys are the variables. So a file of variables becomes one by its form
 * alone, and faults, documentation and file have one name for each setting. A number, a word and true or false stand as
 * JSON has them, a list is an array; all may be text too, as in a variable.
 */
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { isConfidential } from "./shown.ts";
import { rows, type Setting, type SettingsFile } from "./settings.ts";
import { notASetting } from "./suggestions.ts";

/** Rights of users who are neither the owner nor in the file's group, to read. */
const OTHERS_READ = 0o004;

/**
 * Reads a file of settings.
 * @throws {ConfigError} when it can't be read or is no object of JSON. What is wrong in it is in `faults`.
 */
export function readSettingsFile(path: string): SettingsFile {
  const given = parse(path);
  const settings = new Map(rows().map(([, setting]) => [setting.env, setting]));
  const values: Record<string, string> = {};
  const faults: string[] = [];
  const confidential: string[] = [];
  for (const [name, value] of Object.entries(given)) {
    const setting = settings.get(name);
    if (!setting) {
      faults.push(`${path}: ${unknownName(name, [...settings.values()])}`);
      continue;
    }
    const text = textOf(value, setting);
    if (text === undefined) faults.push(wrongType(path, value, setting));
    else {
      values[name] = text;
      if (isConfidential(setting, text)) confidential.push(name);
    }
  }
  if (confidential.length > 0 && isReadByAll(path)) {
    faults.push(
      `${path} can be read by every user of this machine and holds ${confidential.join(", ")}: ` +
        "take that right away (chmod o-r), or set them as variables",
    );
  }
  return { path, values, faults };
}

/** @throws {ConfigError} that quotes nothing of the file: it may be anything. */
function parse(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : messageOf(error);
    throw new ConfigError([`--config ${path} can't be read: ${reason}: correct the path, or leave it out`]);
  }
  let value: unknown;
  try {
    // Some editors begin a file with a mark of its byte order.
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (error) {
    const place = /\bline \d+ column \d+/.exec(messageOf(error))?.[0];
    throw new ConfigError([
      `${path} must hold JSON, but does not${place === undefined ? "" : ` from ${place} on`}: ` +
      "comments and commas behind the last entry are not JSON",
    ]);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new ConfigError([`${path} must hold one object, such as {"PORT": 8765, "LOG_FORMAT": "json"}`]);
}

/** As the variable would say it; undefined when the setting has no values of this type. */
function textOf(value: unknown, { kind }: Setting<unknown>): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") {
    // One that is of this type, but out of range, is a fault as in a variable.
    const isOfType = kind.type === (typeof value);
    return isOfType ? String(value) : undefined;
  }
  const isList = kind.type === "list" && Array.isArray(value) &&
    value.every((item) => typeof item === "string" && !item.includes(","));
  return isList ? value.join(",") : undefined;
}

function wrongType(path: string, value: unknown, { env, kind }: Setting<unknown>): string {
  const json = { number: "a number", boolean: "true or false", list: "an array of texts without commas" };
  const wanted = kind.type === undefined ? "" : `${json[kind.type]}, or `;
  const found = value === null
    ? "null"
    : Array.isArray(value)
    ? "an array"
    : `a value of type ${typeof value}`;
  return `${path}: ${env} must be ${wanted}a text, but is ${found}: give ${kind.expects}`;
}

function unknownName(name: string, settings: readonly Setting<unknown>[]): string {
  const meant = settings.find(({ env, flag }) =>
    flag === name.replace(/^--/, "") || env === name.toUpperCase()
  );
  if (meant) return `${name} is not a setting: rename it to ${meant.env}, the name of its variable`;
  return notASetting(name, settings.map(({ env }) => env));
}

function isReadByAll(path: string): boolean {
  const { mode } = Deno.statSync(path);
  // Windows has no such rights.
  return mode !== null && (mode & OTHERS_READ) !== 0;
}
