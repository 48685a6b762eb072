/** Where the URL of Redis comes from: it is given once, or stands in a file, which may change while the service runs. */
import type { Log } from "../log/log.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import {
  databaseFault,
  isRedisUrl,
  parseRedisUrl,
  REDIS_URL_FORM,
  type RedisTls,
  type RedisUrl,
} from "./address.ts";

export interface UrlSourceOptions {
  /** One of both: a URL, or the absolute path of a file that holds one and nothing else. */
  readonly url?: string | undefined;
  readonly file?: string | undefined;
  readonly tls?: RedisTls | undefined;
  /** Without one the file may name no database other than 0. @default "" */
  readonly channelPrefix?: string | undefined;
  readonly log?: Log | undefined;
}

/** Refused logins come in crowds: the file is looked at once for all of them. */
const AGAIN_MS = 1_000;

export class UrlSource {
  readonly #options: UrlSourceOptions;
  readonly #listeners: ((before: RedisUrl) => void)[] = [];
  #text: string;
  #url: RedisUrl;
  #lookedAtMs = -Infinity;
  #fault: string | undefined;

  /**
   * @throws {ConfigError} when the file can't be read, or holds no URL of Redis. What it holds is not shown.
   * @throws {TypeError} when the URL that was given is none.
   */
  constructor(options: UrlSourceOptions) {
    this.#options = options;
    this.#text = options.file === undefined ? options.url! : readUrl(options.file, options);
    this.#url = this.#parsed(this.#text);
  }

  /** What the URL says now. */
  get url(): RedisUrl {
    return this.#url;
  }

  /** Calls back when the file holds another URL than before, with what that said. */
  onChange(listener: (before: RedisUrl) => void): void {
    this.#listeners.push(listener);
  }

  /** The file may hold another login by now: reads it again. A fault of it is logged, once. */
  loginRefused(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lookedAtMs < AGAIN_MS) return;
    this.#lookedAtMs = nowMs;
    try {
      this.reload();
    } catch (error) {
      if (messageOf(error) === this.#fault) return;
      this.#fault = messageOf(error);
      this.#options.log?.error("settings not reloaded", { reason: this.#fault });
    }
  }

  /**
   * Reads the file again, if there is one.
   * @throws {ConfigError} as the constructor, and where it leads to Sentinels that did not before, or the other way
   *   round; the old URL stays.
   */
  reload(): void {
    const { file, log } = this.#options;
    if (file === undefined) return;
    const text = readUrl(file, this.#options);
    const url = this.#parsed(text);
    if ((url.sentinel === undefined) !== (this.#url.sentinel === undefined)) {
      throw new ConfigError([
        "REDIS_URL_FILE: the URL changed between one of Sentinels and one of a Redis: restart the service",
      ]);
    }
    this.#fault = undefined;
    if (text === this.#text) return;
    const before = this.#url;
    this.#text = text;
    this.#url = url;
    log?.info("redis address reloaded");
    for (const listener of this.#listeners) listener(before);
  }

  #parsed(text: string): RedisUrl {
    const url = parseRedisUrl(text);
    return url.transport === "tls" ? { ...url, tls: this.#options.tls } : url;
  }
}

function readUrl(path: string, { channelPrefix = "" }: UrlSourceOptions): string {
  let url: string;
  try {
    url = Deno.readTextFileSync(path).trim();
  } catch (error) {
    throw new ConfigError([`REDIS_URL_FILE: ${path} can't be read (${messageOf(error)}): correct the path`]);
  }
  if (!isRedisUrl(url)) {
    throw new ConfigError([
      `REDIS_URL_FILE: ${path} must hold ${REDIS_URL_FORM}, and nothing else (not shown: it may hold a secret)`,
    ]);
  }
  const fault = databaseFault(parseRedisUrl(url), channelPrefix);
  if (fault !== undefined) throw new ConfigError([`REDIS_URL_FILE: the URL in ${path} ${fault}`]);
  return url;
}
