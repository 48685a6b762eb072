/**
 * The kinds of values that settings have: how each is read, what it must be in words, and whether it is secret. Which
 * settings there are is in `settings.ts`. Pure.
 */
import { isLoopback, isRange } from "../net/addresses.ts";
import { SECRET_FORM, secretBytes } from "../protocol/signature.ts";
import { isRedisUrl, REDIS_URL_FORM } from "../redis/address.ts";

/** How the text of a setting becomes a value. */
export interface Kind<Value> {
  /** What the value must be, as the words after "must be". */
  readonly expects: string;
  /** Unit of a number, as a plural. */
  readonly unit?: string;
  /** What JSON may have in place of the text. */
  readonly type?: "number" | "boolean" | "list";
  /** Every value there is, when they are few words. */
  readonly choices?: readonly string[];
  /** Whether the flag alone, without a value, means "true". */
  readonly bare?: true;
  /** @returns Undefined when the text is no such value. */
  parse(text: string): Value | undefined;
  /** Whether the value may hold a password or a key, and must not be shown. */
  readonly isSecret?: true;
  /** Whether it is an address, of which only some parts may be secret. */
  readonly isAddress?: true;
}

// deno-lint-ignore no-control-regex -- control characters are exactly what is refused
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

export const either = new Intl.ListFormat("en", { type: "disjunction" });

export const text: Kind<string> = {
  expects: "text without control characters",
  parse: (given) => CONTROL.test(given) ? undefined : given,
};

export const word: Kind<string> = {
  expects: "text without white space or control characters",
  parse: (given) => CONTROL.test(given) || /\s/u.test(given) ? undefined : given,
};

/** What precedes usernames in channels and keys. Braces would tear a user's channel and keys into two slots. */
export const prefix: Kind<string> = {
  expects: "text without white space, control characters or braces that does not begin with userwire: or __",
  parse(given) {
    const isForbidden = CONTROL.test(given) || /[\s{}\ufffd]/u.test(given) || !given.isWellFormed();
    return isForbidden || /^(?:userwire:|__)/.test(given) ? undefined : given;
  },
};

export const yesOrNo: Kind<boolean> = {
  expects: "true, false, 1 or 0",
  bare: true,
  type: "boolean",
  parse: (given) => /^(?:true|1)$/i.test(given) ? true : /^(?:false|0)$/i.test(given) ? false : undefined,
};

export const host: Kind<string> = {
  expects: "an address or a host name, without a port",
  parse: (given) => /^(?:[\w.-]+|[\da-f]*:[\da-f]*:[\da-f:.]*(?:%\w+)?)$/i.test(given) ? given : undefined,
};

export const origins: Kind<readonly string[]> = {
  expects:
    "a comma separated list of origins such as https://app.example.com, https://*.example.com for all names " +
    "below one, null, file://, or *",
  type: "list",
  parse(given) {
    const found = itemsOf(given).map(originOf);
    return found.every((origin) => origin !== undefined) ? Object.freeze(found) : undefined;
  },
};

export const redisUrl: Kind<string> = {
  expects: REDIS_URL_FORM,
  isSecret: true,
  isAddress: true,
  parse: (given) => isRedisUrl(given) ? given : undefined,
};

export const bytes = (min: number, max: number) => whole(min, max, "bytes");
export const seconds = (min: number, max: number) => whole(min, max, "seconds");
export const milliseconds = (min: number, max: number) => whole(min, max, "milliseconds");

export function whole(min: number, max: number, unit?: string): Kind<number> {
  return {
    expects: `a whole number${unit === undefined ? "" : ` of ${unit}`} from ${min} to ${max}`,
    ...(unit === undefined ? {} : { unit }),
    type: "number",
    parse(given) {
      const value = /^\d{1,15}$/.test(given) ? Number(given) : NaN;
      return value >= min && value <= max ? value : undefined;
    },
  };
}

/** How many processes; "auto" for one on each core. */
export const processes: Kind<number | "auto"> = {
  expects: "a whole number from 1 to 256, or auto",
  type: "number",
  parse: (given) => given.toLowerCase() === "auto" ? "auto" : whole(1, 256).parse(given),
};

export function oneOf<const Choice extends string>(...choices: readonly Choice[]): Kind<Choice> {
  return {
    expects: either.format(choices),
    choices,
    parse: (given) => choices.find((choice) => choice === given.toLowerCase()),
  };
}

/** One or more of these words, each once. */
export function someOf<const Choice extends string>(...choices: readonly Choice[]): Kind<readonly Choice[]> {
  return {
    expects: choices.length === 1 ? choices[0]! : `a comma separated list of ${either.format(choices)}`,
    choices,
    type: "list",
    parse(given) {
      const words: readonly string[] = itemsOf(given.toLowerCase());
      const found = choices.filter((choice) => words.includes(choice));
      return found.length > 0 && found.length === words.length ? Object.freeze(found) : undefined;
    },
  };
}

/** An origin as browsers write it: lower case, without the scheme's own port. */
function originOf(given: string): string | undefined {
  if (given === "*" || given === "null") return given;
  if (/^file:\/\/\/?$/i.test(given)) return "file://";
  const below = /^(https?:\/\/)\*\.([^*]*[a-z][^/*]*\/?)$/i.exec(given);
  if (below) return originOf(below[1]! + below[2]!)?.replace("://", "://*.");
  if (!/^[a-z][a-z\d+.-]*:\/\/[^\s/?#@*]+\/?$/i.test(given) || !URL.canParse(given)) return undefined;
  const { origin, protocol, host } = new URL(given);
  return origin === "null" ? `${protocol}//${host}`.toLowerCase() : origin;
}

/** Text of several lines. */
export const secret: Kind<string> = {
  expects: "text",
  isSecret: true,
  parse: (given) => given.includes("\u0000") || given.trim() === "" ? undefined : given,
};

/** Words separated by commas. */
export const list: Kind<readonly string[]> = {
  expects: "a comma separated list",
  type: "list",
  parse: (given) => CONTROL.test(given) ? undefined : Object.freeze(itemsOf(given)),
};

export const webhookSecrets: Kind<readonly string[]> = {
  expects: `one or two secrets, comma separated, each ${SECRET_FORM}`,
  isSecret: true,
  type: "list",
  parse(given) {
    const found = itemsOf(given);
    const isFit = found.length > 0 && found.length <= 2 && found.every((secret) => secretBytes(secret));
    return isFit ? Object.freeze(found) : undefined;
  },
};

export const ranges: Kind<readonly string[]> = {
  expects: "a comma separated list of addresses and ranges such as 10.0.0.0/8, fd00::/8",
  type: "list",
  parse(given) {
    const found = itemsOf(given);
    return found.every(isRange) ? Object.freeze(found) : undefined;
  },
};

/** Where something is asked or told that nobody on the way may read or change. */
export const secureUrl: Kind<string> = {
  expects: "an https:// URL (http:// only on this machine)",
  isSecret: true,
  isAddress: true,
  parse(given) {
    if (CONTROL.test(given) || !URL.canParse(given)) return undefined;
    const { protocol, hostname } = new URL(given);
    const isNear = isLoopback(hostname.replace(/^\[(.*)\]$/, "$1"));
    return protocol === "https:" || (protocol === "http:" && isNear) ? given : undefined;
  },
};

/** Where clients find the service. Read as the start of the addresses of sockets, without a slash at its end. */
export const publicUrl: Kind<string> = {
  expects:
    "an address such as wss://push.example.com or https://example.com/push, without user, query and the /ws " +
    "that is added to it",
  parse(given) {
    if (!/^(?:ws|http)s?:\/\/[^\s?#@]+$/i.test(given) || CONTROL.test(given) || !URL.canParse(given)) {
      return undefined;
    }
    const { protocol, host, pathname } = new URL(given);
    const path = pathname.replace(/\/+$/, "");
    return path.endsWith("/ws") ? undefined : `${protocol.replace("http", "ws")}//${host}${path}`;
  },
};

function itemsOf(given: string): string[] {
  return given.split(",").map((item) => item.trim()).filter((item) => item !== "");
}
