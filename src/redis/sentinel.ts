/**
 * The topology of one Redis whose place is known to Sentinels: each of them is asked once a second where the master is.
 *
 * Of their answers that of the newest configuration counts, so that a Sentinel that was cut off leads nobody back. Where
 * Sentinels differ in one configuration, as those do that were set up each with another master, most of them decide, and
 * else the place that sorts first: each node must go the same way, in whichever order its URL names them. They say where
 * the master is, not that the server there knows it: a server that is none is left at its greeting. While no Sentinel
 * answers, the master stays where it was.
 */
import { sleep } from "../async/sleep.ts";
import { ticker } from "../async/ticker.ts";
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
  /** At the Sentinels themselves; unset for their default one. */
  readonly user?: string | undefined;
  /** The same; unset where they want none. */
  readonly password?: string | undefined;
  readonly log?: Log | undefined;
}

const LOOK_MS = 1_000;
/** How long the others are waited for, before the answers that have come are compared. */
const ANSWER_MS = 500;
/** An answer counts for so long. */
const FRESH_MS = 3_000;
/** Longer than a Sentinel needs to hear of a failover from the others: each publishes what it knows every two seconds. */
const SETTLE_MS = 5_000;

const UNREACHABLE = "Redis is not available: none of its Sentinels can be reached";
const REFUSED =
  "Redis' Sentinels refuse the login: set REDIS_SENTINEL_PASSWORD, and REDIS_SENTINEL_USER where they have users";
const FORBIDDEN = "Redis' Sentinels do not grant their user the right that is needed: +sentinel|master";
const DIFFER = "Redis' Sentinels differ in where the master is: make them watch the same one";
const UNASKED = "None of Redis' Sentinels can be asked, so no failover would be followed: the log says why";
const UNKNOWN = "Redis' Sentinels know no master of the name that REDIS_URL ends with: correct it";

export class Sentinel implements Topology {
  readonly words = PLAIN;
  readonly #source: UrlSource;
  readonly #options: SentinelOptions;
  readonly #warnings: WarnOnce;
  readonly #listeners: ((reason: string) => void)[] = [];
  readonly #stopTicking: () => void;
  #links: SentinelLink[] = [];
  #master: Place | undefined;
  /** When they were first asked, on the clock of `performance.now()`. */
  #beganMs = 0;
  /** When they began to differ, on the clock of `performance.now()`; undefined while they say the same. */
  #differSinceMs: number | undefined;

  /** @param source Whose URL names Sentinels. */
  constructor(source: UrlSource, options: SentinelOptions = {}) {
    this.#source = source;
    this.#options = options;
    this.#warnings = new WarnOnce(options.log);
    source.onChange((before) => this.#changed(before));
    this.#stopTicking = ticker.every(LOOK_MS, () => void this.#look());
    this.#begin();
  }

  locate(): RedisAddress | undefined {
    if (this.#master === undefined && this.#isAsking) return undefined;
    if (this.#master === undefined) throw new BrokerUnavailableError(this.#reason());
    const { sentinel: _, ...login } = this.#source.url;
    return { ...login, ...this.#master };
  }

  onChange(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }

  faults(): string[] {
    if (this.#master === undefined) return [];
    const silent = this.#links.filter((link) => link.heard() === undefined);
    if (silent.length === this.#links.length) return [UNASKED];
    return [
      ...(silent.length > 0
        ? [`${silent.length} of ${this.#links.length} Sentinels of Redis can't be asked: the log says why`]
        : []),
      ...(this.#isSplit ? [DIFFER] : []),
    ];
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
    this.#stopTicking();
    for (const link of this.#links.splice(0)) link.close();
  }

  #begin(): void {
    const { url } = this.#source;
    const { places, master } = url.sentinel!;
    const { user, password } = this.#options;
    this.#beganMs = performance.now();
    this.#links = places.map((place) => {
      const address = { ...url, ...place, username: user, password, database: 0 };
      return new SentinelLink(address, master, this.#warnings);
    });
    void this.#look();
  }

  /** Asks all of them, and takes the newest answer. */
  async #look(): Promise<void> {
    const links = this.#links;
    await sleep(ANSWER_MS, Promise.all(links.map((link) => link.ask())));
    if (links !== this.#links) return;
    const heard = links.flatMap((link) => link.heard() ?? []);
    this.#compare(heard);
    const newest = newestOf(heard);
    if (newest === undefined) return;
    const { hostname, port } = newest.master;
    const before = this.#master;
    if (before?.hostname === hostname && before.port === port) return;
    this.#master = newest.master;
    this.#options.log?.info("redis master found", { host: hostname, port });
    if (before) this.#tell("Redis has another master than before");
  }

  /** Whether one may still answer for the first time: on a busy machine that takes its time, and it is not away for that. */
  get #isAsking(): boolean {
    const isLate = performance.now() - this.#beganMs > FRESH_MS;
    return !isLate && this.#links.some(({ reason }) => reason === undefined);
  }

  /** Whether they differ for longer than a failover explains. */
  get #isSplit(): boolean {
    return this.#differSinceMs !== undefined && performance.now() - this.#differSinceMs > SETTLE_MS;
  }

  #compare(heard: readonly Said[]): void {
    if (new Set(heard.map(({ master }) => formatPlace(master))).size < 2) {
      this.#differSinceMs = undefined;
      return;
    }
    this.#differSinceMs ??= performance.now();
    if (!this.#isSplit) return;
    const each = heard.map(({ by, master, epoch }) => `${by} says ${formatPlace(master)} (epoch ${epoch})`);
    // In one order, whatever the URL's: so all nodes say the same of the same.
    this.#warnings.warn("sentinels differ", DIFFER, each.sort().join(", "));
  }

  /** The file with the URL holds another one. */
  #changed({ sentinel: before }: RedisUrl): void {
    const { sentinel } = this.#source.url;
    if (JSON.stringify(before) === JSON.stringify(sentinel)) return;
    for (const link of this.#links) link.close();
    this.#master = undefined;
    this.#differSinceMs = undefined;
    this.#begin();
    this.#tell("REDIS_URL_FILE names other Sentinels");
  }

  #tell(reason: string): void {
    for (const listener of this.#listeners) listener(reason);
  }

  /** Why the master is not known: what a Sentinel said explains more than that none could be asked. */
  #reason(): string {
    const reasons = this.#links.map(({ reason }) => reason);
    return [UNKNOWN, FORBIDDEN, REFUSED].find((reason) => reasons.includes(reason)) ?? UNREACHABLE;
  }
}

/** What a Sentinel said. */
interface Said {
  /** Where it is itself. */
  readonly by: string;
  readonly master: Place;
  /** Of the configuration: each failover has a higher one. */
  readonly epoch: number;
  /** On the clock of `performance.now()`. */
  readonly atMs: number;
}

/** The answer that counts, see above. */
function newestOf(heard: readonly Said[]): Said | undefined {
  const epoch = Math.max(...heard.map((said) => said.epoch));
  const places = heard.filter((said) => said.epoch === epoch).map(({ master }) => formatPlace(master));
  const votes = (place: string) => places.filter((other) => other === place).length;
  const [place] = places.toSorted((a, b) => votes(b) - votes(a) || (a < b ? -1 : 1));
  return heard.find(({ master }) => formatPlace(master) === place);
}

function formatPlace({ hostname, port }: Place): string {
  return `${hostname}:${port}`;
}

/** One Sentinel. */
class SentinelLink {
  /** Why it said nothing the last time it was asked. */
  reason: string | undefined;
  #said: Said | undefined;
  readonly #link: Link;
  readonly #name: string;
  readonly #warnings: WarnOnce;

  constructor(address: RedisAddress, name: string, warnings: WarnOnce) {
    this.#link = new Link(address);
    this.#name = name;
    this.#warnings = warnings;
  }

  /** What it said last, unless that is too long ago. */
  heard(): Said | undefined {
    return this.#said && performance.now() - this.#said.atMs < FRESH_MS ? this.#said : undefined;
  }

  /** Resolves when it has said where the master is, or can't. */
  async ask(): Promise<void> {
    try {
      const fields = pairsOf((await this.#link.ask<[string[]]>(["SENTINEL", "MASTER", this.#name]))[0]);
      const master = { hostname: fields.get("ip")!, port: Number(fields.get("port")) };
      const epoch = Number(fields.get("config-epoch"));
      this.#said = { by: this.#link.place, master, epoch, atMs: performance.now() };
      this.reason = undefined;
    } catch (error) {
      if (this.#link.isClosed) return;
      this.reason = reasonOf(error);
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

/** Why a Sentinel does not say where the master is. */
function reasonOf(error: unknown): string {
  const said = isReply(error) ? messageOf(error) : "";
  if (/No such master/i.test(said)) return UNKNOWN;
  if (said.startsWith("NOPERM")) return FORBIDDEN;
  return isRefusal(error) ? REFUSED : UNREACHABLE;
}

/** A reply that alternates names and values. */
function pairsOf(reply: readonly string[]): Map<string, string> {
  return new Map(reply.flatMap((name, i) => i % 2 === 0 ? [[name, reply[i + 1]!] as const] : []));
}
