/**
 * `userwire send`: gives a running service one message for one user, or for a group, and prints how many sockets it
 * reached. A user who is offline is an answer, not a failure.
 */
import { type Command, Option } from "commander";
import { InvalidMessageError } from "../protocol/errors.ts";
import { isJson } from "../protocol/json.ts";
import { parseGroupName, parseUsername } from "../protocol/username.ts";
import { groupOutcome } from "./group.ts";
import {
  addServiceOptions,
  type Counted,
  inWords,
  type Payload,
  Service,
  type ServiceFlags,
} from "./service.ts";
import type { Io, Shell } from "./shell.ts";

interface SendOptions extends ServiceFlags {
  text?: true;
  binary?: true;
  json?: true;
}

/** Adds the command. Without its own payload it reads standard input. */
export function addSend(program: Command, shell: Shell): void {
  const { io } = shell;
  const command = program.command("send")
    .description("Send a message to a user of a running service, or to a group")
    .argument("<user>", "who gets it; @team-7 is the group team-7")
    .argument("[payload]", "what to send; - or nothing reads standard input, less a line break at its end")
    .addOption(new Option("--text", "send the payload as text even if it is JSON").conflicts("binary"))
    .option("--binary", "send the bytes of standard input as they are")
    .option("--json", "print the service's answer as JSON")
    .addHelpText("after", `\nExample:\n  $ userwire send alice '{"hello": "world"}'\n  sent to 2 sockets`);

  addServiceOptions(command);
  command.action(async (user: string, given: string | undefined, options: SendOptions) => {
    const to = user.startsWith("@")
      ? { group: parseGroupName(user.slice(1)) }
      : { user: parseUsername(user) };
    if (options.binary && given !== undefined && given !== "-") {
      command.error("error: --binary reads standard input: leave the payload out");
    }
    if (given === undefined && io.isInteractive) {
      command.error("error: there is no payload: give one, or - to type it and end with Ctrl+D");
    }
    const service = new Service(options, shell);
    const payload = options.binary
      ? { type: "application/octet-stream", body: await io.input() }
      : textPayload(given === undefined || given === "-" ? await textFrom(io) : given, options.text);

    const { answer, count } = await service.send(to, payload);
    const words = "user" in to ? outcome(to.user, count) : groupOutcome(answer, count);
    io.out(`${options.json ? JSON.stringify(answer) : words}\n`);
  });
}

function textPayload(text: string, isText = false): Payload {
  return { type: !isText && isJson(text) ? "application/json" : "text/plain; charset=utf-8", body: text };
}

async function textFrom(io: Io): Promise<string> {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await io.input());
    return text.replace(/\r?\n$/, "");
  } catch (error) {
    throw error instanceof TypeError
      ? new InvalidMessageError("Standard input is not UTF-8 text: send it with --binary", { cause: error })
      : error;
  }
}

function outcome(username: string, count: Counted): string {
  return count.count === 0 ? `${username} is offline (${inWords(count)})` : `sent to ${inWords(count)}`;
}
