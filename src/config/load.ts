/** The settings for a program that holds a service itself, and for tests. */
import { ConfigError } from "../protocol/errors.ts";
import { type Config, readConfig, type Sources } from "./settings.ts";

/** @throws {ConfigError} with every fault found. */
export function loadConfig(sources: Sources): Config {
  const { config, faults } = readConfig(sources);
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}
