/**
 * Nodes behind a proxy with TLS are restarted one after the other, twice around, while a backend sends and clients of
 * the SDK listen: no send fails, no handshake fails, and nothing is lost.
 */
import { assert, assertEquals } from "@std/assert";
import { connect } from "../src/client/mod.ts";
import { Certificates } from "./certificates.ts";
import { Inbox } from "./client_watch.ts";
import { until } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { ProcessService } from "./process_service.ts";
import type { Proxy, ProxyTls } from "./proxy.ts";
import { RedisServer } from "./redis_server.ts";
import { SteadySender } from "./steady_sender.ts";

export interface RollingRestartOptions {
  /** When the next node is restarted: as soon as the one before is ready, or when the proxy has seen that. */
  readonly until: "ready" | "seen";
  readonly nodes: number;
  /** Clients, each a user of its own. */
  readonly clients: number;
  /** Sends in a second. */
  readonly perSecond: number;
}

/** What happened, when all went well. */
export interface RollingRestart {
  readonly sends: number;
  readonly restarts: number;
  /** Handshakes of clients that came back. */
  readonly handshakes: number;
  readonly seconds: number;
  /** Sockets of each node at the end. */
  readonly sockets: readonly number[];
}

/** Messages between two restarts, at least: some are on their way whenever something ends. */
const BETWEEN = 100;
/** deploy/haproxy.cfg takes a thousand connections from one address. */
const CLIENTS_PER_ADDRESS = 400;
/** Clients that connect at one time. */
const AT_ONCE = 50;
/** Every so many sends one is as large as a send may be, within the limit of a body. */
const LARGE_EVERY = 10;
const LARGE_BYTES = 60_000;

/** @param startProxy What stands in front. */
export async function endureRollingRestart(
  startProxy: (serviceUrls: readonly string[], tls: ProxyTls) => Promise<Proxy>,
  options: RollingRestartOptions,
): Promise<RollingRestart> {
  await using stack = new AsyncDisposableStack();
  const redis = stack.use(await RedisServer.start());
  const certificates = stack.use(await Certificates.make());
  const tls = { ca: certificates.ca, cert: certificates.cert("server"), key: certificates.key("server") };
  const nodes = [];
  for (let i = 1; i <= options.nodes; i++) {
    const port = stack.use(OwnPort.take());
    const node = stack.use(
      new Node(`${i}`, {
        PORT: `${port}`,
        REDIS_URL: redis.url,
        USERWIRE_NODE: `${i}`,
        USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
        USERWIRE_DRAIN_S: "1",
        // Nothing happens to Redis: what a busy machine takes for a send is no failure.
        USERWIRE_REDIS_TIMEOUT_MS: "60000",
      }),
    );
    await node.start();
    nodes.push(node);
  }
  const proxy = stack.use(await startProxy(nodes.map(({ url }) => url), tls));
  const http = stack.use(Deno.createHttpClient({ caCerts: [tls.ca] }));
  const users = Array.from({ length: options.clients }, (_, i) => `user${i}`);
  const sockets = Array.from({ length: Math.ceil(users.length / CLIENTS_PER_ADDRESS) }, (_, i) => {
    const localAddress = `127.0.0.${i + 1}`;
    return socketOf(stack.use(Deno.createHttpClient({ caCerts: [tls.ca], localAddress })));
  });
  const clients: Inbox[] = [];
  for (const [i, user] of users.entries()) {
    const WebSocket = sockets[i % sockets.length]!;
    const client = new Inbox(
      connect(proxy.url, { user, WebSocket, backoff: { baseMs: 20, maxMs: 200 } }),
    );
    stack.defer(async () => void await client.client.close());
    clients.push(client);
    await clients.at(-AT_ONCE)?.state("open", 20_000);
  }
  for (const client of clients) await client.state("open", 20_000);

  const sender = stack.use(
    new SteadySender({
      users,
      url: () => proxy.url,
      client: http,
      perSecond: options.perSecond,
      body: (n) => n % LARGE_EVERY === 0 ? `"${"x".repeat(LARGE_BYTES)}"` : `${n}`,
    }),
  );
  const more = async () => {
    const enough = sender.total + BETWEEN;
    await until(() => sender.total >= enough, `${BETWEEN} more sends`, 30_000);
  };
  const beginMs = performance.now();
  await more();
  // Twice around: the second time the proxy remembers what it met the first time, and is not warned by a drain.
  const restarted = [...nodes, ...nodes];
  for (const node of restarted) {
    await node.end();
    await node.start({ USERWIRE_DRAIN_S: "0" });
    const asked = options.until === "ready" ? node.url : proxy.url;
    const isBack = async () => {
      const response = await fetch(`${asked}readyz`, { client: http });
      const answer = await response.json();
      return answer.ready && answer.node === node.name;
    };
    await until(isBack, `node ${node.name} to be back`, 20_000);
  }
  await more();
  await sender.end();
  const seconds = (performance.now() - beginMs) / 1_000;

  assertEquals(sender.failures, 0, `no send was refused, or had to be repeated: ${sender.lastFailure}`);
  for (const [i, client] of clients.entries()) {
    const accepted = sender.accepted.get(users[i]!)!;
    await client.received(accepted.length, 20_000);
    const numbers = accepted.map(({ seq }) => seq).sort((a, b) => a - b);
    assertEquals(client.list, numbers, `${users[i]} got each once and in order, and no gap`);
    assertEquals(client.errors, []);
    assert(client.lost.every(({ opened }) => opened), "every handshake went well");
    assert(client.lost.length >= 1, "each client was sent away at least once");
    await client.state("open", 20_000);
  }
  return {
    sends: sender.total,
    restarts: restarted.length,
    handshakes: clients.reduce((sum, { lost }) => sum + lost.length, 0),
    seconds,
    sockets: await Promise.all(nodes.map((node) => node.sockets())),
  };
}

/** A node that is started again at the same address. */
class Node implements AsyncDisposable {
  readonly name: string;
  readonly #settings: Readonly<Record<string, string>>;
  #service: ProcessService | undefined;

  constructor(name: string, settings: Readonly<Record<string, string>>) {
    this.name = name;
    this.#settings = settings;
  }

  get url(): string {
    return this.#service!.url;
  }

  async start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    this.#service = await ProcessService.start({ ...this.#settings, ...settings });
  }

  /** Sends it SIGTERM; resolves when it has ended as it should. */
  async end(): Promise<void> {
    this.#service!.signal("SIGTERM");
    assertEquals((await this.#service!.ended(30_000)).code, 0);
    await this[Symbol.asyncDispose]();
  }

  async sockets(): Promise<number> {
    return (await (await fetch(`${this.url}readyz`)).json()).connections;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const service = this.#service;
    this.#service = undefined;
    await service?.[Symbol.asyncDispose]();
  }
}

/** Sockets that trust whom this client trusts, and come from its address. */
function socketOf(client: Deno.HttpClient): new (url: string, protocols: string[]) => WebSocket {
  return class extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, { protocols, client } as WebSocketOptions);
    }
  };
}
