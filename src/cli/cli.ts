/**
 * The command line: picks the command, and turns its end into an exit code and one clear error on standard error. The
 * room owns arguments, output and exit codes, and asks a service only through its HTTP API and our client. It reads no
 * environment and ends no process by itself; both are the caller's.
 *
 * Exit codes: 0 done, 1 failed, 2 the command line or a setting can't be used.
 */
import { Command, CommanderError } from "commander";
import manifest from "../../deno.json" with { type: "json" };
import {
  ConfigError,
  InvalidGroupNameError,
  InvalidMessageError,
  InvalidUsernameError,
  messageOf,
} from "../protocol/errors.ts";
import { addBench, NotMeasuredError } from "./bench.ts";
import { addBroadcast } from "./broadcast.ts";
import { addCompletions } from "./completions.ts";
import { addConfig } from "./config.ts";
import { addConnections } from "./connections.ts";
import { addDoctor } from "./doctor.ts";
import { addGroup } from "./group.ts";
import { addKey } from "./key.ts";
import { addRedisFunctions } from "./redis_functions.ts";
import { addListen } from "./listen.ts";
import { addOperate } from "./operate.ts";
import { addSend } from "./send.ts";
import { addProcess, addServe } from "./serve.ts";
import { type Io, type Shell, terminal } from "./shell.ts";
import { addWebhook } from "./webhook.ts";
import { addWho } from "./who.ts";

/**
 * Runs a command line.
 * @param args What follows the program's name. Without a command they belong to `serve`.
 * @param env Environment variables.
 * @param io Where the command reads and writes.
 * @returns The exit code. Never rejects.
 */
export async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  io: Io = terminal(),
): Promise<number> {
  const shell: Shell = { env, io, exitCode: 0 };
  try {
    await program(shell).parseAsync(withCommand(args), { from: "user" });
    return shell.exitCode;
  } catch (error) {
    // The reader of our output has closed it, as in `userwire listen alice | head -1`.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    // Commander has written its message already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    return report(error, shell);
  }
}

function program(shell: Shell): Command {
  const { io } = shell;
  const program = new Command("userwire")
    .description("Pushes messages to named users over WebSockets, from any of many nodes.")
    .version(manifest.version, "-V, --version", "print the version")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => writeError(io, text),
      getOutHelpWidth: () => io.columns,
      getErrHelpWidth: () => io.columns,
    })
    .addHelpText(
      "after",
      `
Examples:
  $ userwire                        serve on http://127.0.0.1:8765
  $ userwire listen alice           be alice, in a second terminal
  $ userwire send alice hi          send to alice, from a third one
  $ userwire serve --help           show every setting

Exit codes: 0 done, 1 failed, 2 the command line or a setting can't be used`,
    );
  addServe(program, shell);
  addProcess(program, shell);
  addSend(program, shell);
  addBroadcast(program, shell);
  addListen(program, shell);
  addWho(program, shell);
  addConnections(program, shell);
  addGroup(program, shell);
  addKey(program, shell);
  addWebhook(program, shell);
  addRedisFunctions(program, shell);
  addConfig(program, shell);
  addDoctor(program, shell);
  addBench(program, shell);
  addOperate(program, shell);
  addCompletions(program, shell);
  return program;
}

/**
 * Puts `serve` before options without a command. Commander's own default command would swallow a mistyped
 * command as an argument, and with it the suggestion of the right one.
 */
function withCommand(args: readonly string[]): string[] {
  const [first] = args;
  const isOurs = first !== undefined && (!first.startsWith("-") || PROGRAM_FLAGS.has(first));
  return isOurs ? [...args] : ["serve", ...args];
}

const PROGRAM_FLAGS: ReadonlySet<string> = new Set(["-h", "--help", "-V", "--version"]);

function report(error: unknown, { env, io }: Shell): number {
  writeError(io, `error: ${inWords(error, { hasStack: env.LOG_LEVEL === "debug" })}\n`);
  return USER_FAULTS.some((kind) => error instanceof kind) ? 2 : 1;
}

/** Where standard error takes nothing, as on a full disk, the exit code alone has to say it. */
function writeError(io: Io, text: string): void {
  try {
    io.err(text);
  } catch {
    // There is nowhere else to say it.
  }
}

const USER_FAULTS = [
  ConfigError,
  InvalidGroupNameError,
  InvalidUsernameError,
  InvalidMessageError,
  NotMeasuredError,
];

function inWords(error: unknown, { hasStack }: { hasStack: boolean }): string {
  if (error instanceof ConfigError) {
    const { faults } = error;
    const what = faults.length === 1 ? "a setting" : `${faults.length} settings`;
    return [`${what} can't be used:`, ...faults].join("\n  ");
  }
  return hasStack && error instanceof Error ? error.stack ?? error.message : messageOf(error);
}
