/** `/v1/groups/{group}` and `/v1/groups/{group}/users`: who is in a group. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress, assertMayAddressGroup, type Scope } from "../../auth/auth.ts";
import { readJson } from "../body.ts";
import { EFFECT_ON_FAILURE, problem, RequestFault } from "../problem.ts";
import { type Api, authorize, type Call, type CallContext, groupIn, queryOf, usernameFrom } from "./call.ts";
import {
  BODY_REFUSALS,
  bodyOf,
  check,
  GroupParameter,
  json,
  no,
  nodes,
  number,
  REFUSALS,
  SECURITY,
  sockets,
  username,
} from "./shapes.ts";

/** Names in one change. */
const MAX_CHANGED = 10_000;

const names = z.array(username).max(MAX_CHANGED);
const count = z.number().int();
const version = count.openapi({ description: "Greater after each change; 0 where no group is left" });
const users = count.openapi({ description: "How many users the group has" });

const GroupQuery = z.strictObject({ users: z.array(username) }).openapi("GroupQuery");
const GroupChangeQuery = z.strictObject({ add: names.optional(), remove: names.optional() })
  .refine(({ add = [], remove = [] }) => add.length + remove.length <= MAX_CHANGED, {
    message: `must be at most ${MAX_CHANGED} names together with "remove"`,
    path: ["add"],
  })
  .refine(({ add = [], remove = [] }) => {
    const added = new Set(add);
    return !remove.some((name) => added.has(name));
  }, { message: 'must have no name that is in "add" too', path: ["remove"] })
  .openapi("GroupChangeQuery");
const MembersQuery = z.strictObject({
  after: username.optional().openapi({ description: "`next` of the page before" }),
  limit: number(1, 1_000).optional().openapi({ description: "At most so many users; 1000 if not given" }),
});

const Added = z.object({ added: count, users, version }).openapi("GroupAdded");
const Removed = z.object({ removed: count, users, version }).openapi("GroupRemoved");
const Updated = z.object({ added: count, removed: count, users, version }).openapi("GroupUpdate");
const Deleted = z.object({ users: count.openapi({ description: "How many it had" }) }).openapi(
  "GroupDeleted",
);
const Group = z.object({
  users,
  online: count.openapi({ description: "How many of them have a socket" }),
  sockets: sockets.optional(),
  nodes,
  version,
  epoch: z.string().openapi({ description: "Another one after the group was made anew" }),
}).openapi("Group");
const Members = z.object({
  items: z.array(z.object({ user: username, sockets: sockets.optional(), nodes })),
  next: username.optional().openapi({ description: "`after` of the next page; missing on the last one" }),
}).openapi("GroupMembers");

const MemberParameter = GroupParameter.extend({
  username: username.openapi({ param: { name: "username", in: "path" } }),
});
const IfMatch = z.object({
  "if-match": z.string().optional().openapi({
    description:
      'Only when the group is in this version: `"1764268553000000"`; `"0"`: only when there is none',
  }),
});

const GROUP_REFUSALS = { ...BODY_REFUSALS, ...REFUSALS };
const NOT_FOUND = { 404: no("There is no such group") };

/** A call on a group: what all have in common. */
function groupCall(
  method: "get" | "put" | "patch" | "delete",
  operationId: string,
  summary: string,
  rest: Pick<Parameters<typeof createRoute>[0], "responses"> & { request?: object; path?: string },
) {
  const { path = "/v1/groups/{group}", request, responses } = rest;
  return createRoute({
    ...{ method, path, operationId, summary, security: SECURITY },
    request: { params: GroupParameter, ...request },
    responses: { ...responses, ...REFUSALS },
  });
}

/** The group in the path, for a caller who may do this with it. */
function groupFor(
  c: CallContext,
  api: Api,
  scope: Scope,
): { group: string; assertMayName: (usernames: readonly string[]) => void } {
  const caller = authorize(c, api, scope);
  const group = groupIn(c, api);
  assertMayAddressGroup(caller, group);
  return { group, assertMayName: (usernames) => assertMayAddress(caller, usernames) };
}

export const group: Call = {
  route: groupCall("get", "getGroup", "How many are in a group, and online", {
    responses: { 200: json(Group, "The group"), ...NOT_FOUND },
  }),
  async answer(c, api) {
    const { group } = groupFor(c, api, "read");
    const found = await api.publisher.groups.get(group);
    return c.json(found, 200, { etag: `"${found.version}"` });
  },
};

export const putGroup: Call = {
  route: groupCall("put", "putGroup", "Make these the users of a group", {
    request: { headers: IfMatch, body: bodyOf(GroupQuery) },
    responses: {
      ...GROUP_REFUSALS,
      200: json(Updated, "They are, all in one step"),
      412: no("The group is in another version than `If-Match` says"),
    },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { group, assertMayName } = groupFor(c, api, "groups");
    const ifVersion = versionIn(c.req.raw.headers.get("if-match"));
    const query = check(GroupQuery, await readJson(c.req.raw, api.bodies.bulk));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { users } = query.value;
    assertMayName(users);
    return c.json(await api.publisher.groups.put(group, users, { ifVersion }));
  },
};

export const changeGroup: Call = {
  route: groupCall("patch", "changeGroup", "Add users to a group, and take users out", {
    request: { body: bodyOf(GroupChangeQuery) },
    responses: { ...GROUP_REFUSALS, 200: json(Updated, "Both in one step") },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { group, assertMayName } = groupFor(c, api, "groups");
    const query = check(GroupChangeQuery, await readJson(c.req.raw, api.bodies.bulk));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { add = [], remove = [] } = query.value;
    assertMayName([...add, ...remove]);
    return c.json(await api.publisher.groups.change(group, { add, remove }));
  },
};

export const deleteGroup: Call = {
  route: groupCall("delete", "deleteGroup", "Delete a group", {
    responses: { 200: json(Deleted, "It is gone"), ...NOT_FOUND },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { group } = groupFor(c, api, "groups");
    return c.json({ users: await api.publisher.groups.delete(group) });
  },
};

export const members: Call = {
  route: groupCall("get", "getMembers", "Users of a group, and who of them is online", {
    path: "/v1/groups/{group}/users",
    request: { query: MembersQuery },
    responses: { 200: json(Members, "A page of them"), ...NOT_FOUND },
  }),
  async answer(c, api) {
    const { group } = groupFor(c, api, "read");
    const query = check(MembersQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { after, limit } = query.value;
    const page = { ...(after !== undefined && { after }), ...(limit !== undefined && { limit }) };
    return c.json(await api.publisher.groups.members(group, page));
  },
};

const MEMBER = { path: "/v1/groups/{group}/users/{username}", request: { params: MemberParameter } };

export const putMember: Call = {
  route: groupCall("put", "addMember", "Add a user to a group", {
    ...MEMBER,
    responses: { 200: json(Added, "The user is in it"), 413: no("The group has as many users as it may") },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { group, username } = memberFor(c, api);
    const { added, users, version } = await api.publisher.groups.add(group, [username]);
    return c.json({ added, users, version });
  },
};

export const removeMember: Call = {
  route: groupCall("delete", "removeMember", "Take a user out of a group", {
    ...MEMBER,
    responses: { 200: json(Removed, "The user is not in it") },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { group, username } = memberFor(c, api);
    const { removed, users, version } = await api.publisher.groups.remove(group, [username]);
    return c.json({ removed, users, version });
  },
};

function memberFor(c: CallContext, api: Api): { group: string; username: string } {
  const { group, assertMayName } = groupFor(c, api, "groups");
  const username = usernameFrom(c.req.path.split("/")[5]!);
  assertMayName([username]);
  return { group, username };
}

/** @throws {RequestFault} when it is no version. */
function versionIn(header: string | null): number | undefined {
  if (header === null) return undefined;
  const version = /^"(\d{1,16})"$/.exec(header.trim())?.[1];
  if (version !== undefined) return Number(version);
  throw new RequestFault(
    "invalid_request",
    'If-Match must be one version in quotes, as "version" or ETag say it: "1764268553000000"',
  );
}
