/**
 * `userwire serve`: runs the service until a signal stops it. Every setting is a flag, made from the table in
 * `config/settings.ts`; checking them is left to `readConfig`, so that faults of flags and variables come out together.
 */
import { type Command, Option } from "commander";
import { readConfig, type Setting, SETTINGS } from "../config/settings.ts";
import { ConfigError } from "../protocol/errors.ts";
import { furtherFaults } from "../server/check.ts";
import { serve } from "../server/run.ts";
import type { Shell } from "./shell.ts";

/** Adds the command. */
export function addServe(program: Command, shell: Shell): void {
  const command = program.command("serve")
    .description("Run the service; this is what userwire does without a command")
    .addHelpText("after", "\nExample:\n  $ userwire serve --port 8765 --redis-url redis://localhost:6379");
  const options = Object.values<Setting<unknown>>(SETTINGS).map(optionOf);
  for (const option of options) command.addOption(option);

  command.action(async () => {
    const flags = options.map((option) => [option.name(), command.getOptionValue(option.attributeName())]);
    const reading = readConfig({ env: shell.env, flags: Object.fromEntries(flags) });
    if (reading.faults.length > 0) throw new ConfigError([...reading.faults, ...furtherFaults(reading)]);
    shell.exitCode = await serve(reading.config, shell.io.stop);
  });
}

function optionOf({ env, flag, kind, fallbackText, meaning }: Setting<unknown>): Option {
  const value = kind.bare ? "[value]" : "<value>";
  return new Option(`--${flag} ${value}`, `${meaning} (env ${env}, default ${fallbackText})`);
}
