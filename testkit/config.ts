/** Settings for a test, as `serve` reads them. */
import { type Config, readConfig, type Sources } from "../src/config/settings.ts";
import { ConfigError } from "../src/protocol/errors.ts";

/** @throws {ConfigError} with every fault found. */
export function loadConfig(sources: Sources): Config {
  const { config, faults } = readConfig(sources);
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}
