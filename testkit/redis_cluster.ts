/**
 * A real Redis cluster: masters with the slots in equal parts, and a replica for each where asked. It can be resharded, failed
 * over and broken, and it ends with the test:
 *
 *     await using cluster = await ClusterSet.start();
 *     await using service = await Service.start({ REDIS_URL: cluster.url });
 */
import type { Certificates } from "./certificates.ts";
import { until } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { RedisCommands, type Reply } from "./redis_commands.ts";
import { RedisServer, type RedisServerOptions } from "./redis_server.ts";

export interface ClusterOptions {
  /** @default 3 */
  readonly masters?: number;
  /** Whether each master has a replica. @default false */
  readonly replicas?: boolean;
  /**
   * How long a node may be silent before the others take it for failed, in milliseconds. On a busy machine all may be for
   * a second, and the cluster is then down. @default 15000
   */
  readonly nodeTimeoutMs?: number;
  readonly password?: string;
  /**
   * The nodes speak TLS with one another, and with clients that want it. They stay the caller's to remove.
   */
  readonly tls?: Certificates;
  /** More arguments for each node, as on the command line. */
  readonly args?: readonly string[];
}

const SLOTS = 16_384;
const WAIT_MS = 30_000;

/** One node. */
export interface ClusterServer extends AsyncDisposable {
  readonly server: RedisServer;
  readonly id: string;
  /** On which the nodes speak to each other. */
  readonly busPort: number;
}

export class ClusterSet implements AsyncDisposable {
  readonly #options: ClusterOptions;
  /** In the order of their start: the masters, then the replica of each. */
  readonly nodes: ClusterServer[] = [];

  private constructor(options: ClusterOptions) {
    this.#options = options;
  }

  /** Resolves when all slots are kept, and every node knows it. */
  static async start(options: ClusterOptions = {}): Promise<ClusterSet> {
    const { masters = 3, replicas = false } = options;
    await using stack = new AsyncDisposableStack();
    const cluster = stack.use(new ClusterSet(options));
    await Promise.all(Array.from({ length: masters }, () => cluster.#launch()));
    for (const [i, { server }] of cluster.nodes.entries()) {
      const first = Math.floor(SLOTS * i / masters), last = Math.floor(SLOTS * (i + 1) / masters) - 1;
      await server.cli("CLUSTER", "ADDSLOTSRANGE", first, last);
      await server.cli("CLUSTER", "SET-CONFIG-EPOCH", i + 1);
    }
    await cluster.#meet(cluster.nodes);
    if (replicas) { for (const master of cluster.nodes.slice(0, masters)) await cluster.addReplica(master); }
    await cluster.settled();
    stack.move();
    return cluster;
  }

  /** `redis://` of the first node. */
  get url(): string {
    return this.nodes[0]!.server.url;
  }

  /** `rediss://` of the first node, where it speaks TLS. */
  get tlsUrl(): string {
    return `rediss://127.0.0.1:${this.nodes[0]!.server.peerPort}`;
  }

  /** Adds a node that keeps nothing yet. */
  async addNode(): Promise<ClusterServer> {
    const node = await this.#launch();
    await this.#meet([this.nodes[0]!, node]);
    await this.settled();
    return node;
  }

  /** Adds a replica of a master. Resolves when it has a copy of it. */
  async addReplica(master: ClusterServer): Promise<ClusterServer> {
    const node = await this.addNode();
    await until(
      async () => await node.server.cli("CLUSTER", "REPLICATE", master.id).then(() => true, () => false),
      "a node to know the master that it is to follow",
      WAIT_MS,
    );
    await node.server.copied();
    return node;
  }

  /** Takes a node that keeps nothing out of the cluster, and ends it. */
  async removeNode(node: ClusterServer): Promise<void> {
    for (const { server } of this.nodes.filter((other) => other !== node)) {
      await server.cli("CLUSTER", "FORGET", node.id);
    }
    this.nodes.splice(this.nodes.indexOf(node), 1);
    await node[Symbol.asyncDispose]();
  }

  /** Resolves when every node says that all slots are kept, and all say the same of the masters. */
  async settled(): Promise<void> {
    let said: string[] = [];
    await until(
      async () => {
        said = await Promise.all(this.nodes.map((node) => this.#said(node)));
        return said.every((text) => text === said[0] && text.startsWith("["));
      },
      "all nodes of the cluster to agree",
      WAIT_MS,
      () => said.join("\n"),
    );
  }

  /** The node that keeps a slot, as a node says that answers. */
  async keeperOf(slot: number): Promise<ClusterServer> {
    for (const { server } of this.nodes) {
      const slots = await server.cli("CLUSTER", "SLOTS").catch(() => undefined) as Reply[][] | undefined;
      const range = slots?.find(([first, last]) => Number(first) <= slot && slot <= Number(last));
      const id = (range?.[2] as Reply[] | undefined)?.[2];
      const keeper = this.nodes.find((node) => node.id === id);
      if (keeper) return keeper;
    }
    throw new Error(`Nobody keeps slot ${slot}`);
  }

  /** The nodes that are masters and keep something, as one that answers says. */
  async masters(): Promise<ClusterServer[]> {
    const lines = await this.#lines();
    return this.nodes.filter(({ id }) =>
      lines.some(([its, , flags, , , , , , ...slots]) =>
        its === id && /master/.test(flags!) && !/fail/.test(flags!) && slots.length > 0
      )
    );
  }

  /** The replicas of a master. */
  async replicasOf(master: ClusterServer): Promise<ClusterServer[]> {
    const lines = await this.#lines();
    return this.nodes.filter(({ id }) => lines.some(([its, , , of]) => its === id && of === master.id));
  }

  /** One of them, once it is known. */
  async replicaOf(master: ClusterServer): Promise<ClusterServer> {
    let replica: ClusterServer | undefined;
    const isKnown = async () => (replica = (await this.replicasOf(master))[0]) !== undefined;
    await until(isKnown, "a replica to be known", WAIT_MS, () => `of ${master.id}`);
    return replica!;
  }

  /** What a node says of who keeps what, if it knows all nodes and finds all well; else what is not well. */
  async #said({ server }: ClusterServer): Promise<string> {
    try {
      const info = String(await server.cli("CLUSTER", "INFO"));
      const known = Number(/cluster_known_nodes:(\d+)/.exec(info)![1]);
      if (!info.includes("cluster_state:ok") || known !== this.nodes.length) return info;
      const slots = await server.cli("CLUSTER", "SLOTS") as [number, number, [string, number, string]][];
      return JSON.stringify(slots.map(([first, last, [, , id]]) => [first, last, id]).toSorted());
    } catch (error) {
      return `${error}`; // it loads, or is not there
    }
  }

  /** What a node that answers says of all of them. */
  async #lines(): Promise<string[][]> {
    for (const { server } of this.nodes) {
      const text = await server.cli("CLUSTER", "NODES").catch(() => undefined);
      if (text !== undefined) return String(text).trim().split("\n").map((line) => line.split(" "));
    }
    throw new Error("No node of the cluster answers");
  }

  /** Slot of a key or channel. */
  async slotOf(name: string): Promise<number> {
    return Number(await this.nodes[0]!.server.cli("CLUSTER", "KEYSLOT", name));
  }

  /** Moves slots with their keys, one after the other, as redis-cli does it. */
  async move(slots: Iterable<number>, from: ClusterServer, to: ClusterServer): Promise<void> {
    // One connection to each: there may be thousands of slots.
    const { password } = this.#options;
    const login = password === undefined ? {} : { password };
    using source = await RedisCommands.connect({ port: from.server.port }, login);
    using target = await RedisCommands.connect({ port: to.server.port }, login);
    for (const slot of slots) {
      await target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", from.id);
      await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id);
      if (Number(await source.command("CLUSTER", "COUNTKEYSINSLOT", slot)) > 0) {
        await this.moveKeys(slot, from, to);
      }
      for (const one of [target, source]) await one.command("CLUSTER", "SETSLOT", slot, "NODE", to.id);
    }
  }

  async beginMove(slot: number, from: ClusterServer, to: ClusterServer): Promise<void> {
    await to.server.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", from.id);
    await from.server.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id);
  }

  /** @param count At most so many keys. @returns How many it were. */
  async moveKeys(slot: number, from: ClusterServer, to: ClusterServer, count = 1_000): Promise<number> {
    const { password } = this.#options;
    const keys = await from.server.cli("CLUSTER", "GETKEYSINSLOT", slot, count) as string[];
    if (keys.length === 0) return 0;
    await from.server.cli(
      ...["MIGRATE", "127.0.0.1", to.server.peerPort, "", 0, 10_000],
      ...(password === undefined ? [] : ["AUTH", password]),
      ...["KEYS", ...keys],
    );
    return keys.length;
  }

  async endMove(slot: number, from: ClusterServer, to: ClusterServer): Promise<void> {
    for (const { server } of [to, from]) await server.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id);
  }

  /** A planned failover to a replica. Resolves when that is a master. */
  async failOver(replica: ClusterServer): Promise<void> {
    // A busy machine may not be done in the five seconds after which Redis gives it up.
    const ask = () => replica.server.cli("CLUSTER", "FAILOVER").catch(() => {});
    await ask();
    const asking = setInterval(ask, 6_000);
    try {
      await this.promoted(replica);
    } finally {
      clearInterval(asking);
    }
  }

  /** Resolves when a node has become a master. */
  async promoted(node: ClusterServer): Promise<void> {
    await until(
      async () => /^role:master/m.test(await node.server.info("replication")),
      "a replica to be a master",
      WAIT_MS,
      () => `its id is ${node.id}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()));
  }

  async #launch(): Promise<ClusterServer> {
    const { nodeTimeoutMs = 15_000, password, tls, args = [] } = this.#options;
    const bus = OwnPort.take();
    const options: RedisServerOptions = {
      ...(password !== undefined && { password }),
      ...(tls && { tls }),
      appendOnly: true,
      args: [
        ...["--cluster-enabled", "yes", "--cluster-node-timeout", String(nodeTimeoutMs)],
        ...["--cluster-port", String(bus)],
        // Else a master that has given its last slot away becomes a replica by itself.
        ...["--cluster-allow-replica-migration", "no"],
        ...(password === undefined ? [] : ["--masterauth", password]),
        ...(tls ? ["--tls-cluster", "yes"] : []),
        ...args,
      ],
    };
    const server = await RedisServer.start(options);
    const id = String(await server.cli("CLUSTER", "MYID"));
    const node: ClusterServer = {
      server,
      id,
      busPort: bus.number,
      async [Symbol.asyncDispose]() {
        bus[Symbol.dispose]();
        await server[Symbol.asyncDispose]();
      },
    };
    this.nodes.push(node);
    return node;
  }

  async #meet([first, ...others]: readonly ClusterServer[]): Promise<void> {
    for (const { server, busPort } of others) {
      await first!.server.cli("CLUSTER", "MEET", "127.0.0.1", server.peerPort, busPort);
    }
  }
}
