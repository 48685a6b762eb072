/** Groups inside one process, for a service of a single node. It forgets everything when the process ends. */
import type { GroupChange, GroupChanged, Groups, MemberPage } from "./groups.ts";

interface Group {
  readonly epoch: string;
  readonly users: Set<string>;
  version: number;
  /** The same users in order; undefined since the last change. */
  sorted: readonly string[] | undefined;
}

export class MemoryGroups implements Groups {
  readonly #groups = new Map<string, Group>();
  /** The greatest that any has, or had. */
  #version = 0;

  // deno-lint-ignore require-await -- async so that a fault is a rejection, as the contract says
  async change(name: string, change: GroupChange): Promise<GroupChanged> {
    const known = this.#groups.get(name);
    const group = known ??
      { epoch: crypto.randomUUID().slice(0, 8), users: new Set(), version: 0, sorted: undefined };
    const { users, version } = group;
    if (change.ifVersion !== undefined && change.ifVersion !== version) return { outcome: "stale", version };
    const wanted = new Set(change.replace ?? change.add);
    const leaving = change.replace
      ? [...users].filter((user) => !wanted.has(user))
      : (change.remove ?? []).filter((user) => users.has(user));
    const joining = [...wanted].filter((user) => !users.has(user));
    const size = users.size + joining.length - leaving.length;
    if (size > change.maxUsers && joining.length > 0) return { outcome: "full", users: size };
    for (const user of leaving) users.delete(user);
    for (const user of joining) users.add(user);
    if (leaving.length + joining.length > 0) {
      group.version = this.#version = Math.max(this.#version + 1, Date.now() * 1_000);
      group.sorted = undefined;
    }
    if (users.size > 0) this.#groups.set(name, group);
    else this.#groups.delete(name);
    return {
      outcome: "changed",
      added: joining.length,
      removed: leaving.length,
      users: users.size,
      version: users.size > 0 ? group.version : 0,
    };
  }

  // deno-lint-ignore require-await -- as above
  async delete(name: string): Promise<number> {
    const users = this.#groups.get(name)?.users.size ?? 0;
    this.#groups.delete(name);
    return users;
  }

  // deno-lint-ignore require-await -- as above
  async page(name: string, after: string, limit: number): Promise<MemberPage | undefined> {
    const group = this.#groups.get(name);
    if (!group) return undefined;
    const { users, version, epoch } = group;
    const sorted = group.sorted ??= [...users].sort();
    const first = after === "" ? 0 : sorted.findIndex((user) => user > after);
    const names = first < 0 ? [] : sorted.slice(first, first + limit);
    const hasMore = first >= 0 && first + limit < sorted.length;
    return { users: users.size, version, epoch, names, hasMore };
  }

  // deno-lint-ignore require-await -- as above
  async of(username: string): Promise<string[]> {
    return [...this.#groups].flatMap(([name, { users }]) => users.has(username) ? [name] : []).sort();
  }
}
