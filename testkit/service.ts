/**
 * A service in this process for a test: a free port, its own settings, a log in memory that the test can read.
 * Several can run side by side, as nodes do. It ends with the test:
 *
 *     await using redis = await RedisServer.start();
 *     await using service = await Service.start({ REDIS_URL: redis.url });
 *
 * `Truth` is the other side: what Redis itself says, which no bookkeeping of ours can embellish.
 */
import { loadConfig } from "./config.ts";
import { memoryLog, type MemoryRecord } from "./memory_log.ts";
import type { Place } from "../src/processes/place.ts";
import type { Listeners, Look } from "../src/server/app.ts";
import { type Server, startServer } from "../src/server/server.ts";
import { until } from "./deadline.ts";
import { isFree } from "./own_port.ts";
import type { RedisServer } from "./redis_server.ts";

/** What the send call answered. */
export interface Sent {
  readonly status: number;
  readonly retryAfter: string | null;
  /** The receipt, or the problem. */
  readonly body: Record<string, unknown>;
}

export class Service implements AsyncDisposable {
  readonly server: Server;
  readonly log: ReturnType<typeof memoryLog>;

  private constructor(server: Server, log: ReturnType<typeof memoryLog>) {
    this.server = server;
    this.log = log;
  }

  /**
   * @param env Settings by the names of their variables. Unless they say else the port is free, the drain is short, and
   *   nobody is closed for silence: bare peers answer no ping, and on a busy machine a test lasts longer than the default.
   * @param options.place Which process it is, of several on one port; beside it who listens in this process,
   *   and who looks at its set-up.
   * @throws {ConfigError} as `startServer`.
   */
  static async start(
    env: Readonly<Record<string, string>> = {},
    options: { place?: Place; look?: Look } & Listeners = {},
  ): Promise<Service> {
    const config = loadConfig({
      env: { PORT: "0", USERWIRE_DRAIN_S: "1", USERWIRE_IDLE_TIMEOUT_S: "3600", ...env },
    });
    // A service that was there before gives its requests in flight a moment, and on a busy machine no more than that.
    await until(() => config.port === 0 || isFree(config.port), `port ${config.port} to be free`);
    const log = memoryLog();
    return new Service(await startServer(config, { ...options, log }), log);
  }

  /** Address of a socket: of the user, or of nobody yet. */
  socketUrl(username?: string): string {
    const url = new URL("/ws", this.server.url.replace("http:", "ws:"));
    if (username !== undefined) url.searchParams.set("username", username);
    return url.href;
  }

  /** Sends through the HTTP API: text as `text/plain`, bytes as `application/octet-stream`, else JSON. */
  async send(username: string, payload: unknown): Promise<Sent> {
    const isBytes = payload instanceof Uint8Array;
    const response = await this.fetch(`/v1/users/${encodeURIComponent(username)}/messages`, {
      method: "POST",
      headers: {
        "content-type": isBytes
          ? "application/octet-stream"
          : typeof payload === "string"
          ? "text/plain"
          : "application/json",
      },
      body: isBytes
        ? payload as Uint8Array<ArrayBuffer>
        : typeof payload === "string"
        ? payload
        : JSON.stringify(payload),
    });
    const retryAfter = response.headers.get("retry-after");
    return { status: response.status, retryAfter, body: await response.json() };
  }

  /** How many sockets of the user the HTTP API counts. */
  async sockets(username: string): Promise<number> {
    const response = await this.fetch(`/v1/users/${encodeURIComponent(username)}`);
    return (await response.json()).sockets;
  }

  /** What `/readyz` says. */
  async readiness(): Promise<
    { status: number; why: string | undefined; connections: number; warnings: string[] }
  > {
    const response = await this.fetch("/readyz");
    const { why, connections, warnings = [] } = await response.json();
    return { status: response.status, why, connections, warnings };
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(new URL(path, this.server.url), init);
  }

  /** The records of one event, in order. */
  logged(event: string): MemoryRecord[] {
    return this.log.records.filter((record) => record.event === event);
  }

  /** Resolves when no session is left, and no socket that is closing. */
  async isEmpty(ms?: number): Promise<void> {
    const { connections } = this.server.app;
    await until(
      () => connections.size + connections.closing === 0,
      "the service to hold no socket",
      ms,
      () => `${connections.size} are open, ${connections.closing} are closing`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.shutdown();
  }
}

/** What Redis itself knows about subscriptions. */
export class Truth {
  readonly #redis: RedisServer;

  constructor(redis: RedisServer) {
    this.#redis = redis;
  }

  /** Ids of the connections that are subscribed for somebody. */
  async subscribers(): Promise<string[]> {
    const list = String(await this.#redis.cli("CLIENT", "LIST", "TYPE", "pubsub"));
    // What a node has for itself, or dials only to try it, is nobody's subscription.
    const lines = list.split("\n").filter((line) =>
      line !== "" && !/ name=userwire-(probe|node) /.test(line)
    );
    return lines.map((line) => /^id=(\d+) /.exec(line)![1]!);
  }

  /** How many subscriptions the channel has. */
  async count(channel: string): Promise<number> {
    return Number((await this.#redis.cli("PUBSUB", "NUMSUB", channel) as unknown[])[1]);
  }

  /** Every channel that has a subscription, but for those that nodes have for themselves. */
  async channels(): Promise<string[]> {
    const channels = await this.#redis.cli("PUBSUB", "CHANNELS") as string[];
    return channels.filter((channel) => !/userwire:(probe:|all$)/.test(channel)).sort();
  }

  /** Resolves when the channel has so many subscriptions. */
  async untilCount(channel: string, count: number, ms?: number): Promise<void> {
    let found = 0;
    await until(
      async () => (found = await this.count(channel)) === count,
      `${count} subscriptions of "${channel}"`,
      ms,
      () => `there are ${found}`,
    );
  }

  /** Resolves when nothing is subscribed any more. */
  async isEmpty(ms?: number): Promise<void> {
    let found: string[][] = [];
    await until(
      async () => {
        found = [await this.subscribers(), await this.channels()];
        return found.flat().length === 0;
      },
      "Redis to have no subscriber",
      ms,
      () => `subscribers and channels are ${JSON.stringify(found)}`,
    );
  }
}
