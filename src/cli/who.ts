/** `userwire who`: asks a running service which users are online, and prints one line for each. */
import type { Command } from "commander";
import { parseUsername } from "../protocol/username.ts";
import { inWords } from "./counted.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface WhoOptions extends ServiceFlags {
  json?: true;
}

/** Adds the command. */
export function addWho(program: Command, shell: Shell): void {
  addServiceOptions(program.command("who"))
    .description("Show which users of a running service are online")
    .argument("<user...>", "whom to ask about")
    .option("--json", "print the service's answer as JSON")
    .addHelpText("after", "\nExample:\n  $ userwire who alice bob\n  alice: 2 sockets\n  bob: offline")
    .action(async (users: string[], options: WhoOptions) => {
      const usernames = users.map((user) => parseUsername(user));
      const counts = await new Service(options, shell).online(usernames);
      const lines = options.json
        ? [JSON.stringify(Object.fromEntries([...counts].map(([username, { count }]) => [username, count])))]
        : usernames.map((username) => {
          const counted = counts.get(username)!;
          return `${username}: ${counted.count === 0 ? "offline" : inWords(counted)}`;
        });
      shell.io.out(lines.map((line) => `${line}\n`).join(""));
    });
}
