/**
 * What so many sockets take, on paper: nodes, masters, connections, memory, ports, messages, what a failed master costs,
 * and which limit is met first. Everything is worked out from the inputs below, each of which can be given another value:
 *
 *     deno task scaling --sockets 250000 --per-node 10000
 *
 * `docs/scaling.md` holds the tables of the values below; `deno task docs` writes them there.
 */
import { parseArgs } from "node:util";

interface Input {
  readonly value: number;
  readonly unit: string;
  readonly meaning: string;
  /** Where the value was measured or stands in the code, as Markdown; "assumed" where nowhere. */
  readonly from: string;
}

const input = (value: number, unit: string, meaning: string, from: string): Input => ({
  value,
  unit,
  meaning,
  from,
});
const WHERE_IT_GOES = "measured: [performance](performance.md#where-it-goes)";
const HERE = "measured: [below](#measured-for-this-page)";

/** Keys are flags: `perNode` is `--per-node`. */
export const INPUTS = {
  perNode: input(
    25_000,
    "sockets",
    "on one node",
    "assumed; run with [10,000](performance.md#very-many-sockets)",
  ),
  nodesPerMachine: input(4, "nodes", "on one machine, one for each core", "assumed"),
  perMaster: input(50_000, "sockets", "on one master, with dedicated subscriptions", "assumed"),
  gibPerMaster: input(16, "GiB", "of memory for one master", "assumed"),
  busy: input(0.5, "of a core", "that a node or a master may use for messages", "assumed"),
  reserve: input(2, "×", "memory to have for what is computed: garbage, buffers, a fork of Redis", "assumed"),
  socketsPerUser: input(1, "sockets", "of one user", "assumed"),
  perMinute: input(1, "messages a minute", "to each user, sent by HTTP, framed, with history", "assumed"),
  nodeTimeoutS: input(2, "s", "`cluster-node-timeout`", "assumed; 15 unless set"),

  kibDedicated: input(19.6, "KiB", "of a node for each socket, dedicated", WHERE_IT_GOES),
  kibShared: input(15.9, "KiB", "of a node for each socket, shared", WHERE_IT_GOES),
  mibNode: input(101, "MiB", "of a node without sockets, on one Redis", HERE),
  mibMaster: input(1.6, "MiB", "more of a node for each master", HERE),
  kibKernel: input(
    3.5,
    "KiB",
    "of the kernel for each TCP connection, empty",
    "`/proc/slabinfo`, Linux 6.18",
  ),
  kibConnection: input(8.7, "KiB", "of Redis for each idle subscriber", HERE),
  kibHistory: input(
    19,
    "KiB",
    "of Redis for a full history: 100 messages of 128 bytes",
    "measured: [redis](redis.md#memory-of-histories)",
  ),

  usDedicated: input(
    88.9,
    "µs",
    "of a node for a message, dedicated",
    "measured: [performance](performance.md#how-fast-it-is)",
  ),
  usShared: input(
    80.4,
    "µs",
    "of a node for a message, shared",
    "computed from [three rows](performance.md#how-fast-it-is): 88.9 − 21.2 + 12.7",
  ),
  usSend: input(56, "µs", "of Redis for a send with history", `${WHERE_IT_GOES}, on busy cores`),
  usDelivery: input(10, "µs", "of Redis for each connection that a message is written to", "assumed"),
  usSendBare: input(8, "µs", "of Redis for a send without history", `${WHERE_IT_GOES}, on busy cores`),
  usBare: input(
    88.3,
    "µs",
    "of a node for a message without history, dedicated",
    "measured: [performance](performance.md#how-fast-it-is)",
  ),

  idlePercentNode: input(0.22, "% of a core", "of an idle node for each master", HERE),
  idlePercentMaster: input(0.11, "% of a core", "of a master for each idle node", HERE),
  idleCommands: input(50, "commands/s", "of an idle node to each master, those in scripts too", HERE),
  probesPerS: input(0.75, "dials/s", "of a node to each master, to try it", HERE),
  nodesLine: input(112, "bytes", "of `CLUSTER NODES` for each node of Redis; more with replicas", HERE),

  ports: input(
    28_232,
    "ports",
    "for one source address, Redis address and port",
    "Linux' `ip_local_port_range`",
  ),
  timeWaitS: input(60, "s", "for which a port is kept after a connection was closed", "Linux, fixed"),
  acceptQueue: input(511, "connections", "that may wait to be accepted", "`tcp-backlog` of Redis"),
  dialsAtOnce: input(64, "dials", "of a node to one master at one time", "`src/broker/dedicated.ts`"),
  dialsPerS: input(
    2_000,
    "dials/s",
    "of one node",
    "[connects/s](performance.md#how-fast-it-is) of two nodes on two busy cores",
  ),
  acceptsPerS: input(4_700, "connections/s", "that a master takes in", HERE),
  resubscribesPerS: input(100_000, "channels/s", "that a master subscribes, shared", "assumed"),
  promotionS: input(2.1, "s", "from the node timeout until the new master is followed", HERE),
  settleS: input(1.5, "s", "for which sends are refused after that, at least", "`src/broker/redis.ts`"),
  maxSettleS: input(30, "s", "for which they are refused at most", "`src/broker/redis.ts`"),
  budgetReserve: input(
    1,
    "% of `maxclients`",
    "that subscriptions never take",
    "`src/redis/connection_budget.ts`",
  ),
  clusterNodes: input(1_000, "nodes", "of one cluster, at most", "advised by Redis' documentation"),
} as const satisfies Record<string, Input>;

export type Inputs = Readonly<Record<keyof typeof INPUTS, number>>;
export type Kind = "dedicated" | "shared";

/** The values above. */
export const DEFAULTS = Object.fromEntries(
  Object.entries(INPUTS).map(([key, { value }]) => [key, value]),
) as Inputs;

/** Fewer can't elect one of them. */
const LEAST_OF_CLUSTER = 3;
/** Sizes of the cluster's bus, of `cluster.h` of Redis 7.0: a message, and what it says of each of some nodes. */
const BUS = { message: 2_256, perNode: 104, least: 3, part: 0.1 };
/** Files of Redis beside its clients. */
const REDIS_FILES = 32;
/** Connections that subscriptions never take, however small `maxclients` is. */
const LEAST_RESERVE = 16;

export interface Plan {
  readonly sockets: number;
  readonly kind: Kind;
  readonly users: number;
  readonly nodes: number;
  readonly machines: number;
  /** 1 is a Redis alone, with replicas and Sentinels. */
  readonly masters: number;
  /** What so many masters are needed for. */
  readonly mastersFor: "connections" | "messages" | "memory" | "nothing more";
  /** Of all masters, with the replica of each. */
  readonly redisNodes: number;
  readonly gibPerMachine: number;
  readonly filesPerNode: number;
  readonly connectionsPerMaster: number;
  /** As `maxclients` must be, so that nobody is refused. */
  readonly maxclients: number;
  readonly redisFiles: number;
  readonly gibPerMaster: number;
  readonly portsPerMaster: number;
  readonly messagesPerS: number;
  /** Parts of a core. */
  readonly nodeBusy: number;
  readonly masterBusy: number;
  readonly nodeIdle: number;
  readonly masterIdle: number;
  readonly idleCommandsPerS: number;
  readonly mapReadsPerS: number;
  readonly mapBytesPerS: number;
  readonly busConnections: number;
  readonly busBytesPerS: number;
  readonly failure: Failure;
}

/** What one failed master costs. */
export interface Failure {
  readonly users: number;
  /** Connections to it that are dialled again. */
  readonly dials: number;
  readonly dialsPerNode: number;
  readonly dialsAtOnce: number;
  readonly restoreS: number;
  readonly refusedS: number;
  readonly refusedMessages: number;
}

/** @param sockets More than 0. */
export function plan(sockets: number, kind: Kind, i: Inputs = DEFAULTS): Plan {
  const isDedicated = kind === "dedicated";
  const users = Math.ceil(sockets / i.socketsPerUser);
  const sendsPerS = users * i.perMinute / 60;
  const messagesPerS = sendsPerS * i.socketsPerUser;
  const usNode = isDedicated ? i.usDedicated : i.usShared;
  const usMaster = i.usSend + i.usDelivery * i.socketsPerUser;
  const kibRedis = users * i.kibHistory + (isDedicated ? sockets * i.kibConnection : 0);

  const nodes = Math.ceil(Math.max(sockets / i.perNode, messagesPerS * usNode / 1e6 / i.busy));
  const machines = Math.ceil(nodes / i.nodesPerMachine);
  const needs = {
    connections: isDedicated ? sockets / i.perMaster : 0,
    messages: sendsPerS * usMaster / 1e6 / i.busy,
    memory: kibRedis * i.reserve / 1024 ** 2 / i.gibPerMaster,
  };
  const needed = Math.ceil(Math.max(...Object.values(needs)));
  const masters = needed <= 1 ? 1 : Math.max(needed, LEAST_OF_CLUSTER);
  const mastersFor = needed <= 1
    ? "nothing more"
    : (Object.keys(needs) as (keyof typeof needs)[]).reduce((most, key) =>
      needs[key] > needs[most] ? key : most
    );
  const isCluster = masters > 1;
  const redisNodes = masters * 2;

  const subscriptions = isDedicated ? sockets / masters : nodes;
  // Of each node one for commands and one that is tried; one for the map, which is read from the same three at worst; and
  // one for broadcasts, which are all on the same master.
  const connectionsPerMaster = Math.ceil(subscriptions) +
    nodes * (2 + (isCluster ? 1 : 0) + (isDedicated ? 1 : 0));
  const busConnections = isCluster ? 2 * (redisNodes - 1) : 0;
  const taken = connectionsPerMaster + busConnections;
  const maxclients = Math.ceil(Math.max(taken / (1 - i.budgetReserve / 100), taken + LEAST_RESERVE));
  const perNode = sockets / nodes;
  const onMachine = Math.min(nodes, i.nodesPerMachine);
  const files = isDedicated ? 2 : 1;
  const kibNode = perNode * (isDedicated ? i.kibDedicated : i.kibShared) +
    (i.mibNode + i.mibMaster * masters) * 1024;

  const gossip = Math.max(BUS.least, Math.floor(redisNodes * BUS.part));
  // Each other node is pinged, and answered, within half of the node timeout.
  const busMessagesPerS = isCluster ? 2 * (redisNodes - 1) / (i.nodeTimeoutS / 2) : 0;

  return {
    sockets,
    kind,
    users,
    nodes,
    machines,
    masters,
    mastersFor,
    redisNodes,
    gibPerMachine: onMachine * (kibNode * i.reserve + perNode * files * i.kibKernel) / 1024 ** 2,
    filesPerNode: Math.ceil(perNode * files * 1.05),
    connectionsPerMaster,
    maxclients,
    redisFiles: maxclients + REDIS_FILES,
    gibPerMaster: (users / masters * i.kibHistory + connectionsPerMaster * i.kibConnection) * i.reserve /
      1024 ** 2,
    portsPerMaster: Math.ceil(
      onMachine * ((isDedicated ? perNode / masters : 1) + 1 + i.probesPerS * i.timeWaitS),
    ),
    messagesPerS,
    nodeBusy: messagesPerS * usNode / 1e6 / nodes,
    masterBusy: sendsPerS * usMaster / 1e6 / masters,
    nodeIdle: masters * i.idlePercentNode / 100,
    masterIdle: nodes * i.idlePercentMaster / 100,
    idleCommandsPerS: nodes * i.idleCommands,
    mapReadsPerS: isCluster ? nodes : 0,
    mapBytesPerS: isCluster ? nodes * redisNodes * i.nodesLine : 0,
    busConnections,
    busBytesPerS: busMessagesPerS * (BUS.message + BUS.perNode * gossip),
    failure: failure(),
  };

  function failure(): Failure {
    const dials = Math.ceil(isDedicated ? sockets / masters : nodes);
    const dialsPerNode = Math.ceil(dials / nodes);
    const restoreS = Math.max(
      dialsPerNode / i.dialsPerS,
      dials / i.acceptsPerS,
      isDedicated ? 0 : sockets / masters / i.resubscribesPerS,
    );
    const refusedS = i.nodeTimeoutS + i.promotionS + Math.min(Math.max(i.settleS, restoreS), i.maxSettleS);
    return {
      users: Math.ceil(users / masters),
      dials,
      dialsPerNode,
      dialsAtOnce: Math.min(dialsPerNode, i.dialsAtOnce) * nodes,
      restoreS,
      refusedS,
      refusedMessages: Math.round(sendsPerS / masters * refusedS),
    };
  }
}

/** One limit: how near it is. */
export interface Limit {
  readonly name: string;
  readonly value: number;
  readonly limit: number;
  readonly digits?: number;
}

/** What may give way, each with what it comes to. */
export function limits(p: Plan, i: Inputs = DEFAULTS): Limit[] {
  const { failure } = p;
  return [
    { name: "ports of a machine to one master", value: p.portsPerMaster, limit: i.ports },
    {
      name: "ports of a proxy with one address to one node",
      value: Math.ceil(p.sockets / p.nodes),
      limit: i.ports,
    },
    {
      name: "connections of the cluster's bus, in the reserve of `maxclients`",
      value: p.busConnections,
      limit: Math.max(LEAST_RESERVE, Math.floor(p.maxclients * i.budgetReserve / 100)),
    },
    { name: "dials at once after a master failed", value: failure.dialsAtOnce, limit: i.acceptQueue },
    { name: "seconds until subscriptions are back", value: failure.restoreS, limit: i.maxSettleS, digits: 1 },
    {
      name: "% of a core of a node: messages, and its masters",
      value: (p.nodeBusy + p.nodeIdle) * 100,
      limit: i.busy * 100,
      digits: 1,
    },
    {
      name: "% of a core of a master: messages, and its nodes",
      value: (p.masterBusy + p.masterIdle) * 100,
      limit: i.busy * 100,
      digits: 1,
    },
    { name: "nodes of the Redis cluster", value: p.masters > 1 ? p.redisNodes : 0, limit: i.clusterNodes },
  ];
}

/** Messages a second that one core of a node, or one master, makes when it does nothing else. */
export function throughput(i: Inputs = DEFAULTS): { name: string; perS: number }[] {
  const redis = (us: number) => 1e6 / (us + i.usDelivery);
  return [
    { name: "a core of a node, dedicated, HTTP, with history", perS: 1e6 / i.usDedicated },
    { name: "a core of a node, shared, HTTP, with history", perS: 1e6 / i.usShared },
    { name: "a core of a node, dedicated, HTTP, without history", perS: 1e6 / i.usBare },
    { name: "a master, with history", perS: redis(i.usSend) },
    { name: "a master, without history", perS: redis(i.usSendBare) },
  ];
}

const SIZES = [100_000, 1_000_000, 10_000_000];
const KINDS: readonly Kind[] = ["dedicated", "shared"];
/** Stands at a value that is over its limit. */
const OVER = "⚠";

/** All tables, as Markdown. */
export function scalingTables(i: Inputs = DEFAULTS, sizes: readonly number[] = SIZES): string {
  const plans = sizes.flatMap((size) => KINDS.map((kind) => plan(size, kind, i)));
  const head = ["", ...plans.map(({ sockets, kind }) => `${shortened(sockets)} ${kind}`)];
  const row = (name: string, cell: (p: Plan) => number | string, digits = 0) => [
    name,
    ...plans.map((p) => {
      const value = cell(p);
      return typeof value === "string" ? value : grouped(value, digits);
    }),
  ];
  const rowOf = (index: number) =>
    row(limits(plans[0]!, i)[index]!.name, (p) => {
      const { value, limit, digits = 0 } = limits(p, i)[index]!;
      return `${value > limit ? `${OVER} ` : ""}${grouped(value, digits)} of ${grouped(limit, 0)}`;
    });
  return [
    "### Inputs\n",
    table(
      ["flag", "value", "unit", "what", "from"],
      Object.entries(INPUTS).map(([key, { unit, meaning, from }]) => [
        `\`--${flagOf(key)}\``,
        grouped(i[key as keyof Inputs], 2, 0),
        unit,
        meaning,
        from,
      ]),
    ),
    "### What it takes\n",
    table(head, [
      row("nodes", (p) => p.nodes),
      row("machines", (p) => p.machines),
      row("masters, each with a replica", (p) => p.masters),
      row("… so many for", (p) => p.mastersFor),
      row("memory of a machine, GiB", (p) => p.gibPerMachine, 1),
      row("`ulimit -n` of a node", (p) => p.filesPerNode),
      row("connections to a master", (p) => p.connectionsPerMaster),
      row("… in all", (p) => p.connectionsPerMaster * p.masters),
      row("`maxclients`, with the cluster's bus", (p) => p.maxclients),
      row("`ulimit -n` of a master", (p) => p.redisFiles),
      row("memory of a master, GiB", (p) => p.gibPerMaster, 1),
      row("messages/s in all", (p) => p.messagesPerS),
      row("% of a core of a node for messages", (p) => p.nodeBusy * 100, 1),
      row("% of a core of a master for messages", (p) => p.masterBusy * 100, 1),
    ]),
    "### What it takes when nothing is sent\n",
    table(head, [
      row("% of a core of a node, for its masters", (p) => p.nodeIdle * 100, 1),
      row("% of a core of a master, for its nodes", (p) => p.masterIdle * 100, 1),
      row("commands/s to a master, those in scripts too", (p) => p.idleCommandsPerS),
      row("reads of the map a second, at one master", (p) => p.mapReadsPerS),
      row("… in MB/s", (p) => p.mapBytesPerS / 1e6, 2),
      row("the cluster's bus, MB/s out of each of its nodes", (p) => p.busBytesPerS / 1e6, 2),
    ]),
    "### What a failed master costs\n",
    table(head, [
      row("users who are refused", (p) => p.failure.users),
      row("connections dialled again", (p) => p.failure.dials),
      row("… by each node", (p) => p.failure.dialsPerNode),
      row("seconds until subscriptions are back", (p) => p.failure.restoreS, 1),
      row("seconds of refusals in all", (p) => p.failure.refusedS, 1),
      row("sends refused meanwhile", (p) => p.failure.refusedMessages),
      row("sockets closed", () => 0),
    ]),
    "### What gives way\n",
    table(head, [
      ...limits(plans[0]!, i).map((_, index) => rowOf(index)),
      row("nearest to its limit", (p) => nearest(p, i)),
    ]),
    "### Messages a second\n",
    table(["of", "messages/s"], throughput(i).map(({ name, perS }) => [name, grouped(perS, 0)])),
  ].join("\n");
}

/** Name of the limit that is met first, or that is exceeded most. */
export function nearest(p: Plan, i: Inputs = DEFAULTS): string {
  return limits(p, i).reduce((most, one) => one.value / one.limit > most.value / most.limit ? one : most)
    .name;
}

function shortened(sockets: number): string {
  if (sockets % 1e6 === 0) return `${sockets / 1e6} M`;
  return sockets % 1e3 === 0 ? `${sockets / 1e3} k` : String(sockets);
}

function grouped(value: number, digits: number, least = digits): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: least, maximumFractionDigits: digits });
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

function flagOf(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/**
 * The tables that a command line asks for, or its help.
 * @throws {Error} when an option is none of those there are, or no number above 0.
 */
export function scaling(args: string[]): string {
  const keys = Object.keys(INPUTS) as (keyof Inputs)[];
  const string = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    options: {
      help: { type: "boolean", default: false },
      sockets: string,
      ...Object.fromEntries(keys.map((key) => [flagOf(key), string])),
    },
  });
  const given: Readonly<Record<string, string | boolean | undefined>> = values;
  if (values.help) {
    const lines = keys.map((key) => {
      const { value, unit, meaning } = INPUTS[key];
      return `  --${flagOf(key)} N`.padEnd(26) + `${meaning} (${value} ${unit})\n`;
    });
    return `deno task scaling [options]: prints Markdown tables\n\n${
      "  --sockets N".padEnd(26)
    }one size in place of three\n${lines.join("")}`;
  }
  const read = (name: string, text: string) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isFinite(value) && value > 0) return value;
    throw new Error(`--${name} must be a number above 0, but is "${text}": correct it`);
  };
  const inputs = { ...DEFAULTS } as Record<keyof Inputs, number>;
  for (const key of keys) {
    const text = given[flagOf(key)];
    if (typeof text === "string") inputs[key] = read(flagOf(key), text);
  }
  const sizes = typeof given.sockets === "string" ? [Math.ceil(read("sockets", given.sockets))] : SIZES;
  return scalingTables(inputs, sizes);
}

if (import.meta.main) {
  try {
    console.log(scaling(Deno.args));
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    Deno.exit(2);
  }
}
