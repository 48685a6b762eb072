/** The settings for a program that holds a service itself. */
import { ConfigError } from "../protocol/errors.ts";
import { type Config, readConfig, type Sources } from "./settings.ts";

/**
 * Reads settings, each by the name of its variable: `loadConfig({ env: { PORT: "8765" } })`, `loadConfig({ env:
 * Deno.env.toObject() })`. What is not given has its default; nothing else is read.
 * @throws {ConfigError} with every fault found.
 */
export function loadConfig(sources: Sources): Config {
  const { config, faults } = readConfig(sources);
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}
