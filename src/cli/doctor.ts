/** `userwire doctor`: checks a set-up and says what to do. What is looked at is in the room `doctor`. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { parseUsername } from "../protocol/username.ts";
import { addSettings } from "./serve.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface DoctorFlags extends ServiceFlags {
  nodes: number;
  user: string;
  origin?: string;
  idle: number;
  json?: true;
}

/** Longer than the service is silent, by default. */
const IDLE_S = 40;

/** Adds the command. */
export function addDoctor(program: Command, shell: Shell): void {
  const command = addServiceOptions(program.command("doctor"), { token: true })
    .description("Check settings, machine, Redis and keys; or with --url what clients meet there")
    .option("--nodes <number>", "how many nodes share the Redis", wholeNumber, 1)
    .option("--user <name>", "with --url: as whom to connect", `doctor-${crypto.randomUUID().slice(0, 8)}`)
    .option("--origin <origin>", "with --url: of the pages that will connect (default: that of the URL)")
    .addOption(
      new Option("--idle <seconds>", "with --url: how long to wait at most in silence; 0 leaves it out")
        .argParser(wholeNumber).default(IDLE_S),
    )
    .option("--json", "print the findings as JSON")
    .addHelpText(
      "after",
      `
Takes the flags of serve. Exit codes: 0 all is well, 1 with a warning (!), 2 with a fault (✗).

Examples:
  $ userwire doctor --config /etc/userwire.json --nodes 4
  $ userwire doctor --url https://push.example.com --key "$KEY"`,
    );
  const settings = addSettings(command);
  command.action(async (flags: DoctorFlags) => {
    const doctor = await import("../doctor/doctor.ts");
    const { report } = await import("./findings.ts");
    const look = async () => {
      if (flags.url === undefined) {
        return await doctor.lookAtAll(await settings.reading(shell), flags.nodes);
      }
      const service = new Service(flags, shell);
      const { origin, idle } = flags;
      const options = { user: parseUsername(flags.user), origin, idleMs: idle * 1_000 };
      return await doctor.lookThroughUrl(service, options);
    };
    // What could not be looked at is no warning, and is said as the rest is.
    report(shell, await look().catch(doctor.failureOf), flags.json);
  });
}

function wholeNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError("It must be a whole number.");
  return Number(text);
}
