/**
 * The room `redis/` owns all that is known of Redis: where it is (`topology.ts`), its protocol, the connections to it, and
 * what its errors are called. It promises that nothing waits for ever, that a connection which breaks comes back, and that
 * no text for strangers names an address. It knows nothing of users, messages and sockets.
 *
 * This file is its door: what is asked of Redis, that is publishing, counting, and scripts over whatever is stored there.
 * All of it goes on one connection. Subscriptions have connections of their own, in `broker/`.
 */
import { sleep } from "../async/sleep.ts";
import type { BrokerUnavailableError } from "../protocol/errors.ts";
import { CommandConnection, DEFAULT_TIMEOUT_MS, type RedisOptions } from "./command_connection.ts";
import { positionKey } from "./keys.ts";
import { PLAIN, SHARDED } from "./pubsub_words.ts";
import { type Ungranted, ungrantedIn, ungrantedSeldom } from "./rights.ts";
import { evaluateOn, Script, type ScriptForm } from "./script.ts";
import { type Trial, type Trials, trialsOf } from "./trials.ts";
import { Standalone } from "./standalone.ts";
import { UrlSource } from "./url_source.ts";
import type { Topology } from "./topology.ts";
import { type Examination, examine } from "./examination.ts";
import { warningsOf } from "./warnings.ts";
import { isForbiddenWithin, isOnItsWay, isReply } from "./error_text.ts";

export type { FirstAttempt } from "./availability.ts";
export { load as loadClientLibrary } from "./client_library.ts";
export type { RedisOptions } from "./command_connection.ts";
export { groupsKey, historyKey, idempotencyKey, membersKey, metaKey, positionKey } from "./keys.ts";
export { PLAIN, type PubSubWords, SHARDED } from "./pubsub_words.ts";
export { Script } from "./script.ts";
export type { Examination } from "./examination.ts";
export type { ClusterMaster, Handover } from "./cluster_master.ts";
export { common, formatRanges, isIn, parseRanges, slotOf, type SlotRange } from "./slots.ts";
export { OTHER_DATA, type ServerInfo } from "./server_info.ts";
export type { Ask, Send, Watch } from "./greeting.ts";
export { WarningsWatch } from "./warnings_watch.ts";
export {
  isElsewhere,
  isRefusedForAll,
  isReply,
  logMessage,
  publicMessage,
  publicMessageOfReply,
} from "./error_text.ts";

/** Runs scripts where their keys are. */
export interface Scripts {
  /** Makes scripts known before they are needed. */
  prepare(...scripts: Script[]): void;
  /** Runs a script, alone and whole; all keys share a hash slot. @throws {BrokerUnavailableError} */
  evaluate(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown>;
  /** Names the life of the data where a key is; "" when it is not known. */
  lifeAt(key: string): string;
}

/**
 * The count is the subscribers of the channel. PUBLISH counts those who watch by pattern too, so its answer is taken only
 * while there are none: NUMPAT costs a third of NUMSUB. SPUBLISH knows no patterns.
 */
const PUBLISH = new Script(
  ({ publish, numsub }) => `
local channel = ARGV[1]
if ARGV[3] and redis.call('PUBSUB', '${numsub}', channel)[2] == 0 then return 0 end
local reached = redis.call('${publish}', channel, ARGV[2])
${
    publish === PLAIN.publish
      ? `if reached == 0 or redis.call('PUBSUB', 'NUMPAT') == 0 then return reached end
return redis.call('PUBSUB', '${numsub}', channel)[2]`
      : "return reached"
  }
`,
  { probe: (tag) => ({ keys: [positionKey(tag)], args: [tag, ""] }) },
);

/** Counts where the key is: PUBSUB alone is answered by every node of a cluster, for itself. */
const COUNT = new Script(({ numsub }) => `return redis.call('PUBSUB', '${numsub}', ARGV[1])[2]`);

/** What is on its way to another node of the cluster is asked for again after so long. */
const AGAIN_MS = { base: 20, jitter: 30 };

export class Redis extends CommandConnection implements Scripts {
  readonly #scripts: Script[] = [];
  /** What `tryScripts` tried last: it is the same, time after time. */
  #trials: Trials | undefined;
  readonly #timeoutMs: number;
  readonly #onScriptError = (script: ScriptForm, error: unknown) => {
    if (isForbiddenWithin(error)) this.#forbidden(script).catch(() => {});
  };

  /**
   * Starts connecting and returns at once; see `unavailable`.
   * @param where A URL; or what is asked for the place of each dial.
   */
  static open(where: string | Topology, options: RedisOptions = {}): Redis {
    const redis = new Redis(
      typeof where === "string" ? new Standalone(new UrlSource({ url: where })) : where,
      options,
    );
    redis.prepare(PUBLISH);
    return redis;
  }

  private constructor(topology: Topology, options: RedisOptions) {
    super(topology, options);
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  /**
   * @param options.onlyIfHeard Publishes nothing when nobody is subscribed.
   * @returns How many subscriptions the channel has; a watcher by pattern is none.
   */
  publish(
    channel: string,
    payload: string,
    options: { onlyIfHeard?: boolean } = {},
  ): Promise<number> {
    const args = options.onlyIfHeard ? [channel, payload, "1"] : [channel, payload];
    // A cluster needs the key to know whether this is the node to count.
    const keys = this.#isSharded ? [positionKey(channel)] : [];
    return this.evaluate(PUBLISH, keys, args) as Promise<number>;
  }

  /** @returns How many subscriptions each channel has, in the order asked. */
  counts(channels: readonly string[]): Promise<number[]> {
    if (!this.#isSharded) return this.ownCounts(channels);
    const counting = channels.map((channel) => this.evaluate(COUNT, [positionKey(channel)], [channel]));
    return Promise.all(counting) as Promise<number[]>;
  }

  /** The same, as far as this server knows: on a cluster those that it does not keep have none. */
  async ownCounts(channels: readonly string[]): Promise<number[]> {
    if (channels.length === 0) return [];
    const { numsub } = this.topology.words;
    const counts = await this.command((client) =>
      client.sendCommand<unknown[]>(["PUBSUB", numsub, ...channels])
    );
    // The reply alternates names and numbers.
    return channels.map((_, i) => Number(counts[2 * i + 1]));
  }

  /** How many connections Redis has, and how many it takes: Infinity when it does not say, as before 6.2. */
  async clients(): Promise<{ connected: number; max: number }> {
    const info = await this.command((client) => client.info("clients"));
    // Those to the other nodes of a cluster are none of the clients, and take places all the same.
    const bus = Number(/^cluster_connections:(\d+)/m.exec(info)?.[1] ?? 0);
    return {
      connected: Number(/^connected_clients:(\d+)/m.exec(info)?.[1]) + bus,
      max: Number(/^maxclients:(\d+)/m.exec(info)?.[1] ?? Infinity),
    };
  }

  /** What it is set to that may lose data: sentences without a full stop. @throws {BrokerUnavailableError} */
  async warnings(): Promise<string[]> {
    const fromMs = Date.now();
    const info = await this.command((client) => client.info());
    const toMs = Date.now();
    const save = await this.command(async (client) => {
      // An ACL user of its own should not have that right, and Redis notes each trial.
      if (this.topology.locate()?.username !== undefined) return undefined;
      try {
        return (await client.configGet("save")).save;
      } catch (error) {
        // Managed services forbid it.
        if (isReply(error)) return undefined;
        throw error;
      }
    });
    return warningsOf(info, save, { fromMs, toMs });
  }

  /** What it says of itself, for a doctor. @throws {BrokerUnavailableError} */
  examine(): Promise<Examination> {
    return this.command((client) => examine(client, this.topology.locate()?.username === undefined));
  }

  /**
   * Makes scripts known to Redis on every connection from the next one on, before anything is sent on it. Without that
   * the first batch after a restart would be told a thousand times that the script is not there.
   */
  prepare(...scripts: Script[]): void {
    this.#scripts.push(...scripts);
    this.#trials = undefined;
    // Not SCRIPT LOAD, which is a right of its own.
    for (const script of scripts) {
      this.greeting.commands.push(["EVAL", script.in(this.topology.words).source, "0"]);
    }
  }

  /** Runs a script, alone and whole; all keys must share a hash slot. */
  evaluate(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    let bytes = 0;
    for (const arg of args) bytes += arg.length;
    const form = script.in(this.topology.words);
    const run = () =>
      this.command((client) => evaluateOn(client, form, keys, args, this.#onScriptError), bytes);
    return this.#isSharded ? this.#whenArrived(run) : run();
  }

  lifeAt(): string {
    return this.server?.life ?? "";
  }

  /**
   * Runs a script that answers for each of several things: where Redis refused one, a `BrokerUnavailableError` stands in
   * its place.
   */
  async evaluateEach(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown[]> {
    const replies = await this.evaluate(script, keys, args) as unknown[];
    const refusal = replies.find(isReply);
    if (refusal === undefined) return replies;
    this.#onScriptError(script.in(this.topology.words), refusal);
    return replies.map((reply) => isReply(reply) ? this.failure(reply).error : reply);
  }

  /**
   * Tries the scripts that were prepared, as they say themselves.
   * @param tag Of this process alone, see `ScriptOptions.probe`.
   * @returns Why one of them can't do its work, as a sentence without a full stop; undefined when all can.
   */
  async tryScripts(tag: string): Promise<string | undefined> {
    const { words } = this.topology;
    if (this.#trials?.tag !== tag) this.#trials = trialsOf(this.#scripts, words, tag);
    const { scripts, seldom } = this.#trials;
    // All in one go: a turn of the event loop for each is what they would cost most.
    const tried = await Promise.allSettled(scripts.map((trial) => this.#try(trial)));
    for (const [i, trial] of tried.entries()) {
      if (trial.status === "fulfilled") continue;
      const { cause, message } = trial.reason as BrokerUnavailableError;
      if (!isForbiddenWithin(cause)) return message;
      return await this.#forbidden(scripts[i]!.form, tag).catch(() => message);
    }
    try {
      const missing = await this.command((client) => ungrantedSeldom(client, seldom, words, tag));
      return missing && this.#ungranted(missing);
    } catch (error) {
      return (error as BrokerUnavailableError).message;
    }
  }

  #try({ form, keys, args }: Trial): Promise<unknown> {
    return this.command((client) => {
      const trial = evaluateOn(client, form, keys, args);
      // Right behind it: nobody else should find what was only tried.
      if (keys.length > 0) client.sendCommand(["DEL", ...keys]).catch(() => {});
      return trial;
    });
  }

  get #isSharded(): boolean {
    return this.topology.words === SHARDED;
  }

  /**
   * Runs it again while what it needs is on its way to another node. There it is not asked for before it has arrived:
   * until then the subscriptions, which have to be counted, are where it comes from.
   */
  async #whenArrived(run: () => Promise<unknown>): Promise<unknown> {
    const endMs = performance.now() + this.#timeoutMs;
    for (;;) {
      try {
        return await run();
      } catch (error) {
        if (!isOnItsWay((error as Error).cause) || performance.now() > endMs) throw error;
        await sleep(AGAIN_MS.base + Math.random() * AGAIN_MS.jitter, this.closing);
      }
    }
  }

  /** Finds out and tells the log which of a script's commands are forbidden; resolves with that in words. */
  async #forbidden(script: ScriptForm, tag = "probe"): Promise<string> {
    const { words } = this.topology;
    return this.#ungranted(await this.command((client) => ungrantedIn(client, script, words, tag)));
  }

  #ungranted({ reason, detail }: Ungranted): string {
    this.availability.warn("redis refused a command", reason, detail);
    return reason;
  }
}
