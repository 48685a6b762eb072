/**
 * Two nodes behind a proxy with TLS are restarted one after the other, while a backend sends and clients of the SDK
 * listen: no send fails, no handshake fails, and nothing is lost.
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

const USERS = ["alice", "bob", "carl", "dora", "emil", "fay"];
/** Messages between two restarts, at least: some are on their way whenever something ends. */
const BETWEEN = 100;

/**
 * @param startProxy What stands in front.
 * @param options.until When the next node is restarted: as soon as the one before is ready, or when the proxy has
 *   seen that.
 */
export async function endureRollingRestart(
  startProxy: (serviceUrls: readonly string[], tls: ProxyTls) => Promise<Proxy>,
  options: { until: "ready" | "seen" },
): Promise<void> {
  await using redis = await RedisServer.start();
  await using certificates = await Certificates.make();
  const tls = { ca: certificates.ca, cert: certificates.cert("server"), key: certificates.key("server") };
  using one = OwnPort.take();
  using two = OwnPort.take();
  const settingsOf = (node: string, port: OwnPort) => ({
    PORT: `${port}`,
    REDIS_URL: redis.url,
    USERWIRE_NODE: node,
    USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
    USERWIRE_DRAIN_S: "1",
  });
  const nodes = [
    {
      name: "one",
      settings: settingsOf("one", one),
      service: await ProcessService.start(settingsOf("one", one)),
    },
    {
      name: "two",
      settings: settingsOf("two", two),
      service: await ProcessService.start(settingsOf("two", two)),
    },
  ];
  try {
    await using proxy = await startProxy(nodes.map(({ service }) => service.url), tls);
    using http = Deno.createHttpClient({ caCerts: [tls.ca] });
    class TrustingSocket extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, { protocols, client: http } as WebSocketOptions);
      }
    }
    const clients = USERS.map((user) =>
      new Inbox(connect(proxy.url, { user, WebSocket: TrustingSocket, backoff: { baseMs: 20, maxMs: 200 } }))
    );
    try {
      for (const client of clients) await client.state("open", 10_000);
      await using sender = new SteadySender({
        users: USERS,
        url: () => proxy.url,
        client: http,
        perSecond: 60,
      });
      const more = async () => {
        const enough = sender.total + BETWEEN;
        await until(() => sender.total >= enough, `${BETWEEN} more sends`, 30_000);
      };
      await more();
      // Twice around: the second time the proxy remembers what it met the first time, and is not warned by a drain.
      for (const node of [...nodes, ...nodes]) {
        node.service.signal("SIGTERM");
        assertEquals((await node.service.ended(30_000)).code, 0);
        await node.service[Symbol.asyncDispose]();
        node.service = await ProcessService.start({ ...node.settings, USERWIRE_DRAIN_S: "0" });
        const asked = options.until === "ready" ? node.service.url : proxy.url;
        const isBack = async () => {
          const response = await fetch(`${asked}readyz`, { client: http });
          const answer = await response.json();
          return answer.ready && answer.node === node.name;
        };
        await until(isBack, `node ${node.name} to be back`, 20_000);
      }
      await more();
      await sender.end();
      assertEquals(sender.failures, 0, "no send was refused, or had to be repeated");
      for (const [i, client] of clients.entries()) {
        const accepted = sender.accepted.get(USERS[i]!)!;
        await client.received(accepted.length, 20_000);
        const numbers = accepted.map(({ seq }) => seq).sort((a, b) => a - b);
        assertEquals(client.list, numbers, `${USERS[i]} got each once and in order, and no gap`);
        assertEquals(client.errors, []);
        assert(client.lost.every(({ opened }) => opened), "every handshake went well");
      }
      assert(clients.every(({ lost }) => lost.length >= 1), "each client was sent away at least once");
    } finally {
      for (const { client } of clients) await client.close();
    }
  } finally {
    for (const { service } of nodes) await service[Symbol.asyncDispose]();
  }
}
