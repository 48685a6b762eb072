/** What the faults happen to: two nodes behind a proxy, their Redis behind another, and the books. */
import { DeadlineError, until } from "../../../testkit/deadline.ts";
import { ProcessService } from "../../../testkit/process_service.ts";
import type { Chance } from "../../../testkit/random.ts";
import { ClusterSet } from "../../../testkit/redis_cluster.ts";
import { MASTER, SentinelSet } from "../../../testkit/redis_sentinel.ts";
import { RedisServer, type RedisServerOptions } from "../../../testkit/redis_server.ts";
import type { Ledger } from "./ledger.ts";
import { Proxy } from "./proxy.ts";
import { RedisProxy } from "./redis_proxy.ts";

/**
 * What the nodes find at their REDIS_URL: one Redis, by way of a proxy; one with a replica; Sentinels that watch both; or a
 * cluster of three masters, each with a replica.
 */
export type RedisKind = "one" | "replicated" | "sentinel" | "cluster";

export interface WorldOptions {
  readonly ledger: Ledger;
  readonly chance: Chance;
  /** Redis keeps an append-only file. */
  readonly appendOnly: boolean;
  readonly kind: RedisKind;
  /** How many users have clients. */
  readonly users: number;
  /** Folder of the product. @default this project */
  readonly root?: URL | undefined;
  /** Whether the nodes share their subscriptions. */
  readonly isShared: boolean;
  /** What is set besides. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** One in so many clients is away while something happens, and until so many more messages are sent to each user. */
const AWAY_ONE_IN = 3;
const AWAY_MESSAGES = 8;
const MAX_AWAY_MS = 12_000;
/**
 * Sentinels take a master for gone after so long: less than the fault that stops one, and more than this machine stands still.
 * Of a failover that nobody made the books know nothing.
 */
const DOWN_AFTER_MS = 4_000;

const SETTINGS = {
  // All clients have one address.
  USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
  USERWIRE_UPGRADES_PER_SECOND: "0",
  USERWIRE_PING_S: "2",
  USERWIRE_REDIS_TIMEOUT_MS: "2000",
  USERWIRE_HISTORY_TTL_S: "120",
};

export class World implements AsyncDisposable {
  readonly ledger: Ledger;
  readonly chance: Chance;
  /** In front of the nodes. */
  readonly proxy: Proxy;
  /** In front of Redis; none where the nodes find out by themselves where it is. */
  readonly redisProxy: RedisProxy | undefined;
  /** The nodes that live. */
  readonly nodes: ProcessService[] = [];
  readonly #root: URL | undefined;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #users: number;
  #redis: RedisServer | undefined;
  #replica: RedisServer | undefined;
  readonly #sentinels: SentinelSet | undefined;
  readonly #cluster: ClusterSet | undefined;

  private constructor(options: WorldOptions, parts: Parts) {
    this.ledger = options.ledger;
    this.chance = options.chance;
    this.#root = options.root;
    this.#users = options.users;
    this.#redis = parts.redis;
    this.#replica = parts.replica;
    this.#sentinels = parts.sentinels;
    this.#cluster = parts.cluster;
    this.proxy = new Proxy(options.chance, (user) => this.ledger.broke(user));
    if (parts.redis) this.redisProxy = new RedisProxy(parts.redis.port);
    const url = this.redisProxy?.url ?? (parts.sentinels ?? parts.cluster)!.url;
    const subscriptions = options.isShared ? "shared" : "dedicated";
    this.#settings = {
      ...SETTINGS,
      REDIS_URL: url,
      USERWIRE_SUBSCRIPTIONS: subscriptions,
      ...options.settings,
    };
  }

  static async start(options: WorldOptions): Promise<World> {
    await using stack = new AsyncDisposableStack();
    const world = stack.use(new World(options, await startRedis(options)));
    await world.startNode();
    await world.startNode();
    stack.move();
    return world;
  }

  /** The Redis that is to be used: with a replica, the master of both. @throws {Error} in a world without one. */
  get redis(): RedisServer {
    return there(this.#redis);
  }

  /** @throws {Error} in a world without one. */
  get replica(): RedisServer {
    return there(this.#replica);
  }

  /** @throws {Error} in a world without them. */
  get sentinels(): SentinelSet {
    return there(this.#sentinels);
  }

  /** @throws {Error} in a world without one. */
  get cluster(): ClusterSet {
    return there(this.#cluster);
  }

  /** Master and replica have changed roles: connections are led to the new master from now on. */
  swap(): void {
    [this.#redis, this.#replica] = [this.replica, this.redis];
    this.redisProxy!.turn(this.#redis.port);
  }

  async startNode(): Promise<void> {
    this.nodes.push(await ProcessService.start(this.#settings, this.#root ? { root: this.#root } : {}));
    this.#aim();
  }

  /** Kills a node; nobody is led to it any more. */
  async killNode(index: number): Promise<void> {
    const [victim] = this.nodes.splice(index, 1);
    this.#aim();
    victim!.signal("SIGKILL");
    await victim!.ended();
    await victim![Symbol.asyncDispose]();
  }

  /**
   * Makes something happen while a part of the clients is away. They come back with the positions they had when new
   * messages were sent already, under numbers up to those positions and beyond where the numbers were set back.
   */
  async whileSomeAreAway(happen: () => Promise<void>): Promise<void> {
    this.proxy.sendAway(AWAY_ONE_IN);
    try {
      await happen();
      await this.#areSent(AWAY_MESSAGES * this.#users);
    } finally {
      this.proxy.letIn();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    for (const node of this.nodes) await node[Symbol.asyncDispose]();
    await this.redisProxy?.[Symbol.asyncDispose]();
    for (const part of [this.#redis, this.#replica, this.#sentinels, this.#cluster]) {
      await part?.[Symbol.asyncDispose]();
    }
  }

  /** Resolves when so many more are accepted, or after a while: that all is not well is noticed elsewhere. */
  async #areSent(messages: number): Promise<void> {
    const enough = this.ledger.size + messages;
    try {
      await until(() => this.ledger.size >= enough, "messages to be accepted", MAX_AWAY_MS);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
    }
  }

  #aim(): void {
    this.proxy.targets = this.nodes.map(({ url }) => Number(new URL(url).port));
  }
}

/** What a world of one kind has of Redis. */
interface Parts {
  readonly redis?: RedisServer;
  readonly replica?: RedisServer;
  readonly sentinels?: SentinelSet;
  readonly cluster?: ClusterSet;
}

async function startRedis({ kind, appendOnly }: WorldOptions): Promise<Parts> {
  if (kind === "sentinel") {
    const sentinels = await SentinelSet.start();
    for (const sentinel of sentinels.sentinels) {
      await sentinel.cli("SENTINEL", "SET", MASTER, "down-after-milliseconds", DOWN_AFTER_MS);
    }
    return { sentinels };
  }
  if (kind === "cluster") {
    return { cluster: await ClusterSet.start({ replicas: true, nodeTimeoutMs: 3_000 }) };
  }
  await using stack = new AsyncDisposableStack();
  const serverOptions: RedisServerOptions = { appendOnly };
  const redis = stack.use(await RedisServer.start(serverOptions));
  if (kind === "one") {
    stack.move();
    return { redis };
  }
  const replica = stack.use(await RedisServer.start({ ...serverOptions, replicaOf: redis }));
  await replica.copied();
  stack.move();
  return { redis, replica };
}

/** @throws {Error} when this world has none. */
function there<T>(part: T | undefined): T {
  if (part === undefined) throw new Error("There is no such thing in this world");
  return part;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
