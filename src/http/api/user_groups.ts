/** `/v1/users/{username}/groups`: in which groups a user is. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress, type Scope } from "../../auth/auth.ts";
import { EFFECT_ON_FAILURE } from "../problem.ts";
import { type Api, authorize, type Call, type CallContext, usernameIn } from "./call.ts";
import { json, REFUSALS, SECURITY, UserParameter } from "./shapes.ts";

const UserGroups = z.object({ groups: z.array(z.string()) }).openapi("UserGroups");
const LeftGroups = z.object({ removed: z.number().int(), groups: z.array(z.string()) }).openapi("LeftGroups");

/** A user, and of the groups those that the caller may address. */
function userFor(c: CallContext, api: Api, scope: Scope) {
  const caller = authorize(c, api, scope);
  const username = usernameIn(c);
  assertMayAddress(caller, [username]);
  return { username, fits: (group: string) => caller.mayAddressGroup(group) };
}

export const userGroups: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/users/{username}/groups",
    operationId: "getUserGroups",
    security: SECURITY,
    summary: "In which groups a user is, of those that the key may address",
    request: { params: UserParameter },
    responses: { 200: json(UserGroups, "Their names, in order"), ...REFUSALS },
  }),
  async answer(c, api) {
    const { username, fits } = userFor(c, api, "read");
    return c.json({ groups: (await api.publisher.groups.of(username)).filter(fits) });
  },
};

export const leaveGroups: Call = {
  route: createRoute({
    method: "delete",
    path: "/v1/users/{username}/groups",
    operationId: "leaveGroups",
    security: SECURITY,
    summary: "Take a user out of all groups that the key may address",
    request: { params: UserParameter },
    responses: { 200: json(LeftGroups, "Out of these, one after the other"), ...REFUSALS },
  }),
  effect: EFFECT_ON_FAILURE.change,
  async answer(c, api) {
    const { username, fits } = userFor(c, api, "groups");
    const groups = await api.publisher.groups.leaveAll(username, fits);
    return c.json({ removed: groups.length, groups });
  },
};
