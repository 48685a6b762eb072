/** Who is in which group, as backends ask for it and change it: with names that are checked, and with who is online. */
import type { Broker } from "../broker/broker.ts";
import type { GroupChange, Groups } from "../groups/groups.ts";
import { GroupChangedError, GroupTooLargeError } from "../protocol/errors.ts";
import { channelOf, type NameRules, parseGroupName, parseUsername } from "../protocol/username.ts";
import { groupNotFound } from "./group_run.ts";

/** What a change came to. */
export interface GroupUpdate {
  added: number;
  removed: number;
  /** How many users the group has now. */
  users: number;
  /** Version of the group; 0 where none is left. */
  version: number;
}

/** A group, and how many of its users are online. */
export interface GroupInfo {
  users: number;
  online: number;
  /** Sockets of all of them; with shared subscriptions instead `nodes`, counted once for each user. */
  sockets?: number;
  nodes?: number;
  version: number;
  /** Another one after the group was made anew. */
  epoch: string;
}

export interface GroupMembers {
  items: { user: string; sockets?: number; nodes?: number }[];
  /** What to give as `after` for the next page; missing on the last one. */
  next?: string;
}

/** Users that are counted at one time. */
const COUNTED = 1_000;

export class GroupBook {
  readonly #groups: Groups;
  readonly #broker: Broker;
  readonly #prefix: string;
  readonly #names: NameRules;
  readonly #maxUsers: number;

  constructor(
    groups: Groups,
    broker: Broker,
    options: { prefix: string; names: NameRules; maxGroupUsers: number },
  ) {
    this.#groups = groups;
    this.#broker = broker;
    this.#prefix = options.prefix;
    this.#names = options.names;
    this.#maxUsers = options.maxGroupUsers;
  }

  /** The name as it is kept. @throws {InvalidGroupNameError} */
  name(group: string): string {
    return parseGroupName(group, this.#names);
  }

  /**
   * Makes these the users of the group, all of them in one step.
   * @param options.ifVersion Only when the group is in this version; 0: only when there is no group.
   * @throws {GroupChangedError} when it is in another version.
   * @throws {InvalidGroupNameError | InvalidUsernameError | GroupTooLargeError | BrokerUnavailableError}
   */
  put(
    group: string,
    usernames: readonly string[],
    options: { ifVersion?: number | undefined } = {},
  ): Promise<GroupUpdate> {
    const { ifVersion } = options;
    return this.#change(group, { replace: usernames, ...(ifVersion !== undefined && { ifVersion }) });
  }

  /** Adds users. @throws as `put`. */
  add(group: string, usernames: readonly string[]): Promise<GroupUpdate> {
    return this.#change(group, { add: usernames });
  }

  /** Takes users out. @throws as `put`. */
  remove(group: string, usernames: readonly string[]): Promise<GroupUpdate> {
    return this.#change(group, { remove: usernames });
  }

  /** Both in one step; a name must not be in both lists. @throws as `put`. */
  change(
    group: string,
    change: { add?: readonly string[]; remove?: readonly string[] },
  ): Promise<GroupUpdate> {
    return this.#change(group, change);
  }

  /**
   * Deletes the group.
   * @returns How many users it had.
   * @throws {GroupNotFoundError | InvalidGroupNameError | BrokerUnavailableError}
   */
  async delete(group: string): Promise<number> {
    const users = await this.#groups.delete(this.name(group));
    if (users === 0) throw groupNotFound(group);
    return users;
  }

  /** @throws {GroupNotFoundError | InvalidGroupNameError | BrokerUnavailableError} */
  async get(group: string): Promise<GroupInfo> {
    const name = this.name(group);
    const { users, version, epoch } = await this.#page(name, "", 0);
    let [online, reached] = [0, 0];
    for (let after = "", hasMore = true; hasMore;) {
      const page = await this.#groups.page(name, after, COUNTED);
      const counts = await this.#counts(page?.names ?? []);
      online += counts.filter((count) => count > 0).length;
      reached += counts.reduce((sum, count) => sum + count, 0);
      hasMore = page?.hasMore ?? false;
      after = page?.names.at(-1) ?? "";
    }
    return { users, online, [this.#broker.counted]: reached, version, epoch };
  }

  /**
   * Users of the group, and who of them is online.
   * @param options.after Where the page before has ended. @default the first page
   * @param options.limit At most so many. @default 1000
   * @throws {GroupNotFoundError | InvalidGroupNameError | InvalidUsernameError | BrokerUnavailableError}
   */
  async members(group: string, options: { after?: string; limit?: number } = {}): Promise<GroupMembers> {
    const { after, limit = COUNTED } = options;
    const from = after === undefined ? "" : parseUsername(after, this.#names);
    const { names, hasMore } = await this.#page(this.name(group), from, limit);
    const counts = await this.#counts(names);
    const items = names.map((user, i) => ({ user, [this.#broker.counted]: counts[i]! }));
    return { items, ...(hasMore && { next: names.at(-1)! }) };
  }

  /** The groups that a user is in. @throws {InvalidUsernameError | BrokerUnavailableError} */
  async of(username: string): Promise<string[]> {
    return await this.#groups.of(parseUsername(username, this.#names));
  }

  /**
   * Takes a user out of all groups, or of those that fit.
   * @returns Out of which.
   * @throws {InvalidUsernameError | BrokerUnavailableError} then they may be out of some.
   */
  async leaveAll(username: string, fits: (group: string) => boolean = () => true): Promise<string[]> {
    const groups = (await this.of(username)).filter(fits);
    for (const group of groups) await this.remove(group, [username]);
    return groups;
  }

  async #change(group: string, change: Omit<GroupChange, "maxUsers">): Promise<GroupUpdate> {
    const name = this.name(group);
    const checked = (usernames: readonly string[] | undefined) =>
      usernames && [...new Set(usernames.map((username) => parseUsername(username, this.#names)))];
    const { replace, add, remove, ...rest } = change;
    const lists = { replace: checked(replace), add: checked(add), remove: checked(remove) };
    const changed = await this.#groups.change(name, { ...lists, ...rest, maxUsers: this.#maxUsers });
    if (changed.outcome === "stale") {
      throw new GroupChangedError(
        changed.version === 0
          ? "There is no such group now: read it again"
          : `The group is in version ${changed.version} now: read it again, and change that`,
      );
    }
    if (changed.outcome === "full") {
      throw new GroupTooLargeError(
        `The group would have ${changed.users} users, and may have ${this.#maxUsers}: nothing was changed. Make ` +
          "several groups, or raise USERWIRE_MAX_GROUP_USERS",
      );
    }
    const { added, removed, users, version } = changed;
    return { added, removed, users, version };
  }

  async #page(name: string, after: string, limit: number) {
    const page = await this.#groups.page(name, after, limit);
    if (!page) throw groupNotFound(name);
    return page;
  }

  async #counts(names: readonly string[]): Promise<number[]> {
    return names.length === 0
      ? []
      : await this.#broker.counts(names.map((name) => channelOf(name, this.#prefix)));
  }
}

/** A publisher that was made without groups. */
export const NO_GROUPS: Groups = { change: noGroups, delete: noGroups, page: noGroups, of: noGroups };

function noGroups(): Promise<never> {
  return Promise.reject(new TypeError("This publisher was made without groups: give it those of its engine"));
}
