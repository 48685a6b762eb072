/**
 * Groups in Redis, on one server or on a cluster.
 *
 *     userwire:{userwire:<prefix>group:<g>}:members  sorted set  usernames, all of score 0: so they are in order of their bytes
 *     userwire:{userwire:<prefix>group:<g>}:meta     hash        version, epoch
 *     userwire:{<channel>}:groups                    sorted set  groups that the user may be in, by when that was last noted
 *
 * The last is a hint that may name too many and never too few: it is written before the group when somebody joins, and
 * after it when they leave. Who reads it asks each group, and takes out those that are wrong.
 */
import { groupsKey, membersKey, metaKey, type Script, type Scripts } from "../redis/commands.ts";
import { groupTag } from "../protocol/username.ts";
import type { GroupChange, GroupChanged, Groups, MemberPage } from "./groups.ts";
import { CHANGE, DELETE, IS_MEMBER, LIST, LISTED, PAGE, UNLIST } from "./scripts.ts";

/** Where scripts are run, and whether any keys may be named together. */
export interface GroupScripts extends Scripts {
  readonly isOne: boolean;
}

/** Users or groups that are asked for at one time. */
const PORTION = 200;
/** Members read at one time. */
const MEMBERS = 1_000;
/** A list of groups that has grown by so many is looked through: nobody may ever ask for it. */
const LOOKED_THROUGH = 64;

export class RedisGroups implements Groups {
  readonly #scripts: GroupScripts;
  readonly #prefix: string;

  /** @param prefix That of the installation's channels. */
  constructor(scripts: GroupScripts, prefix: string) {
    this.#scripts = scripts;
    this.#prefix = prefix;
    scripts.prepare(CHANGE, DELETE, PAGE, IS_MEMBER, LIST, UNLIST, LISTED);
  }

  async change(group: string, change: GroupChange): Promise<GroupChanged> {
    const { replace, add = [], remove = [], ifVersion, maxUsers } = change;
    const joining = replace ?? add;
    if (joining.length <= maxUsers) await this.#list(group, joining);
    const reply = await this.#scripts.evaluate(CHANGE, this.#keys(group), [
      String(maxUsers),
      ifVersion === undefined ? "" : String(ifVersion),
      replace ? "1" : "0",
      crypto.randomUUID().slice(0, 8),
      String(joining.length),
      ...joining,
      ...(replace ? [] : remove),
    ]) as [outcome: GroupChanged["outcome"], ...string[]];
    const [outcome, ...rest] = reply;
    const [first, removed, users, version] = rest.slice(0, 4).map(Number) as [number, number, number, number];
    if (outcome === "stale") return { outcome, version: first };
    if (outcome === "full") return { outcome, users: first };
    await this.#unlist(replace ? rest.slice(4) : remove, [group]);
    return { outcome, added: first, removed, users, version };
  }

  async delete(group: string): Promise<number> {
    const members: string[] = [];
    for (let after = "";;) {
      const page = await this.page(group, after, MEMBERS);
      members.push(...page?.names ?? []);
      if (!page?.hasMore) break;
      after = page.names.at(-1)!;
    }
    const users = await this.#scripts.evaluate(DELETE, this.#keys(group), []) as number;
    await this.#unlist(members, [group]);
    return users;
  }

  async page(group: string, after: string, limit: number): Promise<MemberPage | undefined> {
    const args = [after, String(limit + 1)];
    const reply = await this.#scripts.evaluate(PAGE, this.#keys(group), args) as string[];
    const [users, version, epoch, ...names] = reply;
    if (users === undefined) return undefined;
    return {
      users: Number(users),
      version: Number(version),
      epoch: epoch!,
      names: names.slice(0, limit),
      hasMore: names.length > limit,
    };
  }

  async of(username: string): Promise<string[]> {
    const key = groupsKey(this.#prefix + username);
    const listed = await this.#scripts.evaluate(LISTED, [key], []) as string[];
    const isMember = new Map<string, boolean>();
    await inPortions(listed, async (group) => {
      const found = await this.#scripts.evaluate(IS_MEMBER, this.#keys(group).slice(0, 1), [username]);
      isMember.set(group, found === 1);
    });
    const wrong = listed.filter((group) => !isMember.get(group));
    if (wrong.length > 0) await this.#unlist([username], wrong);
    return listed.filter((group) => isMember.get(group)).sort();
  }

  /** Notes that these users are about to be in a group. */
  async #list(group: string, usernames: readonly string[]): Promise<void> {
    await this.#forEach(usernames, LIST, [group], (longest, names) => {
      if (longest < LOOKED_THROUGH || longest % LOOKED_THROUGH !== 0) return;
      // It is done again when it has grown as much once more.
      for (const name of names) this.of(name).catch(() => {});
    });
  }

  #unlist(usernames: readonly string[], groups: readonly string[]): Promise<void> {
    return this.#forEach(usernames, UNLIST, groups);
  }

  /** Runs a script on the lists of these users: on one server a portion of them at one time. */
  async #forEach(
    usernames: readonly string[],
    script: Script,
    args: readonly string[],
    onReply: (reply: number, names: readonly string[]) => void = () => {},
  ): Promise<void> {
    const run = async (names: readonly string[]) => {
      const keys = names.map((name) => groupsKey(this.#prefix + name));
      onReply(await this.#scripts.evaluate(script, keys, args) as number, names);
    };
    if (!this.#scripts.isOne) return await inPortions(usernames, (name) => run([name]));
    for (let at = 0; at < usernames.length; at += PORTION) await run(usernames.slice(at, at + PORTION));
  }

  #keys(group: string): [users: string, meta: string] {
    const tag = groupTag(this.#prefix, group);
    return [membersKey(tag), metaKey(tag)];
  }
}

/** Does it for some at a time, so that others are served in between. */
async function inPortions(names: readonly string[], work: (name: string) => Promise<void>): Promise<void> {
  for (let at = 0; at < names.length; at += PORTION) {
    await Promise.all(names.slice(at, at + PORTION).map(work));
  }
}
