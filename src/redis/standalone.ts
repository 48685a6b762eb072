/** Where Redis is dialled: at an address that stays, or at the one in a file, which may change while we run. */
import { ConfigError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import { databaseFault, redisUrl } from "../config/kinds.ts";
import { isSamePlace, parseRedisUrl, type RedisAddress, type RedisTls } from "./address.ts";

export interface TargetOptions {
  /** One of both: a URL, or the absolute path of a file that holds one and nothing else. */
  readonly url?: string | undefined;
  readonly file?: string | undefined;
  readonly tls?: RedisTls | undefined;
  /** Without one a database other than 0 is no good. @default "" */
  readonly channelPrefix?: string | undefined;
  readonly log?: Log | undefined;
}

/** Refused logins come in crowds: the file is looked at once for all of them. */
const AGAIN_MS = 1_000;

export class RedisTarget {
  readonly #options: TargetOptions;
  #url: string;
  #address: RedisAddress;
  #lookedAtMs = -Infinity;
  #fault: string | undefined;

  /**
   * @throws {ConfigError} when the file can't be read, or holds no URL of Redis. What it holds is not shown.
   * @throws {TypeError} when the URL that was given is none.
   */
  constructor(options: TargetOptions) {
    this.#options = options;
    this.#url = options.file === undefined ? options.url! : readUrl(options.file, options);
    this.#address = this.#parsed();
  }

  get address(): RedisAddress {
    return this.#address;
  }

  /**
   * Reads the file again, if there is one.
   * @returns Whether it leads to another place than before; who logs in there is no part of the place.
   * @throws {ConfigError} as the constructor; the old address stays.
   */
  reload(): boolean {
    const { file } = this.#options;
    if (file === undefined) return false;
    const url = readUrl(file, this.#options);
    this.#fault = undefined;
    if (url === this.#url) return false;
    const before = this.#address;
    this.#url = url;
    this.#address = this.#parsed();
    this.#options.log?.info("redis address read again");
    return !isSamePlace(before, this.#address);
  }

  /** Redis refused the login: the file may hold another by now. A fault of it is logged, once. */
  onLoginRefused(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lookedAtMs < AGAIN_MS) return;
    this.#lookedAtMs = nowMs;
    try {
      this.reload();
    } catch (error) {
      if (messageOf(error) === this.#fault) return;
      this.#fault = messageOf(error);
      this.#options.log?.error("not reloaded", { reason: this.#fault });
    }
  }

  #parsed(): RedisAddress {
    const address = parseRedisUrl(this.#url);
    return address.transport === "tls" ? { ...address, tls: this.#options.tls } : address;
  }
}

function readUrl(path: string, { channelPrefix = "" }: TargetOptions): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(path).trim();
  } catch (error) {
    throw new ConfigError([`REDIS_URL_FILE: ${path} can't be read (${messageOf(error)}): correct the path`]);
  }
  const url = redisUrl.parse(text);
  if (url === undefined) {
    throw new ConfigError([
      `REDIS_URL_FILE: ${path} must hold ${redisUrl.expects}, and nothing else (not shown: it may hold a secret)`,
    ]);
  }
  const fault = databaseFault(url, channelPrefix);
  if (fault !== undefined) throw new ConfigError([`REDIS_URL_FILE: the URL in ${path} ${fault}`]);
  return url;
}
