/** `userwire config`: the settings as `serve` would use them, where each comes from, and no secret. */
import type { Command } from "commander";
import { type Shown, shownSettings } from "../config/shown.ts";
import { ConfigError } from "../protocol/errors.ts";
import { addSettings } from "./serve.ts";
import type { Shell } from "./shell.ts";

/** Adds the command. */
export function addConfig(program: Command, shell: Shell): void {
  const command = program.command("config")
    .description("Show the settings that serve would use, and where each comes from")
    .option("--json", "print them as JSON")
    .addHelpText(
      "after",
      `
Takes the flags of serve. Secrets are shown as ***.

Examples:
  $ userwire config
  $ userwire config --config /etc/userwire.json --json`,
    );
  const settings = addSettings(command);
  command.action(async ({ json }: { json?: true }) => {
    const reading = await settings.reading(shell);
    if (reading.faults.length > 0) throw new ConfigError(reading.faults);
    const shown = shownSettings(reading, reading.file);
    shell.io.out(json ? `${JSON.stringify(asJson(shown), undefined, 2)}\n` : asTable(shown));
  });
}

/** By variable, for programs. */
function asJson(shown: readonly Shown[]): Record<string, object> {
  return Object.fromEntries(shown.map(({ name, value = null, ...from }) => [name, { value, ...from }]));
}

function asTable(shown: readonly Shown[]): string {
  const wide = Math.max(...shown.map(({ name }) => name.length));
  return shown.map(({ name, value, source, file }) => {
    const from = file === undefined ? source : `${source} ${file}`;
    return `${name.padEnd(wide)}  ${from.padEnd(8)}  ${
      value === undefined ? "(unset)" : JSON.stringify(value)
    }\n`;
  }).join("");
}
