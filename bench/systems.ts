/** The rows of `deno task compare`: which systems there are, how a node is started, and how one talks to it. */
import { fileURLToPath } from "node:url";
import { PERMISSIONS, V8_FLAGS } from "../src/processes/rights.ts";
import { SUBPROTOCOL } from "../src/protocol/frames.ts";
import type { Peers } from "./peers.ts";
import { Program } from "./program.ts";

export interface System {
  readonly name: string;
  /** What its sockets speak. */
  readonly sockets: "raw" | "framed";
  /** How messages are sent to it. */
  readonly by: "publish" | "http";
  readonly program: "userwire" | "ws_ioredis" | "ws_redis";
  readonly env: Readonly<Record<string, string>>;
  /** Its Redis is a cluster of three masters, on this machine too. @default one Redis */
  readonly isOnCluster?: boolean;
}

/** What a node needs to start. */
export interface Place {
  readonly redisUrl: string;
  /** Empty folder of the node. */
  readonly dir: string;
  readonly peers: Peers;
}

/** All ratios are against this one: it has the same shape as Userwire's default, one Redis connection per socket. */
export const REFERENCE = "ws + redis, connection per socket";

const OFF = { USERWIRE_HISTORY: "0" };

/** The load comes from one address, and some of it for one user: Userwire's limits of both would refuse it. */
const UNLIMITED = {
  USERWIRE_MAX_CONNECTIONS_PER_USER: "0",
  USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
  USERWIRE_UPGRADES_PER_SECOND: "0",
};

export const SYSTEMS: readonly System[] = [
  {
    name: "userwire dedicated",
    sockets: "raw",
    by: "publish",
    program: "userwire",
    env: OFF,
  },
  {
    name: "userwire shared",
    sockets: "raw",
    by: "publish",
    program: "userwire",
    env: { ...OFF, USERWIRE_SUBSCRIPTIONS: "shared" },
  },
  {
    name: "userwire dedicated, HTTP send",
    sockets: "raw",
    by: "http",
    program: "userwire",
    env: OFF,
  },
  {
    name: "userwire dedicated, HTTP send, history, framed",
    sockets: "framed",
    by: "http",
    program: "userwire",
    env: {},
  },
  {
    name: "userwire dedicated, HTTP send, history, framed, on a cluster",
    sockets: "framed",
    by: "http",
    program: "userwire",
    env: {},
    isOnCluster: true,
  },
  {
    name: "ws + ioredis, connection per process",
    sockets: "raw",
    by: "publish",
    program: "ws_ioredis",
    env: {},
  },
  {
    name: REFERENCE,
    sockets: "raw",
    by: "publish",
    program: "ws_redis",
    env: {},
  },
];

const START_MS = 20_000;

/** Starts one node on a free port; `portOf` says which, when it listens. */
export function startNode(system: System, place: Place): Program {
  const env = { ...system.env, REDIS_URL: place.redisUrl, PORT: "0" };
  if (system.program === "userwire") return startUserwire({ env, dir: place.dir });
  return Program.start(place.peers.node, {
    name: system.name,
    args: [`${place.peers.dir}/${system.program}.cjs`],
    env: { ...env, NODE_ENV: "production" },
  });
}

/**
 * Starts the service as `deno task start` does, all but its folder of logs, the limits of a user and an address, and what
 * `env` says at its defaults.
 */
export function startUserwire(
  options: { env: Readonly<Record<string, string>>; dir: string; flags?: readonly string[] },
): Program {
  const root = fileURLToPath(new URL("../", import.meta.url));
  return Program.start(Deno.execPath(), {
    name: "userwire",
    args: ["run", ...PERMISSIONS, V8_FLAGS, ...options.flags ?? [], "main.ts"],
    cwd: root,
    env: { LOG_DIR: options.dir, USERWIRE_DRAIN_S: "1", ...UNLIMITED, ...options.env },
  });
}

/** The port that a program says it listens on. */
export async function portOf(program: Program): Promise<number> {
  return Number((await program.output(/http:\/\/127\.0\.0\.1:(\d+)/, START_MS))[1]);
}

/** The subprotocol that the system's sockets offer. */
export function subprotocolOf(system: System): { subprotocol?: string } {
  return system.sockets === "framed" ? { subprotocol: SUBPROTOCOL } : {};
}
