/** `userwire group`: asks a running service who is in a group, and changes that. */
import type { Command } from "commander";
import { parseGroupName, parseUsername } from "../protocol/username.ts";
import { type Counted, countedIn, inWords } from "./counted.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import type { Shell } from "./shell.ts";

interface GroupOptions extends ServiceFlags {
  json?: true;
}

/** Adds the command. */
export function addGroup(program: Command, shell: Shell): void {
  const group = program.command("group").description("Show and change who is in a group")
    .addHelpText(
      "after",
      `
Example:
  $ userwire group add team-7 alice bob
  team-7: 2 added, 2 users now
  $ userwire send @team-7 '{"hello": "all"}'
  sent to 3 sockets of 2 users; kept for 0`,
    );
  const command = (text: string, description: string) =>
    addServiceOptions(group.command(text)).description(description)
      .argument("<name>", "of the group, with or without @ before it")
      .option("--json", "print the service's answer as JSON");

  for (const [verb, field] of [["add", "added"], ["remove", "removed"]] as const) {
    const done = verb === "add" ? "Add users to a group" : "Take users out of a group";
    command(verb, done).argument("<user...>", "who").action(
      async (name: string, users: string[], options: GroupOptions) => {
        const usernames = users.map((user) => parseUsername(user));
        const answer = await new Service(options, shell).ask("PATCH", pathOf(name), { [verb]: usernames });
        const counts = `${answer[field]} ${field}, ${userCount(answer.users)} now`;
        shell.io.out(`${options.json ? JSON.stringify(answer) : `${nameOf(name)}: ${counts}`}\n`);
      },
    );
  }
  command("show", "Show who is in a group, and who of them is online").action(
    async (name: string, options: GroupOptions) => {
      const service = new Service(options, shell);
      const state = await service.ask("GET", pathOf(name));
      const members = await allMembers(service, name);
      if (options.json) return shell.io.out(`${JSON.stringify({ ...state, items: members })}\n`);
      const lines = members.map((member) => {
        const counted = countedIn(member);
        return `${member.user}: ${counted?.count ? inWords(counted) : "offline"}`;
      });
      const online = `${userCount(state.users)}, ${state.online} online (${inWords(countedIn(state)!)})`;
      shell.io.out([`${nameOf(name)}: ${online}`, ...lines].map((line) => `${line}\n`).join(""));
    },
  );
  command("delete", "Delete a group").action(async (name: string, options: GroupOptions) => {
    const answer = await new Service(options, shell).ask("DELETE", pathOf(name));
    const text = `${nameOf(name)}: deleted, it had ${userCount(answer.users)}`;
    shell.io.out(`${options.json ? JSON.stringify(answer) : text}\n`);
  });
}

/** What a send to a group came to, in words. */
export function groupOutcome(answer: Record<string, unknown>, count: Counted): string {
  const { online, stored, unknown, failed } = answer;
  return [
    `sent to ${inWords(count)} of ${userCount(online)}; kept for ${stored}`,
    ...(Number(unknown) > 0 ? [`not seen for a day: ${unknown}`] : []),
    ...(Number(failed) > 0 ? [`refused by Redis: ${failed}`] : []),
  ].join("; ");
}

async function allMembers(service: Service, name: string) {
  const members: ({ user: string } & Record<string, unknown>)[] = [];
  for (let next: unknown = undefined;;) {
    const query = typeof next === "string" ? `?${new URLSearchParams({ after: next })}` : "";
    const page = await service.ask("GET", `${pathOf(name)}/users${query}`);
    members.push(...page.items as typeof members);
    next = page.next;
    if (next === undefined) return members;
  }
}

function nameOf(name: string): string {
  return parseGroupName(name.startsWith("@") ? name.slice(1) : name);
}

function pathOf(name: string): string {
  return `v1/groups/${encodeURIComponent(nameOf(name))}`;
}

function userCount(count: unknown): string {
  return inWords({ count: Number(count), unit: "user" });
}
