/**
 * A real master with a replica and three Sentinels that watch them and fail over when the master has not answered for a
 * second. All of it ends with the test:
 *
 *     await using set = await SentinelSet.start();
 *     await using service = await Service.start({ REDIS_URL: set.url });
 */
import type { Certificates } from "./certificates.ts";
import { until, withDeadline } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { findRedisServer, REDIS_MISSING } from "./programs.ts";
import { RedisCommands, type Reply } from "./redis_commands.ts";
import { RedisServer } from "./redis_server.ts";

export interface SentinelOptions {
  /** Password of the Sentinels. */
  readonly password?: string;
  /** All speak TLS with one another and with clients. They stay the caller's to remove. */
  readonly tls?: Certificates;
}

/** What the Sentinels call the master. */
export const MASTER = "main";
const START_MS = 30_000;
const COUNT = 3;
/** How often a Sentinel publishes what it knows, by itself. */
const PUBLISH_MS = 2_000;
/** How many must find the master down. */
const QUORUM = 2;

export class SentinelSet implements AsyncDisposable {
  /** The one that was the master at first, and its replica. */
  readonly servers: readonly RedisServer[];
  readonly sentinels: readonly SentinelServer[];

  private constructor(servers: readonly RedisServer[], sentinels: readonly SentinelServer[]) {
    this.servers = servers;
    this.sentinels = sentinels;
  }

  /** Resolves when each Sentinel knows the replica and the other Sentinels. */
  static async start(options: SentinelOptions = {}): Promise<SentinelSet> {
    await using stack = new AsyncDisposableStack();
    const tls = options.tls && { tls: options.tls };
    const master = stack.use(await RedisServer.start({ ...tls }));
    const replica = stack.use(await RedisServer.start({ replicaOf: master, ...tls }));
    await replica.copied();
    const sentinels: SentinelServer[] = [];
    await Promise.all(Array.from({ length: COUNT }, async () => {
      sentinels.push(stack.use(await SentinelServer.start(master.peerPort, options)));
    }));
    const set = new SentinelSet([master, replica], sentinels);
    // They hear of each other by what each publishes now and then. Redis before 7.0 can't be told how often.
    const publishEvery = (ms: number) =>
      Promise.all(
        sentinels.map((one) => one.cli("SENTINEL", "DEBUG", "PUBLISH-PERIOD", ms).catch(() => {})),
      );
    await publishEvery(100);
    for (const sentinel of sentinels) {
      let seen: ReadonlyMap<string, string> = new Map();
      await until(
        async () => {
          seen = await sentinel.master();
          return seen.get("num-slaves") === "1" && seen.get("num-other-sentinels") === `${COUNT - 1}`;
        },
        "a Sentinel to know the replica and the other Sentinels",
        START_MS,
        () => JSON.stringify([...seen]),
      );
    }
    await publishEvery(PUBLISH_MS);
    stack.move();
    return set;
  }

  /** `redis+sentinel://` or `rediss+sentinel://` with all of them. */
  get url(): string {
    const { scheme } = this.sentinels[0]!;
    return `${scheme}://${
      this.sentinels.map(({ clientPort }) => `127.0.0.1:${clientPort}`).join(",")
    }/${MASTER}`;
  }

  /** Whom the first Sentinel takes for the master. */
  async master(): Promise<RedisServer> {
    const port = (await this.sentinels[0]!.master()).get("port");
    return this.servers.find((server) => `${server.peerPort}` === port)!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of [...this.sentinels, ...this.servers]) await one[Symbol.asyncDispose]();
  }
}

/** One Sentinel, in a process of its own. */
export class SentinelServer implements AsyncDisposable {
  readonly #port: OwnPort;
  readonly #tlsPort: OwnPort | undefined;
  readonly #dir: string;
  readonly #child: Deno.ChildProcess;
  readonly #options: SentinelOptions;

  private constructor(
    [port, tlsPort]: readonly [OwnPort, OwnPort | undefined],
    dir: string,
    child: Deno.ChildProcess,
    options: SentinelOptions,
  ) {
    this.#port = port;
    this.#tlsPort = tlsPort;
    this.#dir = dir;
    this.#child = child;
    this.#options = options;
  }

  /** Resolves when it answers. */
  static async start(masterPort: number, options: SentinelOptions): Promise<SentinelServer> {
    const installed = findRedisServer();
    if (installed === undefined) throw new Error(REDIS_MISSING);
    const { password, tls } = options;
    const dir = await Deno.makeTempDir({ prefix: "userwire-sentinel-" });
    const port = OwnPort.take();
    const tlsPort = tls && OwnPort.take();
    // What it learns it writes into this file.
    await Deno.writeTextFile(
      `${dir}/sentinel.conf`,
      [
        `port ${port}`,
        ...(tls
          ? [
            `tls-port ${tlsPort}`,
            "tls-replication yes",
            ...tls.forRedis().map(([name, value]) => `${name} ${value}`),
          ]
          : []),
        "bind 127.0.0.1",
        `dir ${dir}`,
        `logfile ${dir}/sentinel.log`,
        ...(password === undefined ? [] : [`requirepass ${password}`, `sentinel sentinel-pass ${password}`]),
        `sentinel monitor ${MASTER} 127.0.0.1 ${masterPort} ${QUORUM}`,
        `sentinel down-after-milliseconds ${MASTER} 1000`,
        `sentinel failover-timeout ${MASTER} 3000`,
        "",
      ].join("\n"),
    );
    // The binary goes by its name, see programs.ts.
    await Deno.symlink(installed, `${dir}/redis-sentinel`);
    const child = new Deno.Command(`${dir}/redis-sentinel`, {
      args: [`${dir}/sentinel.conf`, "--sentinel"],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const sentinel = new SentinelServer([port, tlsPort], dir, child, options);
    try {
      await until(
        async () => await sentinel.cli("PING").catch(() => "") === "PONG",
        "a Sentinel to answer",
        START_MS,
        () => Deno.readTextFileSync(`${dir}/sentinel.log`).slice(-300),
      );
      return sentinel;
    } catch (error) {
      await sentinel[Symbol.asyncDispose]();
      throw error;
    }
  }

  get port(): number {
    return this.#port.number;
  }

  /** Port and scheme for clients. */
  get clientPort(): number {
    return (this.#tlsPort ?? this.#port).number;
  }

  get scheme(): string {
    return this.#tlsPort ? "rediss+sentinel" : "redis+sentinel";
  }

  /** Runs one command over a connection of its own, with the password. */
  async cli(...args: (string | number)[]): Promise<Reply> {
    using commands = await RedisCommands.connect({ port: this.port }, this.#options);
    return await commands.command(...args);
  }

  /** What it says of the master, by the names of the fields. */
  async master(): Promise<ReadonlyMap<string, string>> {
    const reply = await this.cli("SENTINEL", "MASTER", MASTER) as string[];
    return new Map(reply.flatMap((name, i) => i % 2 === 0 ? [[name, reply[i + 1]!] as const] : []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await withDeadline(this.#child.status, START_MS, "a Sentinel to end");
    this.#port[Symbol.dispose]();
    this.#tlsPort?.[Symbol.dispose]();
    await Deno.remove(this.#dir, { recursive: true });
  }
}
