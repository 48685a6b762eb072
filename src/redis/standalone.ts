/** The topology of one Redis that has everything: at a URL that stays, or at the one in a file, which may change. */
import type { Log } from "../log/log.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import {
  databaseFault,
  isRedisUrl,
  isSamePlace,
  parseRedisUrl,
  REDIS_URL_FORM,
  type RedisAddress,
  type RedisTls,
} from "./address.ts";
import type { Topology } from "./topology.ts";

export interface StandaloneOptions {
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

export class Standalone implements Topology {
  readonly #options: StandaloneOptions;
  readonly #listeners: ((reason: string) => void)[] = [];
  #address: RedisAddress;
  #url: string;
  #lookedAtMs = -Infinity;
  #fault: string | undefined;

  /**
   * @throws {ConfigError} when the file can't be read, or holds no URL of Redis. What it holds is not shown.
   * @throws {TypeError} when the URL that was given is none.
   */
  constructor(options: StandaloneOptions) {
    this.#options = options;
    this.#url = options.file === undefined ? options.url! : readUrl(options.file, options);
    this.#address = this.#parsed();
  }

  locate(): RedisAddress {
    return this.#address;
  }

  onChange(listener: (reason: string) => void): void {
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
   * Reads the file again, if there is one, and says so when it leads to another place; who logs in there is no part of
   * the place.
   * @throws {ConfigError} as the constructor; the old address stays.
   */
  reload(): void {
    const { file, log } = this.#options;
    if (file === undefined) return;
    const url = readUrl(file, this.#options);
    this.#fault = undefined;
    if (url === this.#url) return;
    const before = this.#address;
    this.#url = url;
    this.#address = this.#parsed();
    log?.info("redis address reloaded");
    if (isSamePlace(before, this.#address)) return;
    for (const listener of this.#listeners) listener("REDIS_URL_FILE names another Redis");
  }

  #parsed(): RedisAddress {
    const address = parseRedisUrl(this.#url);
    return address.transport === "tls" ? { ...address, tls: this.#options.tls } : address;
  }
}

function readUrl(path: string, { channelPrefix = "" }: StandaloneOptions): string {
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
