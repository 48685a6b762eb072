/** What the faults happen to: two instances behind a proxy, their Redis behind another, and the books. */
import { ProcessService } from "../support/process_service.ts";
import type { Chance } from "../support/random.ts";
import { RedisServer, type RedisServerOptions } from "../support/redis_server.ts";
import type { Ledger } from "./ledger.ts";
import { Proxy } from "./proxy.ts";
import { RedisProxy } from "./redis_proxy.ts";

export interface WorldOptions {
  readonly ledger: Ledger;
  readonly chance: Chance;
  /** Redis keeps an append-only file. @default false */
  readonly appendOnly?: boolean;
  /** There is a replica, ready to take over. @default false */
  readonly replicated?: boolean;
  /** Folder of the product. @default this project */
  readonly root?: URL | undefined;
}

/** Without them a replica waits seconds before it is fed, and a write that fails is not noticed. */
const REDIS_ARGS = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];

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
  /** In front of the instances. */
  readonly proxy: Proxy;
  /** In front of Redis. */
  readonly redisProxy: RedisProxy;
  /** The instances that live. */
  readonly instances: ProcessService[] = [];
  readonly #root: URL | undefined;
  #redis: RedisServer;
  #replica: RedisServer | undefined;

  private constructor(options: WorldOptions, redis: RedisServer, replica: RedisServer | undefined) {
    this.ledger = options.ledger;
    this.chance = options.chance;
    this.#root = options.root;
    this.#redis = redis;
    this.#replica = replica;
    this.proxy = new Proxy(options.chance);
    this.redisProxy = new RedisProxy(redis.port);
  }

  static async start(options: WorldOptions): Promise<World> {
    const serverOptions: RedisServerOptions = { appendOnly: options.appendOnly === true, args: REDIS_ARGS };
    const redis = await RedisServer.start(serverOptions);
    let world: World | undefined;
    try {
      const replica = options.replicated
        ? await RedisServer.start({ ...serverOptions, replicaOf: redis })
        : undefined;
      world = new World(options, redis, replica);
      await replica?.copied();
      await world.startInstance();
      await world.startInstance();
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

  async startInstance(): Promise<void> {
    const env = { REDIS_URL: this.redisProxy.url, ...SETTINGS };
    this.instances.push(await ProcessService.start(env, this.#root ? { root: this.#root } : {}));
    this.#aim();
  }

  /** Kills an instance; nobody is led to it any more. */
  async killInstance(index: number): Promise<void> {
    const [victim] = this.instances.splice(index, 1);
    this.#aim();
    victim!.signal("SIGKILL");
    await victim!.ended();
    await victim![Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    for (const instance of this.instances) await instance[Symbol.asyncDispose]();
    await this.redisProxy[Symbol.asyncDispose]();
    await this.#redis[Symbol.asyncDispose]();
    await this.#replica?.[Symbol.asyncDispose]();
  }

  #aim(): void {
    this.proxy.targets = this.instances.map(({ url }) => Number(new URL(url).port));
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
