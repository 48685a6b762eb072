/** Settings as people may see them: with who says so, and without what must not be seen. Pure. */
import type { Config, Reading, Setting, SettingsFile, Source } from "./settings.ts";
import { rows } from "./settings.ts";

/** A setting as it is in effect. */
export interface Shown {
  /** Its variable. */
  readonly name: string;
  /** Undefined when it is not set. */
  readonly value: string | undefined;
  readonly source: Source;
  /** Which file, when the source is one. */
  readonly file?: string;
}

const HIDDEN = "***";

/** All settings, in the order of the table. */
export function shownSettings({ config, sources }: Reading, file?: SettingsFile): Shown[] {
  return rows().map(([key, setting]) => ({
    name: setting.env,
    value: shownValue(setting, config[key]),
    source: sources[key],
    ...(sources[key] === "file" && file && { file: file.path }),
  }));
}

/** The value as text, with `***` for what may be secret of it; undefined when there is none. */
function shownValue(setting: Setting<unknown>, value: Config[keyof Config]): string | undefined {
  if (value === undefined) return undefined;
  const text = Array.isArray(value) ? value.join(",") : String(value);
  const { isSecret, isAddress } = setting.kind;
  return isAddress ? placeOf(text) : isSecret ? HIDDEN : text;
}

/** Of an address that which says where it is: neither login, nor query, nor the path of a page. */
function placeOf(text: string): string {
  const [, scheme, rest] = /^([a-z+]+:\/\/)(.+)$/is.exec(text) ?? [];
  if (scheme === undefined || rest === undefined) return HIDDEN;
  // A password may hold what else ends it.
  const at = rest.lastIndexOf("@");
  const login = at < 0 ? "" : `${HIDDEN}@`;
  const [, place, query] = /^([^?#]*)(.*)$/s.exec(rest.slice(at + 1))!;
  const path = /^https?:/i.test(scheme) ? place!.replace(/\/.+$/, `/${HIDDEN}`) : place!;
  return scheme + login + path + (query === "" ? "" : `?${HIDDEN}`);
}

/** Whether a value that stands in a file is a secret there: an address is one only with a login or a query. */
export function isConfidential({ env, kind }: Setting<unknown>, text: string): boolean {
  if (!kind.isSecret || text === "" || env === "USERWIRE_JWT_PUBLIC_KEY") return false;
  return !kind.isAddress || /[@?]/.test(text);
}
