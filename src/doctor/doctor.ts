/**
 * Checks a set-up and explains what it finds: the settings, this machine, Redis, keys, and what clients meet on their way
 * through a balancer. The room owns what is looked at and what is said to it; what it asks, it asks of the parts that serve.
 * It is loaded only by the commands that look.
 */
import type { Reading, SettingsFile } from "../config/settings.ts";
import { lookAtTokenKeys } from "./auth.ts";
import { lookAtFiles } from "./files.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { fault, type Finding } from "./finding.ts";
import { lookAtRedis } from "./redis.ts";
import { lookAtSettings } from "./settings.ts";
import { lookAtSystem, type Machine, thisMachine } from "./system.ts";

export { exitCodeOf, type Finding, inWords } from "./finding.ts";
export { lookThroughUrl } from "./through_url.ts";

/** Settings, with their faults, and the file that they were read from. */
export type Settings = Reading & { readonly file?: SettingsFile };

/** What kept the doctor from looking. */
export function failureOf(error: unknown): Finding[] {
  const reasons = error instanceof ConfigError ? error.faults : [messageOf(error)];
  return reasons.map((reason) => fault("doctor", reason));
}

/** What can be said without asking anybody else. */
export async function lookOffline(settings: Settings, machine: Machine = thisMachine()): Promise<Finding[]> {
  const { config } = settings;
  return [...lookAtSettings(settings), ...await lookAtSystem(config, machine), ...lookAtFiles(config)];
}

/**
 * All that a node of these settings needs.
 * @param nodes How many nodes share the Redis.
 * @param files Those of this process, where it serves.
 */
export async function lookAtAll(
  settings: Settings,
  nodes: number,
  files?: Parameters<typeof thisMachine>[0],
): Promise<Finding[]> {
  const { config, atFault } = settings;
  const offline = await lookOffline(settings, thisMachine(files));
  const asked = await Promise.all([
    atFault.has("redisUrl") || atFault.has("redisUrlFile") ? [] : lookAtRedis(config, nodes),
    atFault.has("jwksUrl") ? [] : lookAtTokenKeys(config),
  ]);
  return [...offline, ...asked.flat()];
}
