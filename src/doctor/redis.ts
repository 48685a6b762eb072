/** Redis, as a node of these settings meets it: with the engine that serves, and what is asked beside. */
import { resolve } from "node:path";
import { redisTlsOf } from "../config/pem.ts";
import type { Config } from "../config/settings.ts";
import { type ExaminedAt, openEngine } from "../engine/engine.ts";
import type { Log } from "../log/log.ts";
import { silentLog } from "../log/log.ts";
import { messageOf, orFaults } from "../protocol/errors.ts";
import type { Examination } from "../redis/commands.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

/** Older ones have no ACLs for channels, and do not say how many clients they take. */
const OLDEST = [6, 2] as const;
/** Each send waits for one. */
const SLOW_MS = 20;
/** Tickets and histories are dated by its clock, tokens by ours. */
const CLOCK_MS = 2_000;
/** Connections that subscriptions never take, see `redis/connection_budget.ts`. */
const RESERVE = 16;
/** `client-output-buffer-limit pubsub`: with less a user with many messages is cut off, in bytes. */
const MIN_OUTPUT_BUFFER = 8 * 1024 ** 2;
/**
 * How long it may take until everything was tried once: a dial that nobody takes ends after three seconds, and then it is
 * known why; the first trial waits a second.
 */
const PATIENCE_MS = 5_000;

/** @param nodes How many nodes share this Redis. */
export async function lookAtRedis(config: Config, nodes: number): Promise<Finding[]> {
  if (config.redisUrl === undefined && config.redisUrlFile === undefined) {
    return [warning(
      "redis",
      "none is set: messages stay in this one process, and are lost when it ends",
      "set REDIS_URL for more than one node, or for messages that outlive a restart",
    )];
  }
  const faults: string[] = [];
  const redisTls = orFaults(() => redisTlsOf(config), faults);
  if (faults.length > 0) return [];
  const said: Said[] = [];
  const engine = orFaults(() =>
    openEngine({
      ...config,
      log: collecting(said),
      redisTls,
      redisUrlFile: config.redisUrlFile && resolve(config.redisUrlFile),
      redisFunctions: "off",
      probe: true,
    }), faults);
  if (!engine) return faults.map((text) => fault("redis", text));
  // Of one server that is all that there is to say, it is said once.
  const more = (reason: string | undefined) => said.length > 1 || said[0]?.reason !== reason ? said : [];
  try {
    const attempt = await engine.firstAttempt(PATIENCE_MS);
    if (attempt.outcome !== "ready") {
      const remedy = "remedy" in attempt
        ? attempt.remedy
        : "see that it runs, and that REDIS_URL leads to it";
      return [
        fault("redis", attempt.reason, remedy),
        ...more(attempt.reason).map((one) => sayOf(one, fault)),
      ];
    }
    const unready = engine.unready();
    const examined = await engine.redis!.examine();
    const findings = examined.flatMap((one) => lookAt(one, config, nodes, examined.length));
    const faults = engine.faults();
    const data = await engine.redis!.warnings();
    const works = unready === undefined;
    return [
      works
        ? ok("redis rights", "every command that is needed may be used, and is counted truly")
        : fault("redis", unready, "docs/redis.md says what a node needs"),
      ...faults.map((text) => warning("redis", text)),
      ...(works && faults.length === 0
        ? []
        : more(unready).map((one) => sayOf(one, works ? warning : fault))),
      ...data.map((text) => warning("redis data", text)),
      ...(data.length === 0
        ? [ok("redis data", "nothing that it tells of its settings throws data away")]
        : []),
      ...findings,
    ];
  } catch (error) {
    return [fault("redis", messageOf(error), "see its log, and that it answers in time")];
  } finally {
    await engine.close();
  }
}

/** A warning of the log, which names what answers may not: addresses, and commands that are refused. */
interface Said {
  readonly reason: string;
  readonly detail: string;
}

function collecting(said: Said[]): Log {
  return {
    ...silentLog,
    warn(_event, { reason, detail, master } = {}) {
      if (detail === undefined) return;
      said.push({
        reason: String(reason),
        detail: master === undefined ? `${detail}` : `${master}: ${detail}`,
      });
    },
  };
}

function sayOf({ reason, detail }: Said, as: typeof fault): Finding {
  const says = `${reason}: ${detail}`;
  return /rights that are needed|a command that is needed/.test(reason)
    ? as("redis rights", says, "docs/redis.md has the whole line for ACL SETUSER")
    : as("redis", says);
}

/** What one server says of itself. @param masters How many share the users. */
export function lookAt(found: ExaminedAt, config: Config, nodes: number, masters = 1): Finding[] {
  const findings = [
    lookAtVersion(found),
    lookAtClients(found, config, { nodes, masters }),
    ...lookAtKeepalive(found),
    ...lookAtOutputBuffer(found),
    lookAtRoundTrip(found),
    lookAtClock(found),
  ];
  const { place } = found;
  if (place === undefined) return findings;
  return findings.map((finding) => ({ ...finding, says: `${place}: ${finding.says}` }));
}

function lookAtVersion({ version, role, mode }: Examination): Finding {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const isOld = major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]);
  const what = `version ${version}, ${mode}, ${role}`;
  return isOld
    ? warning(
      "redis version",
      `${what}: older than ${OLDEST.join(".")}`,
      "upgrade it: docs/redis.md says what is missing",
    )
    : ok("redis version", what);
}

function lookAtClients(
  { connected, maxclients }: Examination,
  { subscriptions, sharedConnections, maxConnections }: Config,
  { nodes, masters }: { nodes: number; masters: number },
): Finding {
  if (maxclients === undefined) return ok("redis maxclients", "it does not say how many clients it takes");
  // Names spread users over the masters of a cluster.
  const each = subscriptions === "dedicated" ? Math.ceil(maxConnections / masters) : sharedConnections;
  const wanted = nodes * (each + 2) + RESERVE;
  const what = `${
    nodes === 1 ? "one node" : `${nodes} nodes`
  } of ${maxConnections} sockets take up to ${wanted} connections`;
  if (maxclients >= wanted) {
    return ok("redis maxclients", `${maxclients}, of which ${connected} are used; ${what}`);
  }
  return warning(
    "redis maxclients",
    `it takes ${maxclients} clients, but ${what}`,
    `set maxclients ${wanted} in Redis, or lower USERWIRE_MAX_CONNECTIONS, or set USERWIRE_SUBSCRIPTIONS=shared`,
  );
}

function lookAtKeepalive({ settings }: Examination): Finding[] {
  const value = settings.get("tcp-keepalive");
  if (value === undefined) return [];
  if (Number(value) > 0) return [ok("redis tcp-keepalive", `${value} seconds`)];
  return [warning(
    "redis tcp-keepalive",
    "it is off: connections of a node that vanished stay, and are counted as sockets",
    "set tcp-keepalive 60 in Redis",
  )];
}

function lookAtOutputBuffer({ settings }: Examination): Finding[] {
  const [, hard, soft, seconds] =
    /\bpubsub (\d+) (\d+) (\d+)/.exec(settings.get("client-output-buffer-limit") ?? "") ??
      [];
  if (hard === undefined) return [];
  const isSmall = [hard, soft].some((bytes) => Number(bytes) > 0 && Number(bytes) < MIN_OUTPUT_BUFFER);
  const what = `pubsub ${hard} ${soft} ${seconds}`;
  if (!isSmall) return [ok("redis output buffer", what)];
  return [warning(
    "redis output buffer",
    `${what}: Redis cuts a node off that is behind by so little`,
    "set client-output-buffer-limit pubsub 32mb 8mb 60 in Redis",
  )];
}

function lookAtRoundTrip({ roundTripMs }: Examination): Finding {
  const says = `an answer takes ${roundTripMs.toFixed(1)} ms`;
  return roundTripMs <= SLOW_MS
    ? ok("redis round trip", says)
    : warning("redis round trip", `${says}, and each send waits for one`, "put the nodes nearer to Redis");
}

function lookAtClock({ aheadMs }: Examination): Finding {
  const off = Math.abs(aheadMs);
  if (off <= CLOCK_MS) return ok("clock", "this machine and Redis agree");
  const which = aheadMs > 0 ? "behind" : "ahead of";
  return warning(
    "clock",
    `this machine is ${
      Math.round(off / 1_000)
    } s ${which} Redis: revocations and lives of tickets are off by that`,
    "run NTP on both",
  );
}
