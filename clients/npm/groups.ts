/** Who is in which group, and what is sent to all of one: the calls of a backend on a service's HTTP API. */
import type { Caller } from "./call.ts";
import { groupPath, JSON_TYPE, query, userPath } from "./path.ts";

/** What became of a message to a group: how many users, but for sockets and nodes. */
export interface GroupSent {
  /** Id of the message, the same for all users. */
  readonly id: string;
  /** Users that it was numbered for. */
  readonly users: number;
  /** Of these, who had a socket. */
  readonly online: number;
  /** Sockets that were handed it; missing where the service's subscriptions are shared, see `nodes`. */
  readonly sockets?: number;
  /** Nodes that hold sockets, once for each user, where subscriptions are shared. */
  readonly nodes?: number;
  /** Of these, who had no socket, and for whom it is kept. */
  readonly stored: number;
  /** Users who got nothing, and no number: without a socket, and not seen for a day. */
  readonly unknown: number;
  /** With `expectOnline`: users who were left out. */
  readonly offline?: number;
  /** Users for whom Redis refused it. */
  readonly failed?: number;
  /** How many sockets' clients have acknowledged it; only when that was waited for. */
  readonly acked?: number;
}

/** What a change of a group came to. */
export interface GroupUpdate {
  readonly added: number;
  readonly removed: number;
  /** How many users the group has now. */
  readonly users: number;
  /** Greater after each change; 0 where no group is left. */
  readonly version: number;
}

/** A group, and how many of its users are online. */
export interface GroupInfo {
  readonly users: number;
  readonly online: number;
  readonly sockets?: number;
  readonly nodes?: number;
  readonly version: number;
  /** Another one after the group was made anew. */
  readonly epoch: string;
}

/** A page of a group's users. */
export interface GroupMembers {
  readonly items: readonly { readonly user: string; readonly sockets?: number; readonly nodes?: number }[];
  /** What to give as `after` for the next page; missing on the last one. */
  readonly next?: string;
}

/** Named sets of users that the service keeps. Each method throws a `UserwireError` as those of `Server` do. */
export interface Groups {
  /**
   * Makes these the users of the group, all of them in one step.
   * @param options.ifVersion Only when the group is in this version, 0: when there is none; else the error's code is
   *   `group_changed`.
   */
  put(
    group: string,
    users: readonly string[],
    options?: { readonly ifVersion?: number | undefined },
  ): Promise<GroupUpdate>;
  /** Adds users, at most 10,000. */
  add(group: string, users: readonly string[]): Promise<GroupUpdate>;
  /** Takes users out, at most 10,000. */
  remove(group: string, users: readonly string[]): Promise<GroupUpdate>;
  /** An unknown group is an error with the code `group_not_found`, here and below. */
  get(group: string): Promise<GroupInfo>;
  /** Users of the group in order of their names. @param options.limit At most so many. @default 1000 */
  members(
    group: string,
    options?: { readonly after?: string | undefined; readonly limit?: number | undefined },
  ): Promise<GroupMembers>;
  /** Deletes the group. @returns How many users it had. */
  delete(group: string): Promise<number>;
  /** The groups that a user is in, of those that the key may address. */
  of(user: string): Promise<string[]>;
  /** Takes a user out of all groups that the key may address. @returns Out of which. */
  leaveAll(user: string): Promise<string[]>;
}

export function groupsBy(caller: Caller): Groups {
  const call = async <Body>(method: string, path: string, value?: unknown, headers = {}): Promise<Body> => {
    const body = value === undefined
      ? { headers }
      : { headers: { "content-type": JSON_TYPE, ...headers }, body: JSON.stringify(value) };
    return (await caller.call<Body>({ method, path, ...body })).body;
  };
  return {
    async put(group, users, { ifVersion } = {}) {
      const headers = ifVersion === undefined ? {} : { "if-match": `"${ifVersion}"` };
      return await call("PUT", groupPath(group), { users }, headers);
    },
    add: async (group, users) => await call("PATCH", groupPath(group), { add: users }),
    remove: async (group, users) => await call("PATCH", groupPath(group), { remove: users }),
    get: async (group) => await call("GET", groupPath(group)),
    members: async (group, { after, limit } = {}) =>
      await call("GET", `${groupPath(group)}/users${query({ after, limit })}`),
    delete: async (group) => (await call<{ users: number }>("DELETE", groupPath(group))).users,
    of: async (user) => (await call<{ groups: string[] }>("GET", `${userPath(user)}/groups`)).groups,
    leaveAll: async (user) => (await call<{ groups: string[] }>("DELETE", `${userPath(user)}/groups`)).groups,
  };
}
