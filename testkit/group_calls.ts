/** Calls of the HTTP API about groups, for tests. */
import { type Engine, openEngine } from "../src/engine/engine.ts";
import type { EngineOptions } from "../src/engine/options.ts";
import type { History, PageOutcome } from "../src/history/history.ts";
import type { MessageFrame } from "../src/protocol/frames.ts";
import { Publisher } from "../src/publisher/publisher.ts";
import { connected } from "./connected.ts";
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

/** A publisher on an engine of its own. */
export class GroupPublisher implements AsyncDisposable {
  readonly engine: Engine;
  readonly publisher: Publisher;
  /** Called before each page, with its number from 1 on, and after it; what it throws is how the page fails. */
  beforePage: (page: number) => void | Promise<void> = () => {};
  afterPage: (page: number) => void | Promise<void> = () => {};
  #pages = 0;

  private constructor(engine: Engine) {
    this.engine = engine;
    const { broker, history, groups } = engine;
    const watched = new Proxy(history, {
      get: (target, name) => {
        if (name === "appendPage") return (...args: Parameters<History["appendPage"]>) => this.#append(args);
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    this.publisher = new Publisher(broker, watched, { groups });
  }

  static async open(redisUrl: string, options: Partial<EngineOptions> = {}): Promise<GroupPublisher> {
    const engine = openEngine({ redisUrl, history: 1_000, redisTimeoutMs: 20_000, ...options });
    await connected(engine);
    return new GroupPublisher(engine);
  }

  /** Makes a group of users that were seen: each has a counter, and no message; and of others that were not. */
  async group(name: string, usernames: readonly string[], unseen: readonly string[] = []): Promise<void> {
    await this.publisher.groups.put(name, [...usernames, ...unseen]);
    await Promise.all(usernames.map((user) => this.engine.history.since(user, undefined, 1)));
  }

  /** Of each user the newest number, and the ids of what is kept. */
  histories(usernames: readonly string[]): Promise<{ last: number; ids: string[]; seqs: number[] }[]> {
    return Promise.all(usernames.map(async (user) => {
      const { last, frames } = await this.publisher.history(user, { limit: 1_000 });
      const messages = frames.map((frame): MessageFrame => JSON.parse(frame));
      return { last, ids: messages.map(({ id }) => id!), seqs: messages.map(({ seq }) => seq!) };
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.publisher.close();
    await this.engine.close();
  }

  async #append(args: Parameters<History["appendPage"]>): Promise<PageOutcome> {
    const page = ++this.#pages;
    await this.beforePage(page);
    const outcome = await this.engine.history.appendPage(...args);
    await this.afterPage(page);
    return outcome;
  }
}
