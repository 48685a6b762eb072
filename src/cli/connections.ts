/** `userwire connections` and `userwire nodes`: where a user is connected, to close one of them; and which nodes there are. */
import type { Command } from "commander";
import { parseUsername } from "../protocol/username.ts";
import { countedIn, inWords } from "./counted.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface ConnectionsFlags extends ServiceFlags {
  close?: string;
  json?: true;
}

type Answer = Readonly<Record<string, unknown>>;

/** Adds the commands. */
export function addConnections(program: Command, shell: Shell): void {
  const print = (answer: Answer, json: true | undefined, lines: (answer: Answer) => string[]) =>
    shell.io.out((json ? [JSON.stringify(answer)] : lines(answer)).map((line) => `${line}\n`).join(""));

  addServiceOptions(program.command("connections"))
    .description("Show every connection of a user, or close one")
    .argument("<user>", "whose they are")
    .option("--close <id>", "close this one; its client does not come back")
    .option("--json", "print the service's answer as JSON")
    .addHelpText(
      "after",
      `
Example:
  $ userwire connections alice
  5d1c83e4-…: v1 on host:8765 since 2026-11-26T10:00:00.000Z, 0 messages behind`,
    )
    .action(async (user: string, { close, json, ...flags }: ConnectionsFlags) => {
      const path = `v1/users/${encodeURIComponent(parseUsername(user))}/connections`;
      const service = new Service(flags, shell);
      if (close === undefined) return print(await service.ask("GET", path), json, connectionsInWords);
      const answer = await service.ask("DELETE", `${path}/${encodeURIComponent(close)}`);
      print(answer, json, () => [`${close}: closed`]);
    });

  addServiceOptions(program.command("nodes"))
    .description("Show which nodes there are")
    .option("--json", "print the service's answer as JSON")
    .addHelpText("after", "\nExample:\n  $ userwire nodes\n  host:8765: 1.2.0, 2000 sockets, dedicated")
    .action(async ({ json, ...flags }: ConnectionsFlags) => {
      print(
        await new Service(flags, shell).ask("GET", "v1/nodes"),
        json,
        ({ items }) => itemsOf(items).map(nodeInWords),
      );
    });
}

function itemsOf(items: unknown): Answer[] {
  return Array.isArray(items) ? items : [];
}

function connectionsInWords(answer: Answer): string[] {
  const lines = itemsOf(answer.items).map(connectionInWords);
  const unit = countedIn(answer)?.unit ?? "socket";
  if (Number(answer.unanswered) > 0) {
    lines.push(`not complete: ${inWords({ count: Number(answer.unanswered), unit })} did not answer`);
  }
  return lines.length > 0 ? lines : ["offline"];
}

function connectionInWords({ conn, node, mode, since, behind, buffered, exp }: Answer): string {
  return [
    `${conn}: ${mode} on ${node} ${since === undefined ? "being opened" : `since ${since}`}`,
    ...(behind === undefined ? [] : [inWords({ count: Number(behind), unit: "message" }) + " behind"]),
    ...(buffered === 0 ? [] : [inWords({ count: Number(buffered), unit: "byte" }) + " waiting"]),
    ...(exp === undefined ? [] : [`until ${new Date(Number(exp) * 1_000).toISOString()}`]),
  ].join(", ");
}

function nodeInWords({ node, version, connections, subscriptions, draining }: Answer): string {
  return [
    `${node}: ${version}`,
    inWords({ count: Number(connections), unit: "socket" }),
    ...(subscriptions === undefined ? ["in memory"] : [subscriptions]),
    ...(draining ? ["draining"] : []),
  ].join(", ");
}
