/** Usernames, the channels they become, and names of groups. Pure; clients may use it. */
import { InvalidGroupNameError, InvalidUsernameError } from "./errors.ts";

const MAX_USERNAME_BYTES = 128;

/** Names that start with this are the service's own keys and channels, never a user's. */
export const RESERVED_PREFIX = "userwire:";

const encoder = new TextEncoder();
/** No name has these. The last are halves of surrogate pairs, and what decoders put in the place of broken bytes. */
// deno-lint-ignore no-control-regex -- control characters are exactly what is refused
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\s{}\ud800-\udfff\ufffd]/u;
/** As `isWellFormed`, which not every client's platform has. */
const HALF = /[\ud800-\udfff]/u;
// deno-lint-ignore no-control-regex -- all of ASCII
const ASCII = /^[\u0000-\u007f]*$/;

/** With what Redis' own channels begin: `__keyevent@0__:set`, `__sentinel__:hello`, `__redis__:invalidate`. */
const REDIS_PREFIX = "__";

/** Which names an installation takes. */
export interface NameRules {
  /** Lower-case names first, as the setting `USERWIRE_USERNAME_CASE=lower` asks. @default false */
  readonly fold?: boolean;
  /** Names are channels of a Redis as they stand, without a prefix: none may be one of Redis' own. @default false */
  readonly bare?: boolean;
}

/**
 * Checks a username and returns it. Usernames are compared byte for byte; no Unicode normalisation.
 * @throws {InvalidUsernameError}
 */
export function parseUsername(text: unknown, rules: NameRules = {}): string {
  return parseName(text, rules, "A username", InvalidUsernameError);
}

/**
 * Checks a username where nothing is known of the installation, as in a client, and returns it as it is.
 * @throws {InvalidUsernameError}
 */
export function checkUsername(text: unknown): string {
  return checked(text, {}, "A username", InvalidUsernameError);
}

/**
 * Checks the name of a group and returns it: what may name a user may name a group, and one name may be both. It is no
 * channel, so that names of Redis' own channels are free.
 * @throws {InvalidGroupNameError}
 */
export function parseGroupName(text: unknown, { fold = false }: NameRules = {}): string {
  return parseName(text, { fold }, "The name of a group", InvalidGroupNameError);
}

type Fault = new (text: string) => Error;

function parseName(text: unknown, rules: NameRules, what: string, Fault: Fault): string {
  if (!rules.fold || typeof text !== "string") return checked(text, rules, what, Fault);
  const folded = foldCase(text);
  if ("fault" in folded) throw new Fault(`${what} must ${folded.fault}`);
  return checked(folded.name, rules, what, Fault);
}

function checked(text: unknown, rules: NameRules, what: string, Fault: Fault): string {
  if (typeof text !== "string") throw new Fault(`${what} must be a string`);
  const fault = faultOf(text, rules);
  if (fault !== undefined) throw new Fault(`${what} must ${fault}`);
  return text;
}

function faultOf(username: string, { bare }: NameRules): string | undefined {
  if (username === "") return "not be empty";
  if (FORBIDDEN.test(username)) return faultOfCharacters(username);
  // A UTF-16 unit takes at most three bytes, so short names need no encoding to be measured.
  const bytes = username.length * 3 > MAX_USERNAME_BYTES ? encoder.encode(username).length : 0;
  if (bytes > MAX_USERNAME_BYTES) return `have at most ${MAX_USERNAME_BYTES} bytes: this one has ${bytes}`;
  if (username === "." || username === "..") return "not be one or two dots: no URL could hold it";
  if (username.startsWith(RESERVED_PREFIX)) {
    return `not start with "${RESERVED_PREFIX}": such names are reserved`;
  }
  if (bare && username.startsWith(REDIS_PREFIX)) {
    return `not start with "${REDIS_PREFIX}": such channels are those of Redis itself; ` +
      "with USERWIRE_CHANNEL_PREFIX set they are free";
  }
  return undefined;
}

function faultOfCharacters(username: string): string {
  if (HALF.test(username)) return "be valid Unicode: it holds half of a surrogate pair";
  // Names that were broken in different ways would become one user.
  if (username.includes("\ufffd")) return "be valid Unicode: it could not be read as UTF-8";
  return "not hold white space, control characters or braces";
}

/**
 * The text in lower case. A letter is refused when another capital has the same lower case, as the Kelvin sign has
 * that of K, or when it becomes several characters, as the dotted İ does: two users would become one.
 */
function foldCase(text: string): { name: string } | { fault: string } {
  if (!ASCII.test(text)) {
    for (const letter of text) {
      const small = letter.toLowerCase();
      if (small === letter) continue;
      const capital = small.toUpperCase();
      // A small letter whose capital is written in several characters, such as ß, has this one capital only.
      const isOnlyCapital = capital === letter || [...capital].length > 1;
      if ([...small].length === 1 && isOnlyCapital) continue;
      const code = letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
      return {
        fault:
          `not hold U+${code} where letter case does not count: its lower case is that of another letter too`,
      };
    }
  }
  return { name: text.toLowerCase() };
}

/** The channel of broadcasts: no user's, whatever the prefix. */
export function broadcastChannelOf(prefix = ""): string {
  return `${prefix}${RESERVED_PREFIX}all`;
}

/** The channel of a user: the prefix of the installation, then the username as it is. */
export function channelOf(username: string, prefix = ""): string {
  return prefix + username;
}

/** What a group's keys are named by. It begins as no user's channel does, whatever the prefix. */
export function groupTag(prefix: string, group: string): string {
  return `${RESERVED_PREFIX}${prefix}group:${group}`;
}
