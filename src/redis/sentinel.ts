/**
 * The topology of one Redis whose place is known to Sentinels: each of them is asked once a second where the master is.
 *
 * Of their answers that of the newest configuration counts, so that a Sentinel that was cut off leads nobody back. They
 * say where the master is, not that the server there knows it: a server that is none is left at its greeting. While no
 * Sentinel answers, the master stays where it was.
 */
import { sleep } from "../async/sleep.ts";
import type { Log } from "../log/log.ts";
import { WarnOnce } from "../log/warn_once.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Place, RedisAddress, RedisUrl } from "./address.ts";
import { isRefusal } from "./client_library.ts";
import { isReply, logMessage, publicMessage } from "./error_text.ts";
import { Link } from "./link.ts";
import { PLAIN } from "./pubsub_words.ts";
import type { Topology } from "./topology.ts";
import type { UrlSource } from "./url_source.ts";

export interface SentinelOptions {
  /** That of the Sentinels themselves; unset where they want none. */
  readonly password?: string | undefined;
  readonly log?: Log | undefined;
}

const LOOK_MS = 1_000;
/** How long the others are waited for, before the answers that have come are compared. */
const ANSWER_MS = 500;
/** An answer counts for so long. */
const FRESH_MS = 3_000;

const UNREACHABLE = "Redis is not available: none of its Sentinels can be reached";
const REFUSED = "Redis' Sentinels refuse the login: set REDIS_SENTINEL_PASSWORD to theirs";
const UNKNOWN = "Redis' Sentinels know no master of the name that REDIS_URL ends with: correct it";

export class Sentinel implements Topology {
  readonly words = PLAIN;
  readonly #source: UrlSource;
  readonly #options: SentinelOptions;
  readonly #warnings: WarnOnce;
  readonly #listeners: ((reason: string) => void)[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #links: SentinelLink[] = [];
  #master: Place | undefined;
  /** Whether they have had their time to answer. */
  #hasLooked = false;

  /** @param source Whose URL names Sentinels. */
  constructor(source: UrlSource, options: SentinelOptions = {}) {
    this.#source = source;
    this.#options = options;
    this.#warnings = new WarnOnce(options.log);
    source.onChange((before) => this.#changed(before));
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
    this.#begin();
  }

  locate(): RedisAddress | undefined {
    if (this.#master === undefined && !this.#hasLooked) return undefined;
    if (this.#master === undefined) throw new BrokerUnavailableError(this.#reason());
    const { sentinel: _, ...login } = this.#source.url;
    return { ...login, ...this.#master };
  }

  onChange(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }

  doubt(): void {
    void this.#look();
  }

  async confirm(): Promise<void> {
    await this.#look();
  }

  loginRefused(): void {
    this.#source.loginRefused();
  }

  reload(): void {
    this.#source.reload();
  }

  close(): void {
    clearInterval(this.#timer);
    for (const link of this.#links.splice(0)) link.close();
  }

  #begin(): void {
    const { url } = this.#source;
    const { places, master } = url.sentinel!;
    const { password } = this.#options;
    this.#links = places.map((place) => {
      const address = { ...url, ...place, username: undefined, password, database: 0 };
      return new SentinelLink(address, master, this.#warnings);
    });
    void this.#look();
  }

  /** Asks all of them, and takes the newest answer. */
  async #look(): Promise<void> {
    const links = this.#links;
    await sleep(ANSWER_MS, Promise.all(links.map((link) => link.ask())));
    if (links !== this.#links) return;
    this.#hasLooked = true;
    const oldestMs = performance.now() - FRESH_MS;
    const newest = links.flatMap(({ said }) => said && said.atMs > oldestMs ? [said] : [])
      .toSorted((one, other) => other.epoch - one.epoch)[0];
    if (newest === undefined) return;
    const { hostname, port } = newest.master;
    const before = this.#master;
    if (before?.hostname === hostname && before.port === port) return;
    this.#master = newest.master;
    this.#options.log?.info("redis master found", { host: hostname, port });
    if (before) this.#tell("Redis has another master than before");
  }

  /** The file with the URL holds another one. */
  #changed({ sentinel: before }: RedisUrl): void {
    const { sentinel } = this.#source.url;
    if (JSON.stringify(before) === JSON.stringify(sentinel)) return;
    for (const link of this.#links) link.close();
    this.#master = undefined;
    this.#begin();
    this.#tell("REDIS_URL_FILE names other Sentinels");
  }

  #tell(reason: string): void {
    for (const listener of this.#listeners) listener(reason);
  }

  /** Why the master is not known: what a Sentinel said explains more than that none could be asked. */
  #reason(): string {
    const reasons = this.#links.map(({ reason }) => reason);
    return [UNKNOWN, REFUSED].find((reason) => reasons.includes(reason)) ?? UNREACHABLE;
  }
}

/** What a Sentinel said. */
interface Said {
  readonly master: Place;
  /** Of the configuration: each failover has a higher one. */
  readonly epoch: number;
  /** On the clock of `performance.now()`. */
  readonly atMs: number;
}

/** One Sentinel. */
class SentinelLink {
  /** What it said last. */
  said: Said | undefined;
  /** Why it said nothing the last time it was asked. */
  reason: string | undefined;
  readonly #link: Link;
  readonly #name: string;
  readonly #warnings: WarnOnce;

  constructor(address: RedisAddress, name: string, warnings: WarnOnce) {
    this.#link = new Link(address);
    this.#name = name;
    this.#warnings = warnings;
  }

  /** Resolves when it has said where the master is, or can't. */
  async ask(): Promise<void> {
    try {
      const fields = pairsOf((await this.#link.ask<[string[]]>(["SENTINEL", "MASTER", this.#name]))[0]);
      const master = { hostname: fields.get("ip")!, port: Number(fields.get("port")) };
      this.said = { master, epoch: Number(fields.get("config-epoch")), atMs: performance.now() };
      this.reason = undefined;
    } catch (error) {
      if (this.#link.isClosed) return;
      this.reason = isReply(error) && /No such master/i.test(messageOf(error))
        ? UNKNOWN
        : isRefusal(error)
        ? REFUSED
        : UNREACHABLE;
      const detail = `${this.#link.place}: ${logMessage(messageOf(error))}`;
      // Others may be there.
      const reason = this.reason === UNREACHABLE ? publicMessage(error) : this.reason;
      this.#warnings.warn("sentinel does not answer", reason, detail);
    }
  }

  close(): void {
    this.#link.close();
  }
}

/** A reply that alternates names and values. */
function pairsOf(reply: readonly string[]): Map<string, string> {
  return new Map(reply.flatMap((name, i) => i % 2 === 0 ? [[name, reply[i + 1]!] as const] : []));
}
