/** `POST /v1/users/{username}/revocations`: lets tokens in no more, and closes the sockets that they let in. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress, MAX_TOKEN_ID_LENGTH } from "../../auth/auth.ts";
import { parseUsername } from "../../protocol/username.ts";
import { readJson } from "../body.ts";
import { EFFECT_ON_FAILURE, problem } from "../problem.ts";
import { authorize, type Call, usernameIn } from "./call.ts";
import { BODY_REFUSALS, bodyOf, check, json, REFUSALS, SECURITY, UserParameter } from "./shapes.ts";

const RevocationQuery = z.strictObject({
  jti: z.string().min(1).max(MAX_TOKEN_ID_LENGTH).optional().openapi({
    description: "Id of the one token that is meant",
  }),
  issued_before: z.number().int().min(1).max(9_999_999_999).optional().openapi({
    description:
      "Unix seconds: every token and ticket of the user that is older is meant. If not given: until now, by any " +
      "clock within USERWIRE_JWT_CLOCK_TOLERANCE_S",
  }),
}).refine(({ jti, issued_before }) => jti === undefined || issued_before === undefined, {
  message: "can't stand beside jti",
  path: ["issued_before"],
}).openapi("RevocationQuery");

const Revoked = z.object({
  jti: z.string().optional(),
  issued_before: z.number().int().optional().openapi({
    description: "Tokens whose `iat` is below it are let in no more; tickets made from now on are",
  }),
}).openapi("Revoked");

export const revocations: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/users/{username}/revocations",
    operationId: "createRevocation",
    security: SECURITY,
    summary: "Let a user's tokens in no more, and close the sockets they let in",
    request: { params: UserParameter, body: bodyOf(RevocationQuery) },
    responses: {
      201: json(Revoked, "Known to every node from now on"),
      ...BODY_REFUSALS,
      ...REFUSALS,
    },
  }),
  effect: EFFECT_ON_FAILURE.revoke,
  async answer(c, api) {
    const caller = authorize(c, api, "admin");
    const query = check(RevocationQuery, await readJson(c.req.raw, api.bodies.small));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const username = parseUsername(usernameIn(c), api.names);
    assertMayAddress(caller, [username]);
    const { jti, issued_before } = query.value;
    const revoked = await api.auth.revoke(
      username,
      jti !== undefined ? { jti } : issued_before !== undefined ? { before: issued_before } : "now",
    );
    // Tokens say when they were issued in full seconds.
    return c.json("jti" in revoked ? revoked : { issued_before: Math.ceil(revoked.before) }, 201);
  },
};
