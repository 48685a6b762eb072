/** The contract of events on a real cluster, where those who are counted are on other masters than the events. */
import { assertEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { redisTest } from "../../testkit/redis_server.ts";
import { EventNode, eventsContract, type NodeOptions } from "../contracts/events.ts";
import { asSteps } from "../contracts/steps.ts";
import { unackedContract } from "../contracts/unacked.ts";

redisTest("Events on a cluster keep their contract", async (t) => {
  await using cluster = await ClusterSet.start();
  let stores = 0;
  const open = (name: string, options: NodeOptions = {}) =>
    new EventNode(cluster.url, name, { ...options, prefix: `store-${stores}:` }).ready();
  await asSteps(t, (test) =>
    eventsContract(test, open, () => {
      stores++;
      return Promise.resolve();
    }));
  await asSteps(t, (test) =>
    unackedContract(test, open, () => {
      stores++;
      return Promise.resolve();
    }));
  await t.step(
    "A user who comes back between the count and the decision is not told offline for good",
    async () => {
      stores++;
      await using node = await open("a");
      const users = Array.from({ length: 30 }, (_, i) => `user-${i}`);
      await node.store.note(users, users);
      const subscriptions = await Promise.all(users.map((user) => node.subscribe(user)));
      // Some are decided on before they are noted again, some after: the last word on each is the same.
      await Promise.all([node.store.settle(), node.store.note(users, []), node.store.settle()]);
      await node.store.note(users, []);
      const last = new Map(
        (await node.changes()).sort((a, b) => a.n - b.n).map(({ user, online }) => [user, online]),
      );
      assertEquals([...last.values()], users.map(() => true));
      await Promise.all(subscriptions.map((subscription) => subscription.close()));
      await node.store.note([], users);
      await until(() => node.store.settle(), "them to be looked at");
    },
  );
});
