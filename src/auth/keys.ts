/**
 * API keys: how they are made, how their hash lines are read, and whether one that is shown is among them. A line is
 *
 *     <name>:<scopes, joined by +>:<patterns, joined by |>:<SHA-256 of the key, in hex>
 *
 * A pattern is of usernames, or of names of groups when it begins with "@": `user-*|@team-*`. What of a name could be taken
 * for a "|" or for such an "@" is percent-encoded, as is all that could end the line.
 *
 * Pure. A plain hash suffices because a key is 256 random bits: nobody can go through them, however fast. (Slow
 * hashes are for passwords, which can be guessed; here one would only let strangers burn our processor.)
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { ForbiddenError, UnauthorizedError } from "../protocol/errors.ts";
import type { Caller, Scope } from "./auth.ts";

const SCOPES: readonly Scope[] = ["send", "broadcast", "read", "tickets", "groups", "admin"];

const PREFIX = "uw_";
const KEY_BYTES = 32;
const NAME = /^[A-Za-z0-9-]{1,32}$/;
const LINE = /^([A-Za-z0-9-]{1,32}):([a-z+]+):([^\s,]+):([0-9a-f]{64})$/;
/** A text that is something else has as many faults as lines: so many are listed. */
const MAX_FAULTS = 5;

/** A key as the service knows it. */
export interface KnownKey {
  readonly name: string;
  readonly scopes: ReadonlySet<Scope>;
  /** Usernames it may address; `*` stands for any text. */
  readonly users: readonly string[];
  /** Groups it may address; without any, none. */
  readonly groups: readonly string[];
  readonly hash: Uint8Array;
}

/**
 * Makes a key.
 * @param options.users Patterns of the usernames it may address, and of groups, as in the line. @default "*"
 * @returns The key, which is shown once and kept by its owner, and the line for the service.
 * @throws {TypeError} when the name, a scope or the pattern can't be used.
 */
export function newKey(
  name: string,
  options: { scopes: readonly string[]; users?: string },
): { key: string; line: string } {
  const { scopes, users = "*" } = options;
  if (!NAME.test(name)) {
    throw new TypeError(
      `A key's name must have 1 to 32 letters, digits or dashes, but is ${JSON.stringify(name)}`,
    );
  }
  const unknown = scopes.find((scope) => !isScope(scope));
  if (scopes.length === 0 || unknown !== undefined) {
    const what = JSON.stringify(unknown ?? "none");
    throw new TypeError(`Scopes must be ${SCOPES.join(", ")}, one or more of them, but there is ${what}`);
  }
  const patterns = users.split("|");
  if (patterns.some((pattern) => pattern === "" || pattern === "@")) {
    throw new TypeError(
      'No pattern of usernames or groups may be empty: "*" is all users, and "*|@*" all groups too',
    );
  }
  const key = `${PREFIX}${name}_${randomBytes(KEY_BYTES).toString("base64url")}`;
  // Whatever could end the line or the list of lines is encoded; the star is not.
  const encoded = patterns.map((pattern) =>
    pattern.replace(/^(@?)(.*)$/s, (_, at, rest) => at + encodeURIComponent(rest))
  );
  const line = [name, [...new Set(scopes)].join("+"), encoded.join("|"), hashOf(key).toString("hex")];
  return { key, line: line.join(":") };
}

/**
 * Reads hash lines. Empty ones are passed over, and so is a line that begins with #, to its end.
 * @param options.commas Whether commas separate them too, as in a variable. @default false
 * @returns The keys, and faults for what is none, some of them if there are many. They name it by its number only.
 */
export function parseKeyLines(
  text: string,
  options: { commas?: boolean } = {},
): { keys: KnownKey[]; faults: string[] } {
  const keys: KnownKey[] = [];
  const bad: number[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim().startsWith("#")) continue;
    for (const piece of options.commas ? line.split(",") : [line]) {
      if (piece.trim() === "") continue;
      const key = parseLine(piece.trim());
      if (key) keys.push(key);
      else bad.push(options.commas ? keys.length + bad.length + 1 : index + 1);
    }
  }
  const what = options.commas ? "key" : "line";
  const faults = bad.slice(0, MAX_FAULTS).map((number) =>
    `${what} ${number} must be as "userwire key new" prints it, <name>:<scopes>:<pattern>:<hash> ` +
    "(not shown: it may hold a secret)"
  );
  if (bad.length > MAX_FAULTS) {
    faults.push(`${bad.length - MAX_FAULTS} more ${what}s must be so too: is this what holds the keys?`);
  }
  return { keys, faults };
}

function parseLine(line: string): KnownKey | undefined {
  const [, name, scopeList, patternList, hash] = LINE.exec(line) ?? [];
  const scopes = scopeList?.split("+") ?? [];
  if (name === undefined || !scopes.every(isScope)) return undefined;
  const patterns = patternList!.split("|");
  if (patterns.some((pattern) => pattern === "" || pattern === "@")) return undefined;
  try {
    return {
      name,
      scopes: new Set(scopes),
      users: patterns.filter((pattern) => !pattern.startsWith("@")).map(decodeURIComponent),
      groups: patterns.filter((pattern) => pattern.startsWith("@")).map((pattern) =>
        decodeURIComponent(pattern.slice(1))
      ),
      hash: Uint8Array.fromHex(hash!),
    };
  } catch {
    return undefined; // a pattern is not what encodeURIComponent writes
  }
}

type OpeningKey = KnownKey & { readonly caller: Caller };

/** The keys that open the API at the moment. */
export class KeyRing {
  #keys: readonly OpeningKey[] = [];
  readonly #fold: boolean;

  /** @param options.fold Whether usernames are lower-cased, patterns then too. */
  constructor(keys: readonly KnownKey[], options: { fold: boolean }) {
    this.#fold = options.fold;
    this.replace(keys);
  }

  replace(keys: readonly KnownKey[]): void {
    const folded = (text: string) => this.#fold ? text.toLowerCase() : text;
    const anyOf = (patterns: readonly string[]) => {
      const all = patterns.map((pattern) => patternOf(folded(pattern)));
      return (name: string) => all.some((fits) => fits(folded(name)));
    };
    this.#keys = keys.map((key) => {
      const caller: Caller = {
        name: key.name,
        mayAddress: anyOf(key.users),
        mayAddressGroup: anyOf(key.groups),
        mayAddressAll: key.users.some((pattern) => /^\*+$/.test(pattern)),
      };
      return { ...key, caller };
    });
  }

  /** As `Auth.authorize`. */
  authorize(key: string | undefined, scope: Scope | "any"): Caller {
    if (key === undefined) {
      throw new UnauthorizedError('This call needs an API key: send it as "Authorization: Bearer <key>"');
    }
    const hash = hashOf(key);
    // Hashes, each time all of them: the time says nothing about the key, nor about which one it is.
    let found: OpeningKey | undefined;
    for (const known of this.#keys) if (timingSafeEqual(known.hash, hash)) found = known;
    if (!found) {
      throw new UnauthorizedError("The API key is not known here: it may have been replaced or mistyped");
    }
    const comesWithAdmin = scope === "tickets" || scope === "broadcast";
    const isEnough = found.scopes.has(scope as Scope) || comesWithAdmin && found.scopes.has("admin");
    if (scope !== "any" && !isEnough) {
      throw new ForbiddenError(`The key "${found.name}" lacks the scope "${scope}", which this call needs`);
    }
    return found.caller;
  }
}

function isScope(text: string): text is Scope {
  return (SCOPES as readonly string[]).includes(text);
}

function hashOf(key: string) {
  return createHash("sha256").update(key).digest();
}

/** Tells whether a text fits a pattern with stars. Piece by piece from the left, so that no pattern takes long. */
function patternOf(pattern: string): (text: string) => boolean {
  const [first, ...pieces] = pattern.split("*") as [string, ...string[]];
  const last = pieces.pop();
  if (last === undefined) return (text) => text === first;
  return (text) => {
    if (!text.startsWith(first)) return false;
    let at = first.length;
    for (const piece of pieces) {
      const found = text.indexOf(piece, at);
      if (found < 0) return false;
      at = found + piece.length;
    }
    return text.length - last.length >= at && text.endsWith(last);
  };
}
