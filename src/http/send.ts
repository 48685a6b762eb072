/**
 * `POST /v1/users/{username}/messages`: the one request that comes thousands of times a second. So it is recognised and
 * answered by plain code; a router and a validator in front of it would cost as much as the send itself.
 */
import { assertMayAddress, type Auth } from "../auth/auth.ts";
import { InvalidMessageError } from "../errors.ts";
import type { Payload } from "../protocol.ts";
import type { Publisher, SendOptions } from "../publisher.ts";
import { type BodyLimits, readPayload } from "./body.ts";
import { bearerOf } from "./credentials.ts";
import { problem } from "./problem.ts";
import { check, DEFAULT_ACK_TIMEOUT_MS, SendQuery } from "./schemas.ts";
import { queryOf, usernameFrom } from "./target.ts";

export interface SendHost {
  readonly publisher: Publisher;
  readonly auth: Auth;
  readonly body: BodyLimits;
  /** The answer to what went wrong. */
  failed(error: Error): Response;
}

const TARGET = /^https?:\/\/[^/?#]*\/v1\/users\/([^/?#]+)\/messages(?:$|\?)/;
const JSON_HEADERS = { "content-type": "application/json" };

/** Whom a send is for, as it stands in its address; undefined when the request is no send. */
export function sendTarget(request: Request): string | undefined {
  return request.method === "POST" ? TARGET.exec(request.url)?.[1] : undefined;
}

/**
 * Answers a send.
 * @param target What `sendTarget` found.
 */
export async function send(request: Request, target: string, host: SendHost): Promise<Response> {
  try {
    const caller = host.auth.admit(bearerOf(request), "send");
    const options: SendOptions = {};
    const query = queryOf(request);
    if (query !== undefined) {
      const checked = check(SendQuery, query);
      if ("fault" in checked) return problem("invalid_request", checked.fault);
      const { expect, wait, timeout = DEFAULT_ACK_TIMEOUT_MS, ttl } = checked.value;
      if (expect) options.expectOnline = true;
      if (wait) options.waitAckMs = timeout;
      if (ttl !== undefined) options.ttlMs = ttl * 1_000;
    }
    const username = usernameFrom(target);
    assertMayAddress(caller, [username]);
    let payload: Payload;
    try {
      payload = await readPayload(request, host.body);
    } catch (error) {
      if (error instanceof InvalidMessageError) host.publisher.countRefused();
      throw error;
    }
    const idempotencyKey = request.headers.get("idempotency-key");
    if (idempotencyKey !== null) options.idempotencyKey = idempotencyKey;
    const { repeated, ...result } = await host.publisher.send(username, payload, options);
    const isOnline = (result.nodes ?? result.sockets) > 0;
    return new Response(JSON.stringify(isOnline ? result : { ...result, stored: result.seq !== undefined }), {
      status: isOnline ? 200 : 202,
      headers: repeated ? { ...JSON_HEADERS, "idempotent-replayed": "true" } : JSON_HEADERS,
    });
  } catch (error) {
    return host.failed(error as Error);
  }
}
