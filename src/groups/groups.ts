/**
 * The contract of groups. A group is a named set of usernames that the backend keeps here; no client joins one, and none is
 * told of it. The room owns who is in which group, and where that is kept. It knows checked names, and nothing of messages:
 * who sends to a group asks for its users, page after page (`publisher/group_send.ts`).
 *
 * Guarantees, for every implementation (`tests/contracts/groups.ts` checks them):
 *
 * - A change is one step: it is made whole or not at all, and its version is greater than that of every other the group
 *   ever had, also of one that was deleted or lost and made anew.
 * - Membership has no end of its own. A group without users is none.
 * - Pages come in one order. Who is a member from before the first page until after the last is on exactly one of them; who
 *   joins or leaves meanwhile may be on one, and on no more than one.
 * - `of` names no group that the user is not in. On a cluster the group and the user's list of groups are on different
 *   servers: the list is written before the group, so that a process that ends in between leaves a name too many, which no
 *   answer shows and which goes in time.
 * - An implementation that can't be reached rejects with `BrokerUnavailableError` within a bounded time.
 */

/** A group as it is at one moment. */
export interface GroupState {
  /** How many there are. */
  readonly users: number;
  /** Greater after each change, a whole number. */
  readonly version: number;
  /** Another one where the group was made anew. */
  readonly epoch: string;
}

export interface GroupChange {
  /** Each once, and none of them in the other list. */
  readonly add?: readonly string[] | undefined;
  readonly remove?: readonly string[] | undefined;
  /** Takes the place of all that are there. */
  readonly replace?: readonly string[] | undefined;
  /** The version that it must be in; 0 where there must be no group. */
  readonly ifVersion?: number;
  /** The group must not become larger than this. */
  readonly maxUsers: number;
}

export type GroupChanged =
  | {
    readonly outcome: "changed";
    readonly added: number;
    readonly removed: number;
    readonly users: number;
    /** 0 where no group is left. */
    readonly version: number;
  }
  /** The group is in another version. */
  | { readonly outcome: "stale"; readonly version: number }
  /** It would have so many users. */
  | { readonly outcome: "full"; readonly users: number };

export interface MemberPage extends GroupState {
  readonly names: readonly string[];
  /** Whether others come after these. */
  readonly hasMore: boolean;
}

export interface Groups {
  /** @throws {BrokerUnavailableError} */
  change(group: string, change: GroupChange): Promise<GroupChanged>;

  /**
   * @returns How many users it had; 0 when there is none.
   * @throws {BrokerUnavailableError}
   */
  delete(group: string): Promise<number>;

  /**
   * Some of the users.
   * @param after The last name of the page before; "" for the first page.
   * @param limit At most so many; 0 for none.
   * @returns Undefined when there is no such group.
   * @throws {BrokerUnavailableError}
   */
  page(group: string, after: string, limit: number): Promise<MemberPage | undefined>;

  /**
   * The groups that a user is in, in order.
   * @throws {BrokerUnavailableError}
   */
  of(username: string): Promise<string[]>;
}
