/**
 * Connections that are open on one side only: a firewall forgets them, a machine's network vanishes. Nobody is told, and
 * Redis goes on counting the subscriptions.
 */
import { until } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";
import { openClient } from "../../testkit/ws_client.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";

const WAIT_MS = 30_000;

const WAYS: { name: string; env: Env }[] = [
  { name: "over dedicated subscriptions", env: {} },
  { name: "over shared subscriptions", env: SHARED },
];

for (const { name, env } of WAYS) {
  redisTest(`A send is accepted only when subscriptions live again that nobody ended ${name}`, async () => {
    await using redis = await RedisServer.start();
    await using proxy = await TcpProxy.start(redis.port);
    // Without a history there is nothing that could bring later what was missed.
    await using service = await Service.start({
      REDIS_URL: proxy.through(redis.url),
      USERWIRE_HISTORY: "0",
      ...env,
    });
    await using alice = await openClient(service.socketUrl("alice"));
    await until(async () => (await service.readiness()).status === 200, "the service to be ready", WAIT_MS);

    proxy.forget();
    await until(async () => (await service.readiness()).status === 503, "it to be noticed", WAIT_MS);
    const text = "the first that is accepted";
    await until(async () => (await service.send("alice", text)).status === 200, "a send", WAIT_MS);
    while (await alice.next() !== text);
  });
}
