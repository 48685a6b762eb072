/**
 * Tests that hold for any number of nodes: declared once, run in memory with one node and over Redis with two,
 * whose sockets have subscriptions of their own or, where that may matter, share them.
 * Test files say the subject, tests say the claim:
 *
 *     const { everywhere, onRedis } = nodesTest("Resume");
 *     everywhere("works twice in a row", async ({ here, there }) => { … });
 */
import type { Accepted } from "./follower.ts";
import { RedisServer, redisTest } from "./redis_server.ts";
import { Service } from "./service.ts";

/** Two nodes; in memory it is one and the same. */
export interface Nodes {
  readonly here: Service;
  readonly there: Service;
}

/** Settings by the names of their variables. */
export type Env = Readonly<Record<string, string>>;

/** With these, all sockets of a node share one subscription of Redis. */
export const SHARED: Env = { USERWIRE_SUBSCRIPTIONS: "shared" };

export interface NodesTest {
  /** Declares the test twice: in memory, and over Redis. */
  everywhere(claim: string, body: (nodes: Nodes, t: Deno.TestContext) => Promise<void>, env?: Env): void;
  /** The same, and a third time over Redis with shared subscriptions. */
  onEveryBroker(claim: string, body: (nodes: Nodes, t: Deno.TestContext) => Promise<void>, env?: Env): void;
  onRedis(
    claim: string,
    body: (nodes: Nodes & { redis: RedisServer }, t: Deno.TestContext) => Promise<void>,
    env?: Env,
  ): void;
}

/** @param subject The words that the names of the tests begin with. */
export function nodesTest(subject: string): NodesTest {
  const onRedis: NodesTest["onRedis"] = (claim, body, env) => {
    const way = env === undefined || !("USERWIRE_SUBSCRIPTIONS" in env)
      ? "over Redis"
      : `over ${env.USERWIRE_SUBSCRIPTIONS} subscriptions`;
    redisTest(`${subject} ${way} ${claim}`, async (t) => {
      await using redis = await RedisServer.start();
      await using here = await Service.start({ REDIS_URL: redis.url, ...env });
      await using there = await Service.start({ REDIS_URL: redis.url, ...env });
      await body({ here, there, redis }, t);
    });
  };
  const everywhere: NodesTest["everywhere"] = (claim, body, env) => {
    Deno.test(`${subject} in memory ${claim}`, async (t) => {
      await using service = await Service.start(env);
      await body({ here: service, there: service }, t);
    });
    onRedis(claim, body, env);
  };
  return {
    onRedis,
    everywhere,
    onEveryBroker(claim, body, env) {
      everywhere(claim, body, env);
      onRedis(claim, body, { ...env, ...SHARED });
    },
  };
}

/** Sends a number to alice as JSON, and says where it is. */
export async function send(service: Service, n: number): Promise<Accepted> {
  const { id, epoch, seq } = await service.server.app.publisher.send("alice", { kind: "json", text: `${n}` });
  return { id, epoch: epoch!, seq: seq! };
}

/** Sends the numbers from `first` to `last`, one after the other. */
export async function sendAll(service: Service, first: number, last: number): Promise<void> {
  for (const n of numbers(first, last)) await send(service, n);
}

/** Whole numbers from `first` to `last`. */
export function numbers(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
