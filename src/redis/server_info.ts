/** Who answers at the other end, read from what `INFO` says. */
import { createHash } from "node:crypto";

export interface ServerInfo {
  /**
   * Names the life of this server's data, in 12 characters: another process has another, and so has a process that was
   * a replica in between. "" when nothing is known.
   */
  readonly life: string;
  /** "master" or "slave"; "" when it is not said. */
  readonly role: string;
  /** "standalone", "cluster" or "sentinel"; "" when it is not said. */
  readonly mode: string;
  readonly isLoading: boolean;
  /** From where this master went on with another's data, when it took over from it; else "". */
  readonly promotion: string;
  /** Any other field of `INFO`. */
  field(name: string): string | undefined;
}

/** Reads all sections, or those there are: fields that are missing are "". */
export function readInfo(text: string): ServerInfo {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\r?$`, "m").exec(text)?.[1];
  const former = field("master_replid2") ?? "";
  const promotion = /^0*$/.test(former) ? "" : `${former} ${field("second_repl_offset") ?? ""}`;
  const run = field("run_id") || field("master_replid") || "";
  const life = run === ""
    ? ""
    : createHash("sha256").update(`${run} ${promotion}`).digest("base64url").slice(0, 12);
  return {
    life,
    role: field("role") ?? "",
    // Valkey has its own word for it.
    mode: field("redis_mode") ?? field("server_mode") ?? "",
    isLoading: field("loading") === "1",
    promotion,
    field,
  };
}

export const OTHER_DATA = "Redis has other data than before";
export const REPLICA =
  "Redis is a replica, which only its master may change: REDIS_URL, or its Sentinels, must lead to the master";

/** Why a server is of no use, as a sentence without a full stop that anybody may read. */
export interface Unfitness {
  readonly reason: string;
  /** What to do, where waiting will not help. */
  readonly remedy?: string;
  /** It is a node of a cluster, where it was taken for a Redis that keeps everything. */
  readonly isOfCluster?: boolean;
}

/**
 * Why a server can't be used; undefined for one that can.
 * @param isCluster Whether a node of a cluster is expected.
 */
export function unfitnessOf(
  { role, mode, isLoading }: ServerInfo,
  isCluster: boolean,
): Unfitness | undefined {
  if (mode === "cluster" && !isCluster) {
    return {
      reason:
        "Redis is a node of a cluster, which does not keep all keys and counts only its own subscribers",
      remedy: "write the addresses of the cluster's nodes, and none of Sentinels, in REDIS_URL",
      isOfCluster: true,
    };
  }
  if (mode === "standalone" && isCluster) {
    return { reason: "Redis was a node of a cluster, and is none any more: restart the service" };
  }
  if (mode === "sentinel") {
    return {
      reason: "what answers at REDIS_URL is a Sentinel, which keeps no data",
      remedy:
        "write redis+sentinel://host:port,host:port/name, with the Sentinels and the name of their master",
    };
  }
  // One that loads takes no commands yet, and says that it has no append-only file while it reads one.
  if (isLoading) return { reason: "Redis is loading its data" };
  if (role === "slave") return { reason: REPLICA };
  return undefined;
}

/**
 * What has changed since the server was greeted, on the same connection; undefined when nothing has.
 * @param now Its replication section is enough.
 */
export function changeOf(then: ServerInfo, now: ServerInfo): string | undefined {
  if (now.role === "slave") return REPLICA;
  // That a promotion is forgotten, as happens an hour after the last replica left, changes no data.
  if (now.promotion !== "" && now.promotion !== then.promotion) return OTHER_DATA;
  return undefined;
}
