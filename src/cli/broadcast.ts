/** `userwire broadcast`: gives a running service one message for everybody who is connected. */
import type { Command } from "commander";
import { inWords } from "./counted.ts";
import { addPayload, type PayloadFlags, payloadOf } from "./payload.ts";
import { addServiceOptions, type Broadcasted, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface BroadcastOptions extends ServiceFlags, PayloadFlags {
  json?: true;
}

/** Adds the command. */
export function addBroadcast(program: Command, shell: Shell): void {
  const { io } = shell;
  const command = program.command("broadcast")
    .description("Send a message to everybody who is connected to a running service");
  addPayload(command)
    .option("--json", "print the service's answer as JSON")
    .addHelpText(
      "after",
      `\nExample:\n  $ userwire broadcast '{"maintenance": "22:00"}'\n  sent to 10412 sockets of 3 nodes`,
    );

  addServiceOptions(command);
  command.action(async (given: string | undefined, options: BroadcastOptions) => {
    const service = new Service(options, shell);
    const answer = await service.broadcast(await payloadOf(command, io, given, options));
    io.out(`${options.json ? JSON.stringify(answer) : outcome(answer)}\n`);
  });
}

function outcome({ nodes, sockets, heard = 0 }: Broadcasted): string {
  const all = inWords({ count: nodes, unit: "node" });
  if (sockets !== undefined) return `sent to ${inWords({ count: sockets, unit: "socket" })} of ${all}`;
  return `sent to ${all}, of which ${heard} said to how many sockets in time`;
}
