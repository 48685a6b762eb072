/**
 * `userwire send`: gives a running service one message for one user, or for a group, and prints how many sockets it
 * reached. A user who is offline is an answer, not a failure.
 */
import { type Command, InvalidArgumentError } from "commander";
import { parseGroupName, parseUsername } from "../protocol/username.ts";
import { type Counted, inWords } from "./counted.ts";
import { groupOutcome } from "./group.ts";
import { addPayload, type PayloadFlags, payloadOf } from "./payload.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface SendOptions extends ServiceFlags, PayloadFlags {
  json?: true;
  unacked?: number;
}

/** Adds the command. */
export function addSend(program: Command, shell: Shell): void {
  const { io } = shell;
  const command = program.command("send")
    .description("Send a message to a user of a running service, or to a group")
    .argument("<user>", "who gets it; @team-7 is the group team-7");
  addPayload(command)
    .option("--json", "print the service's answer as JSON")
    .option(
      "--unacked <seconds>",
      "have the backend told (message.unacked) when no client has acknowledged it by then; 0: when the user is offline",
      wholeSeconds,
    )
    .addHelpText("after", `\nExample:\n  $ userwire send alice '{"hello": "world"}'\n  sent to 2 sockets`);

  addServiceOptions(command);
  command.action(async (user: string, given: string | undefined, options: SendOptions) => {
    const to = user.startsWith("@")
      ? { group: parseGroupName(user.slice(1)) }
      : { user: parseUsername(user) };
    const service = new Service(options, shell);
    const { answer, count } = await service.send(to, await payloadOf(command, io, given, options), options);
    const words = "user" in to ? outcome(to.user, count) : groupOutcome(answer, count);
    io.out(`${options.json ? JSON.stringify(answer) : words}\n`);
  });
}

function wholeSeconds(text: string): number {
  if (!/^\d{1,5}$/.test(text)) {
    throw new InvalidArgumentError("It must be a whole number of seconds, up to 86400");
  }
  return Number(text);
}

function outcome(username: string, count: Counted): string {
  return count.count === 0 ? `${username} is offline (${inWords(count)})` : `sent to ${inWords(count)}`;
}
