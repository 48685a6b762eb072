/**
 * `userwire redis-functions`: prints, loads and checks the Redis functions, with which programs of any language send. Which
 * Redis, and what they are written for, is read from the settings of the service.
 */
import type { Command } from "commander";
import type { Config } from "../config/settings.ts";
import type { FunctionsAt } from "../server/redis_functions.ts";
import { addSettings } from "./serve.ts";
import type { Shell } from "./shell.ts";

/** The settings that matter to them. */
const READS: readonly (keyof Config)[] = [
  "redisUrl",
  "redisUrlFile",
  "redisSentinelUser",
  "redisSentinelPassword",
  "redisCa",
  "redisCert",
  "redisKey",
  "redisTimeoutMs",
  "history",
  "historyTtlS",
  "maxBodyBytes",
];

/** Adds the command. */
export function addRedisFunctions(program: Command, shell: Shell): void {
  const functions = program.command("redis-functions")
    .description("The Redis functions, with which programs of any language send by one command");
  addPrint(functions, shell);
  for (const mode of ["load", "check"] as const) {
    const command = functions.command(mode).description(
      mode === "load"
        ? "Load them, on every master of a cluster, unless newer ones are there"
        : "See whether they are loaded: exit code 1 when they are missing, older, or for other settings",
    );
    const settings = addSettings(command, READS);
    command.action(async () => {
      const config = await settings.read(shell);
      const { visitFunctions } = await import("../server/redis_functions.ts");
      const found = await visitFunctions(config, mode === "load" ? "load" : "look");
      for (const one of found) shell.io.out(`${inWords(one, mode)}\n`);
      if (!found.every(({ isFit }) => isFit)) shell.exitCode = 1;
    });
  }
}

function addPrint(functions: Command, shell: Shell): void {
  const command = functions.command("print")
    .description("Print their text, for FUNCTION LOAD")
    .option("--eval", "print a script for EVAL instead, for a Redis without functions")
    .option("--cluster", "for a Redis Cluster");
  const settings = addSettings(command, READS);
  command.action(async ({ eval: isEval, cluster }: { eval?: true; cluster?: true }) => {
    if (isEval && cluster) command.error("error: a cluster has functions: leave --eval out");
    const config = await settings.read(shell);
    const { textOfFunctions } = await import("../server/redis_functions.ts");
    shell.io.out(textOfFunctions(config, { isEval: isEval ?? false, isCluster: cluster ?? false }));
  });
}

function inWords({ place, version, isFit, fault }: FunctionsAt, mode: "load" | "check"): string {
  const where = place === undefined ? "" : `${place}: `;
  if (fault !== undefined) return `${where}${fault}`;
  if (version === undefined) return `${where}not loaded: run userwire redis-functions load`;
  if (isFit) return `${where}loaded: ${version}`;
  const what = `${where}loaded, but older or for other settings: ${version}`;
  return mode === "check" ? `${what}; run userwire redis-functions load` : what;
}
