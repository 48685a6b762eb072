/** `userwire key new`: makes an API key. It is printed once and stored nowhere; the service gets only its hash. */
import type { Command } from "commander";
import { newKey } from "../auth/keys.ts";
import type { Shell } from "./shell.ts";

interface NewOptions {
  scopes: string;
  users: string;
  json?: true;
}

/** Adds the command. */
export function addKey(program: Command, { io }: Shell): void {
  const key = program.command("key").description("Make keys for callers of the API");
  const command = key.command("new")
    .description("Make a key: the caller keeps the key, the service gets the line")
    .argument("<name>", "whose key it is, for logs and messages")
    .requiredOption(
      "--scopes <list>",
      "what it allows: send, broadcast, read, tickets, groups, admin, comma separated",
    )
    .option(
      "--users <pattern>",
      "which users it may address, and with @ which groups; * stands for any text",
      "*",
    )
    .option("--json", "print both as JSON")
    .addHelpText(
      "after",
      `
Scopes:
  send       send messages
  broadcast  send messages to everybody; needs the pattern *
  read       see who is online, read histories and metrics
  tickets    make tickets, with which sockets connect
  groups     change who is in which group
  admin      make tickets, broadcast, close connections, revoke tokens

Examples:
  $ userwire key new shop --scopes send,read --users 'customer-*'
  $ userwire key new crm --scopes send,read,groups --users 'user-*|@team-*'`,
    );
  command.action((name: string, { scopes, users, json }: NewOptions) => {
    let made: { key: string; line: string };
    try {
      made = newKey(name, { scopes: scopes.split(",").map((scope) => scope.trim()), users });
    } catch (error) {
      if (error instanceof TypeError) command.error(`error: ${error.message}`);
      throw error;
    }
    if (json) return io.out(`${JSON.stringify(made)}\n`);
    io.err("The key, for the caller; it is not shown again:\n");
    io.out(`${made.key}\n`);
    io.err("The line, for USERWIRE_API_KEYS or the file in USERWIRE_API_KEYS_FILE:\n");
    io.out(`${made.line}\n`);
  });
}
