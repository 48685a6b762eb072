/** `GET`, `HEAD /v1/users/{username}` and `POST /v1/users/online`: who is online. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { readJson } from "../body.ts";
import { problem } from "../problem.ts";
import { authorize, type Call, usernameIn } from "./call.ts";
import {
  BODY_REFUSALS,
  bodyOf,
  check,
  json,
  nodes,
  REFUSALS,
  SECURITY,
  sockets,
  username,
  UserParameter,
} from "./shapes.ts";

/** Users in one question. */
const MAX_ONLINE_USERS = 10_000;

const Online = z.object({ online: z.boolean(), sockets: sockets.optional(), nodes }).openapi("Online");

const OnlineQuery = z.strictObject({
  users: z.array(username).max(MAX_ONLINE_USERS),
}).openapi("OnlineQuery");

const OnlineCounts = z.record(z.string(), z.number().int()).openapi("OnlineCounts", {
  example: { alice: 2, bob: 0 },
});

/** As `REFUSALS`; an answer to HEAD has no body. */
const BODILESS_REFUSALS = Object.fromEntries(
  Object.entries(REFUSALS).map(([status, { description }]) => [status, { description }]),
);

export const user: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/users/{username}",
    operationId: "getUser",
    security: SECURITY,
    summary: "Whether a user is online",
    request: { params: UserParameter },
    responses: { 200: json(Online, "Sockets of the user over all nodes"), ...REFUSALS },
  }),
  async answer(c, api) {
    const caller = authorize(c, api, "read");
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const { publisher } = api;
    const count = await publisher.count(username);
    // Hono answers HEAD with what GET says, less the body.
    const status = c.req.method === "HEAD" && count === 0 ? 404 : 200;
    return c.json({ online: count > 0, [publisher.counted]: count }, status);
  },
};

export const userHead: Call = {
  route: createRoute({
    method: "head",
    path: "/v1/users/{username}",
    operationId: "headUser",
    security: SECURITY,
    summary: "Whether a user is online, by the status alone",
    request: { params: UserParameter },
    responses: {
      200: { description: "The user is online" },
      404: { description: "The user is offline" },
      ...BODILESS_REFUSALS,
    },
  }),
};

export const online: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/users/online",
    operationId: "getOnline",
    security: SECURITY,
    summary: "Which of many users are online",
    request: { body: bodyOf(OnlineQuery) },
    responses: { 200: json(OnlineCounts, "Sockets of each user"), ...BODY_REFUSALS, ...REFUSALS },
  }),
  async answer(c, api) {
    const caller = authorize(c, api, "read");
    const query = check(OnlineQuery, await readJson(c.req.raw, api.bodies.bulk));
    if ("fault" in query) return problem("invalid_request", query.fault);
    assertMayAddress(caller, query.value.users);
    // The answer has no room for a name beside the users': what the numbers are stands here.
    c.header("userwire-counted", api.publisher.counted);
    return c.json(Object.fromEntries(await api.publisher.online(query.value.users)));
  },
};
