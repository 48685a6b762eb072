/** Calls of the HTTP API about groups, for tests. */
import { openEngine } from "../src/engine/engine.ts";
import { Publisher, type PublisherOptions } from "../src/publisher/publisher.ts";
import type { Service } from "./service.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // deno-lint-ignore no-explicit-any -- a test says what it expects
  readonly body: any;
}

/** A call with a JSON body, or none. */
export async function call(
  service: Service,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await service.fetch(path, {
    method,
    headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

export interface GroupPost {
  readonly group?: string;
  readonly query?: string;
  readonly key?: string;
  readonly data?: unknown;
  readonly headers?: Record<string, string>;
}

/** Sends to a group, "team" if not given. */
export function post(service: Service, options: GroupPost = {}): Promise<Answer> {
  const { group = "team", query = "", key, data = { order: 7 }, headers } = options;
  return call(service, "POST", `/v1/groups/${group}/messages${query}`, data, {
    ...headers,
    ...(key !== undefined && { "idempotency-key": key }),
  });
}

/** Names of so many users. */
export function names(count: number, text = "user"): string[] {
  return Array.from({ length: count }, (_, i) => `${text}-${String(i + 1).padStart(5, "0")}`);
}

/** A publisher on an engine of its own, and that engine. */
export async function publisherOn(redisUrl: string, options: PublisherOptions = {}) {
  const engine = openEngine({ redisUrl });
  await engine.firstAttempt(5_000);
  const publisher = new Publisher(engine.broker, engine.history, { groups: engine.groups, ...options });
  return {
    engine,
    publisher,
    /** Makes a counter for each, as a client that was there does. */
    async seen(usernames: readonly string[]) {
      for (let at = 0; at < usernames.length; at += 500) {
        const some = usernames.slice(at, at + 500);
        await Promise.all(
          some.map((user) =>
            engine.history.append(user, {
              id: "seen",
              head: '{"t":"m",',
              tail: '"id":"seen","ts":0,"data":0}',
            })
          ),
        );
      }
    },
    async [Symbol.asyncDispose]() {
      await publisher.close();
      await engine.close();
    },
  };
}
