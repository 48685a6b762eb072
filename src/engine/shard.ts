/** All that this process has on one Redis, or on one master of a cluster: commands, subscriptions, histories, the probe. */
import { DedicatedSubscriptions } from "../broker/dedicated.ts";
import { Dialler } from "../broker/dialler.ts";
import { Probe } from "../broker/probe.ts";
import { NOT_COUNTING, RedisBroker } from "../broker/redis.ts";
import { SharedSubscriptions } from "../broker/shared.ts";
import { FunctionLoader, type FunctionLoaderOptions } from "../history/function_loader.ts";
import type { FunctionSettings } from "../history/function_library.ts";
import type { HistoryLimits } from "../history/history.ts";
import type { Lineage } from "../history/lineage.ts";
import { RedisStreamsHistory } from "../history/redis_streams.ts";
import type { Log, LogFields, LogLevel } from "../log/log.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { ClusterMaster } from "../redis/cluster_master.ts";
import { encodeCommand } from "../redis/resp.ts";
import { type FirstAttempt, Redis } from "../redis/commands.ts";
import type { Topology } from "../redis/topology.ts";

export interface ShardOptions {
  readonly timeoutMs: number;
  readonly limits: HistoryLimits;
  readonly subscriptions: "dedicated" | "shared";
  readonly sharedConnections: number;
  readonly channelPrefix: string;
  /** Try all the time whether what a service needs can be had. */
  readonly probe: boolean;
  /** What is done about the Redis functions: nothing, or what `FunctionLoader` does. */
  readonly functions: "off" | FunctionLoaderOptions["mode"];
  readonly functionSettings: FunctionSettings;
  readonly log?: Log;
}

export class Shard {
  readonly redis: Redis;
  readonly broker: RedisBroker;
  readonly history: RedisStreamsHistory;
  /** What is known of the Redis functions there. */
  readonly functions: FunctionLoader | undefined;
  readonly #options: ShardOptions;
  readonly #dialler: Dialler;
  readonly #probe: Probe | undefined;
  #closed: Promise<void> | undefined;

  /**
   * Opens at once.
   * @param topology Stays the caller's to close.
   * @param part Of a cluster: the same as the topology.
   */
  constructor(topology: Topology, options: ShardOptions, part?: ClusterMaster, lineage?: Lineage) {
    this.#options = options;
    const { timeoutMs, limits, channelPrefix } = options;
    const log = options.log && { log: part ? logOf(part, options.log) : options.log };
    const redis = this.redis = Redis.open(topology, { timeoutMs, ...log });
    const dialler = this.#dialler = new Dialler({ topology, redis, timeoutMs });
    const subscriptions = options.subscriptions === "shared"
      ? new SharedSubscriptions({ dialler, redis, ...log, connections: options.sharedConnections })
      : new DedicatedSubscriptions({ dialler, redis, ...log });
    const broker = this.broker = new RedisBroker({ subscriptions, redis, ...log });
    this.history = new RedisStreamsHistory(redis, {
      limits,
      onCount: (channel, count) => broker.learnCount(channel, count),
      part,
      ...(lineage && { lineage }),
    });
    if (options.functions !== "off") {
      this.functions = new FunctionLoader({
        words: topology.words,
        settings: options.functionSettings,
        mode: options.functions,
        timeline: this.history.timeline,
        ...log,
      });
      redis.watchWith(this.functions);
    }
    if (!options.probe) return;
    const id = crypto.randomUUID();
    this.#probe = new Probe({
      redis,
      channel: () => {
        const name = `${channelPrefix}${RESERVED_PREFIX}probe:${id}`;
        if (!part) return name;
        if (part.slots === "") return undefined;
        // On a cluster it has to be one that is kept here. It has no braces: they would not survive within those of keys.
        for (let number = 0;; number++) if (part.keeps(`${name}:${number}`)) return `${name}:${number}`;
      },
      dial: (channel, attempt) =>
        dialler.dialSubscribed(channel, attempt, {
          name: "userwire-probe",
          onlyMaster: true,
          // What else is sent on such connections.
          commands: [
            encodeCommand("PING"),
            ...(options.subscriptions === "shared"
              ? [encodeCommand(topology.words.unsubscribe, channel)]
              : []),
          ],
        }),
      onCounted: (counts) => broker.onCounted(counts),
      onWorking: () => broker.onWorking(),
      ...log,
    });
  }

  /** How the first attempt to connect ends, waiting for it at most so long. */
  async firstAttempt(withinMs: number): Promise<FirstAttempt> {
    const endMs = performance.now() + withinMs;
    const attempt = await this.redis.availability.firstAttempt(withinMs);
    if (attempt.outcome !== "ready" || !this.#probe) return attempt;
    await this.#probe.first(endMs - performance.now());
    if (this.#options.subscriptions === "shared" || this.#probe.counts !== false) return attempt;
    return { outcome: "refused", reason: NOT_COUNTING, remedy: "set USERWIRE_SUBSCRIPTIONS=shared" };
  }

  /** Why new users had better be sent elsewhere, as a sentence without a full stop; undefined when everything works. */
  unready(): string | undefined {
    const { availability } = this.redis;
    // What keeps subscriptions from being restored says more than that they are not.
    return availability.reason ?? this.redis.silence() ?? this.#probe?.unready() ?? this.broker.unavailable();
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.#probe?.close();
    await this.broker.close();
    this.#dialler.close();
    this.redis.close();
  }
}

/**
 * A log of which each line says where the master is that it is about: a cluster has several. One that keeps nothing any more
 * may be taken away, and nobody has to be warned of that.
 */
function logOf(part: ClusterMaster, log: Log): Log {
  const say = (level: LogLevel) => (event: string, fields?: LogFields) => {
    const isOfNoMatter = level === "warn" && part.slots === "";
    log[isOfNoMatter ? "debug" : level](event, { ...fields, master: part.place });
  };
  return {
    get level() {
      return log.level;
    },
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    flush: () => log.flush(),
    close: () => log.close(),
  };
}
