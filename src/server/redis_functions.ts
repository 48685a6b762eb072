/** What the command line asks of the Redis functions: their text, and what each server has of them. */
import { resolve } from "node:path";
import { redisTlsOf } from "../config/pem.ts";
import type { Config } from "../config/settings.ts";
import { openEngine } from "../engine/engine.ts";
import type { FunctionsAt } from "../engine/shards.ts";
import { functionText } from "../engine/functions.ts";
import type { HistoryLimits } from "../history/history.ts";
import { ConfigError } from "../protocol/errors.ts";

export type { FunctionsAt };

/**
 * Looks which functions are loaded, on each master of a cluster.
 * @param mode Whether to load them where they are missing, older, or for other settings.
 * @throws {ConfigError} when no Redis is set.
 * @throws {Error} when one can't be reached.
 */
export async function visitFunctions(config: Config, mode: "load" | "look"): Promise<FunctionsAt[]> {
  if (config.redisUrl === undefined && config.redisUrlFile === undefined) {
    throw new ConfigError(["REDIS_URL is not set: functions are loaded into a Redis"]);
  }
  const engine = openEngine({
    ...config,
    redisFunctions: mode,
    functionLimits: limitsOf(config),
    // So it is no node, and takes no part in finding out whether data was lost.
    history: 0,
    redisTls: redisTlsOf(config),
    redisUrlFile: config.redisUrlFile && resolve(config.redisUrlFile),
  });
  try {
    const attempt = await engine.firstAttempt(config.redisTimeoutMs);
    if (attempt.outcome !== "ready") throw new Error(attempt.reason);
    const faults = engine.faults();
    if (faults.length > 0) throw new Error(faults.join("; "));
    return engine.redis!.functions();
  } finally {
    await engine.close();
  }
}

/** Their text, as the settings want it. */
export function textOfFunctions(
  config: Config,
  form: { isEval: boolean; isCluster: boolean },
): string {
  return functionText({ ...limitsOf(config), maxBytes: config.maxBodyBytes }, form);
}

function limitsOf({ history, historyTtlS }: Config): HistoryLimits {
  return { count: history, ttlMs: historyTtlS * 1_000 };
}
