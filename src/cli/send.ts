/**
 * `userwire send`: gives a running service one message for one user and prints how many sockets it reached. A
 * user who is offline is an answer, not a failure.
 */
import type { Command } from "commander";
import { parseUsername } from "../protocol/username.ts";
import { addPayload, type PayloadFlags, payloadOf } from "./payload.ts";
import { addServiceOptions, type Counted, inWords, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface SendOptions extends ServiceFlags, PayloadFlags {
  json?: true;
}

/** Adds the command. */
export function addSend(program: Command, shell: Shell): void {
  const { io } = shell;
  const command = program.command("send")
    .description("Send a message to a user of a running service")
    .argument("<user>", "who gets it");
  addPayload(command)
    .option("--json", "print the service's answer as JSON")
    .addHelpText("after", `\nExample:\n  $ userwire send alice '{"hello": "world"}'\n  sent to 2 sockets`);

  addServiceOptions(command);
  command.action(async (user: string, given: string | undefined, options: SendOptions) => {
    const username = parseUsername(user);
    const service = new Service(options, shell);
    const { answer, count } = await service.send(username, await payloadOf(command, io, given, options));
    io.out(`${options.json ? JSON.stringify(answer) : outcome(username, count)}\n`);
  });
}

function outcome(username: string, count: Counted): string {
  return count.count === 0 ? `${username} is offline (${inWords(count)})` : `sent to ${inWords(count)}`;
}
