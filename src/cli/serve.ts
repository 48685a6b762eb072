/**
 * `userwire serve`: runs the service until a signal stops it, as one process or several. Every setting is a flag, made from
 * the table in `config/settings.ts`; checking them is left to `readConfig`, so that faults of flags and variables come out
 * together.
 *
 * `userwire process` is one of several, and started by their supervisor: it reads the settings anew, so that a process that
 * takes an older one's place knows those that came with a new version.
 */
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import {
  type Config,
  readConfig,
  type Reading,
  type Setting,
  SETTINGS,
  type SettingsFile,
} from "../config/settings.ts";
import type { Look } from "../server/app.ts";
import type { Place } from "../processes/place.ts";
import { ConfigError } from "../protocol/errors.ts";
import type { Shell } from "./shell.ts";

/** Adds the command. */
export function addServe(program: Command, shell: Shell): void {
  const command = program.command("serve")
    .description("Run the service; this is what userwire does without a command")
    .addHelpText(
      "after",
      "\nExample:\n  $ userwire serve --port 8765 --redis-url redis://localhost:6379",
    );
  command.option("--check", "only check the settings and this machine, start nothing, and ask nobody");
  const settings = addSettings(command);

  command.action(async ({ check }: { check?: true }) => {
    if (check) {
      const { lookOffline } = await import("../doctor/doctor.ts");
      const { report } = await import("./findings.ts");
      return report(shell, await lookOffline(await settings.reading(shell)));
    }
    const config = await settings.read(shell);
    const count = config.processes === "auto" ? navigator.hardwareConcurrency : config.processes;
    if (config.processes === 1) {
      const { serve } = await import("../server/run.ts");
      shell.exitCode = await serve(config, { stop: shell.io.stop, look: doctorOf(settings, shell) });
      return;
    }
    // The supervisor needs little of the program, and so loads no more of it.
    const { supervise } = await import("../processes/supervisor.ts");
    const own = { main: Deno.mainModule, flags: settings.given() };
    shell.exitCode = await supervise(config, count, own, shell.io.stop);
  });
}

/** Adds the command by which a supervisor starts a process. It is for nobody else, and not in the help. */
export function addProcess(program: Command, shell: Shell): void {
  const command = program.command("process", { hidden: true })
    .description("Run one of several processes; their supervisor does that")
    .argument("<number>", "which of them", wholeNumber)
    .argument("<of>", "how many there are", wholeNumber)
    .argument("<port>", "the port they share", wholeNumber)
    .argument("<socket>", "path of the unix socket for the supervisor");
  const settings = addSettings(command);

  command.action(async (number: number, of: number, port: number, opsPath: string) => {
    const place: Place = { number, of, port, opsPath };
    const { serve } = await import("../server/run.ts");
    const config = await settings.read(shell);
    shell.exitCode = await serve(config, {
      stop: shell.io.stop,
      supervision: { place, orders: Deno.stdin.readable },
      look: doctorOf(settings, shell),
    });
  });
}

/** The doctor, for who asks a node: it is loaded then, and reads the settings as they are then. */
function doctorOf(settings: Settings, shell: Shell): Look {
  return async (nodes, files) => {
    const doctor = await import("../doctor/doctor.ts");
    try {
      return await doctor.lookAtAll(await settings.reading(shell), nodes, files);
    } catch (error) {
      return doctor.failureOf(error);
    }
  };
}

/** The settings as options of a command. */
interface Settings {
  /** @throws {ConfigError} with every fault. */
  read(shell: Shell): Promise<Config>;
  /** The same with its faults, and the file that they were read from. @throws {ConfigError} when that can't be read. */
  reading(shell: Shell): Promise<Reading & { readonly file?: SettingsFile }>;
  /** The options that were given, as they can be given again. */
  given(): string[];
}

/** @param keys Which of them. @default all */
export function addSettings(
  command: Command,
  keys = Object.keys(SETTINGS) as readonly (keyof Config)[],
): Settings {
  const options = keys.map((key) => optionOf(SETTINGS[key] as Setting<unknown>));
  command.option(
    "--config <file>",
    "File of settings, in JSON, whose keys are the variables; they and flags win over it",
  );
  for (const option of options) command.addOption(option);
  // Every process reads it, wherever it is started.
  const path = () => {
    const given: string | undefined = command.getOptionValue("config");
    return given === undefined ? undefined : resolve(given);
  };
  const values = (): [string, string | boolean | undefined][] =>
    options.map((option) => [option.name(), command.getOptionValue(option.attributeName())]);
  const reading: Settings["reading"] = async ({ env }) => {
    const from = path();
    const file = from === undefined ? undefined : (await import("../config/file.ts")).readSettingsFile(from);
    return { ...readConfig({ env, flags: Object.fromEntries(values()), file }), ...(file && { file }) };
  };
  return {
    reading,
    async read(shell) {
      const found = await reading(shell);
      if (found.faults.length === 0) return found.config;
      const { furtherFaults } = await import("../server/check.ts");
      throw new ConfigError([...found.faults, ...furtherFaults(found)]);
    },
    given: () =>
      [["config", path()] as const, ...values()].flatMap(([name, value]) =>
        value === undefined ? [] : [value === true ? `--${name}` : `--${name}=${value}`]
      ),
  };
}

function optionOf({ env, flag, kind, fallbackText, meaning }: Setting<unknown>): Option {
  const value = kind.bare ? "[value]" : "<value>";
  return new Option(`--${flag} ${value}`, `${meaning} (env ${env}, default ${fallbackText})`);
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("It must be a whole number.");
  return Number(text);
}
