/** Two nodes on a real cluster: everything over all slots, and changes of who keeps what, with no socket closed. */
import { assertEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";

const WAIT_MS = 30_000;
const NAMES = Array.from({ length: 30 }, (_, i) => `user${i}`);

async function isReady(service: Service): Promise<void> {
  let why: unknown;
  await until(
    async () => {
      const readiness = await service.readiness();
      why = readiness;
      return readiness.status === 200;
    },
    "the service to be ready",
    WAIT_MS,
    () => JSON.stringify(why),
  );
}

for (const env of [{}, SHARED] as Env[]) {
  const kind = env === SHARED ? "shared" : "dedicated";
  redisTest(`On a cluster two nodes serve users of all slots, with ${kind} subscriptions`, async () => {
    await using cluster = await ClusterSet.start();
    await using here = await Service.start({ REDIS_URL: cluster.url, ...env });
    await using there = await Service.start({ REDIS_URL: cluster.url, ...env });
    await isReady(here);
    await isReady(there);
    await using stack = new AsyncDisposableStack();
    const followers = await Promise.all(
      NAMES.map(async (name) => stack.use(await Follower.open(here.socketUrl(name)))),
    );
    for (const name of NAMES) {
      const sent = await there.send(name, "hello");
      assertEquals([sent.status, sent.body.sockets ?? sent.body.nodes], [200, 1], JSON.stringify(sent.body));
    }
    for (const follower of followers) {
      await until(() => follower.data.includes("hello"), "the message to come", WAIT_MS);
      assertEquals(follower.faults, []);
    }
  });
}
