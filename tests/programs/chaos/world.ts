/** What the faults happen to: two nodes behind a proxy, their Redis behind another, and the books. */
import { DeadlineError, until } from "../../../testkit/deadline.ts";
import { ProcessService } from "../../../testkit/process_service.ts";
import type { Chance } from "../../../testkit/random.ts";
import { RedisServer, type RedisServerOptions } from "../../../testkit/redis_server.ts";
import type { Ledger } from "./ledger.ts";
import { Proxy } from "./proxy.ts";
import { RedisProxy } from "./redis_proxy.ts";

export interface WorldOptions {
  readonly ledger: Ledger;
  readonly chance: Chance;
  /** Redis keeps an append-only file. */
  readonly appendOnly: boolean;
  /** There is a replica, ready to take over. */
  readonly replicated: boolean;
  /** How many users have clients. */
  readonly users: number;
  /** Folder of the product. @default this project */
  readonly root?: URL | undefined;
  /** Whether the nodes share their subscriptions. */
  readonly isShared: boolean;
}

/** One in so many clients is away while something happens, and until so many more messages are sent to each user. */
const AWAY_ONE_IN = 3;
const AWAY_MESSAGES = 8;
const MAX_AWAY_MS = 12_000;

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
  /** In front of Redis. */
  readonly redisProxy: RedisProxy;
  /** The nodes that live. */
  readonly nodes: ProcessService[] = [];
  readonly #root: URL | undefined;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #users: number;
  #redis: RedisServer;
  #replica: RedisServer | undefined;

  private constructor(options: WorldOptions, redis: RedisServer, replica: RedisServer | undefined) {
    this.ledger = options.ledger;
    this.chance = options.chance;
    this.#root = options.root;
    this.#users = options.users;
    this.#redis = redis;
    this.#replica = replica;
    this.proxy = new Proxy(options.chance);
    this.redisProxy = new RedisProxy(redis.port);
    const subscriptions = options.isShared ? "shared" : "dedicated";
    this.#settings = { ...SETTINGS, REDIS_URL: this.redisProxy.url, USERWIRE_SUBSCRIPTIONS: subscriptions };
  }

  static async start(options: WorldOptions): Promise<World> {
    const serverOptions: RedisServerOptions = { appendOnly: options.appendOnly };
    const redis = await RedisServer.start(serverOptions);
    let world: World | undefined;
    try {
      const replica = options.replicated
        ? await RedisServer.start({ ...serverOptions, replicaOf: redis })
        : undefined;
      world = new World(options, redis, replica);
      await replica?.copied();
      await world.startNode();
      await world.startNode();
      return world;
    } catch (error) {
      await (world ?? redis)[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The Redis that is to be used: with a replica, the master of both. */
  get redis(): RedisServer {
    return this.#redis;
  }

  /** @throws {Error} in a world without one. */
  get replica(): RedisServer {
    if (!this.#replica) throw new Error("There is no replica in this world");
    return this.#replica;
  }

  /** Master and replica have changed roles: connections are led to the new master from now on. */
  swap(): void {
    [this.#redis, this.#replica] = [this.replica, this.#redis];
    this.redisProxy.turn(this.#redis.port);
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
    await this.redisProxy[Symbol.asyncDispose]();
    await this.#redis[Symbol.asyncDispose]();
    await this.#replica?.[Symbol.asyncDispose]();
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

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
