/**
 * `userwire drain` and `userwire log-level`: what is told to a running node. Of several processes on one port each is told,
 * where they are asked together.
 */
import { Argument, type Command, Option } from "commander";
import { AREAS, LEVELS } from "../log/levels.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface DrainFlags extends ServiceFlags {
  status?: true;
  cancel?: true;
  json?: true;
}

interface LevelFlags extends ServiceFlags {
  area?: string;
  json?: true;
}

type Answer = Readonly<Record<string, unknown>>;

const SEVERAL = "\nOf several processes on one port each is told: with --url at USERWIRE_OPS_PORT.\n";

/** Adds the commands. */
export function addOperate(program: Command, shell: Shell): void {
  addServiceOptions(program.command("drain"))
    .description("Send the clients of a running node to others; it takes no new ones, and does not end")
    .option("--status", "only say how far it is")
    .addOption(new Option("--cancel", "take clients again").conflicts("status"))
    .option("--json", "print the answer as JSON")
    .addHelpText(
      "after",
      `${SEVERAL}
Example:
  $ userwire drain
  draining: 2000 of 2000 sockets left`,
    )
    .action(async (flags: DrainFlags) => {
      const method = flags.cancel ? "DELETE" : flags.status ? "GET" : "POST";
      const answer = await new Service(flags, shell).ask(method, "v1/drain");
      print(shell, answer, flags.json, drainInWords);
    });

  addServiceOptions(program.command("log-level"))
    .description("Show or change which lines a running node writes to its log")
    .addArgument(new Argument("[level]", "the lowest that is written, until the node ends").choices(LEVELS))
    .addOption(new Option("--area <area>", "only of this part").choices(AREAS))
    .option("--json", "print the answer as JSON")
    .addHelpText(
      "after",
      `${SEVERAL}
Example:
  $ userwire log-level debug --area http
  service: info, http: debug, session: info, redis: info, auth: info, webhooks: info`,
    )
    .action(async (level: string | undefined, flags: LevelFlags, command: Command) => {
      if (level === undefined && flags.area !== undefined) command.error("error: --area needs a level");
      const service = new Service(flags, shell);
      const answer = level === undefined
        ? await service.ask("GET", "v1/log-level")
        : await service.ask("PUT", "v1/log-level", { level, area: flags.area });
      print(shell, answer, flags.json, levelsInWords);
    });
}

/** One line for each process that answered. */
function print(
  shell: Shell,
  answer: Answer,
  json: true | undefined,
  inWords: (answer: Answer) => string,
): void {
  if (json) return shell.io.out(`${JSON.stringify(answer)}\n`);
  const { processes } = answer;
  if (!Array.isArray(processes)) return shell.io.out(`${inWords(answer)}\n`);
  for (const one of processes) shell.io.out(`process ${one.process}: ${inWords(one)}\n`);
}

function drainInWords({ draining, of, left }: Answer): string {
  const sockets = left === 1 ? "socket" : "sockets";
  return draining ? `draining: ${left} of ${of} sockets left` : `not draining: ${left} ${sockets}`;
}

function levelsInWords({ areas }: Answer): string {
  return Object.entries(areas ?? {}).map(([area, level]) => `${area}: ${level}`).join(", ");
}
