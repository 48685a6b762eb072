/**
 * Says why a handshake is refused, to a client that can't see it: browsers hide status and body of a refused handshake.
 * So a client may ask for the same address by a plain GET that accepts a problem, with its token in the header. What it
 * learns is what any client but a browser's sees in the handshake itself, at the same price: a question counts as a
 * handshake, opens nothing, uses no ticket up, and is not logged, since the handshake was.
 */
import { isShown } from "../session/credential_watch.ts";
import { draining, identityOf } from "./admission.ts";
import type { UpgradeOptions } from "./handshake.ts";
import { readQuery } from "./offer.ts";
import { problem, problemOf } from "./problem.ts";

/** Whether a request for the address of sockets asks why they don't open. */
export function wantsExplanation({ method, headers }: Request): boolean {
  return method === "GET" && (headers.get("accept") ?? "").includes("application/problem+json");
}

/** The problem that a framed client would meet; `upgrade_required` where it would be let in. */
export async function explain(request: Request, peer: string, options: UpgradeOptions): Promise<Response> {
  try {
    return await refusalOf(request, peer, options) ?? problem(
      "upgrade_required",
      "As far as this node can tell, a handshake would be let in. If none is, a proxy in between must speak HTTP/1.1 and pass Upgrade and " +
        "Connection on",
      { upgrade: "websocket" },
    );
  } catch (error) {
    const answer = problemOf(error);
    if (answer) return answer;
    throw error;
  }
}

/** The problem; undefined where it would be let in. */
export async function refusalOf(
  request: Request,
  peer: string,
  options: UpgradeOptions,
): Promise<Response | undefined> {
  const { auth, broker, limits, sessions } = options;
  const refusal = options.isDraining() ? draining() : limits.refuse(limits.addressKeyOf(request, peer));
  if (refusal) return refusal;
  const asked = readQuery(new URL(request.url).searchParams);
  if (asked instanceof Response) return asked;
  const identity = await identityOf(request, { ...asked, subprotocols: [], isFramed: true }, options);
  if (identity === undefined || identity instanceof Response) return identity;
  const reason = broker.unavailable();
  if (reason !== undefined) return problem("broker_unavailable", reason);
  if (isShown(identity) && await auth.isRevoked(identity)) {
    return problem("unauthorized", "The token or ticket has been revoked: get a new one");
  }
  const isOver = limits.isOverQuota(identity, sessions.registry.countOf(identity.username) + 1);
  return isOver ? limits.tooMany(identity) : undefined;
}
