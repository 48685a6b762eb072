/**
 * What befalls Redis while events wait in it: the backend hears of each, or that something is unknown; and its table of who
 * is online, kept by the receiver's rules alone, is right in the end.
 */
import { assertEquals } from "@std/assert";
import { PER_MS } from "../../src/events/events.ts";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { MASTER, SentinelSet } from "../../testkit/redis_sentinel.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient, openPatiently } from "../../testkit/ws_client.ts";

const WAIT_MS = 30_000;
const key = (name: string) => `userwire:{userwire:events}:${name}`;

/** A Redis of some kind, and what befalls it. */
interface Ground extends AsyncDisposable {
  readonly url: string;
  befall(): Promise<void>;
}

interface Fault {
  readonly name: string;
  /** Whether nothing is lost, so that everything must be told. @default false */
  readonly isWhole?: boolean;
  start(): Promise<Ground>;
}

async function onOne(befall: (redis: RedisServer) => Promise<void>): Promise<Ground> {
  const redis = await RedisServer.start();
  return {
    url: redis.url,
    befall: () => befall(redis),
    [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
  };
}

const FAULTS: readonly Fault[] = [
  {
    name: "A Redis that is restarted with its data",
    isWhole: true,
    start: () => onOne((redis) => redis.restart({ keepData: true })),
  },
  { name: "A Redis that is restarted without its data", start: () => onOne((redis) => redis.restart()) },
  {
    name: "A Redis that gets an older copy of its data",
    start: async () => {
      const redis = await RedisServer.start();
      const copy = await redis.copyData();
      return {
        url: redis.url,
        befall: () => redis.restart({ from: copy }),
        [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
      };
    },
  },
  ...[["told", "due"], ["outbox", "refused"], ["meta"], ["watched", "unacked"]].map((evicted): Fault => ({
    name: `A Redis that evicts ${evicted.join(" and ")}`,
    start: () => onOne(async (redis) => void await redis.cli("DEL", ...evicted.map(key))),
  })),
  {
    name: "A failover by Sentinels",
    async start() {
      const set = await SentinelSet.start();
      return {
        url: set.url,
        async befall() {
          assertEquals(await set.sentinels[0]!.cli("SENTINEL", "FAILOVER", MASTER), "OK");
          await until(async () => await set.master() === set.servers[1], "another master", WAIT_MS);
        },
        [Symbol.asyncDispose]: () => set[Symbol.asyncDispose](),
      };
    },
  },
  {
    name: "A cluster whose slot moves, a key at a time,",
    isWhole: true,
    async start() {
      const cluster = await ClusterSet.start({ masters: 2 });
      return {
        url: cluster.url,
        async befall() {
          const slot = await cluster.slotOf(key("outbox"));
          const from = await cluster.keeperOf(slot);
          const [to] = (await cluster.masters()).filter((one) => one !== from);
          await cluster.beginMove(slot, from, to!);
          while (await cluster.moveKeys(slot, from, to!, 1) > 0);
          await cluster.endMove(slot, from, to!);
        },
        [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
      };
    },
  },
];

const ENV = {
  USERWIRE_WEBHOOK_EVENTS: "users,unacked",
  USERWIRE_OFFLINE_AFTER_S: "1",
  USERWIRE_WEBHOOK_TIMEOUT_MS: "1000",
  USERWIRE_REDIS_TIMEOUT_MS: "2000",
};

/** Accepted in the end. @returns Id of the message, and when that was tried which was accepted. */
async function sendWatched(
  service: Service,
  user: string,
  afterS: number,
): Promise<{ id: string; atMs: number }> {
  let id = "";
  let atMs = 0;
  await until(
    async () => {
      atMs = Date.now();
      const sent = await service.fetch(`/v1/users/${user}/messages?unacked=${afterS}`, {
        method: "POST",
        body: "1",
        headers: { "content-type": "application/json", "idempotency-key": `for-${user}` },
      });
      const answer = await sent.json();
      if (sent.ok) id = answer.id;
      return sent.ok;
    },
    `a message to ${user} to be accepted`,
    WAIT_MS,
  );
  return { id, atMs };
}

for (const { name, isWhole = false, start } of FAULTS) {
  redisTest(`${name} leaves the backend's table right, and loses no event in silence`, async () => {
    await using ground = await start();
    await using receiver = new WebhookReceiver();
    const env = { ...ENV, ...receiver.env, REDIS_URL: ground.url };
    await using here = await Service.start(env);
    await using there = await Service.start(env);
    const alice = await openPatiently(here.socketUrl("alice"));
    await using _carol = await openPatiently(there.socketUrl("carol"));
    const dave = await openPatiently(there.socketUrl("dave"));
    await receiver.until(() => receiver.online().length === 3, "three to be online", WAIT_MS);

    // What happens now waits: for its time, for the grace, or for a backend that can't now.
    receiver.answer = () => new Response(null, { status: 500 });
    await dave.close();
    const erin = await openClient(here.socketUrl("erin"));
    await receiver.until(() => receiver.changesOf("erin").length > 0, "erin to wait in the outbox", WAIT_MS);
    const bobs = await sendWatched(here, "bob", 2);
    await ground.befall();
    await alice.close();
    await using _frank = await openPatiently(there.socketUrl("frank"));
    const zoes = await sendWatched(there, "zoe", 0);
    receiver.answer = () => new Response(null, { status: 204 });
    receiver.received.length = 0;

    // Something is unknown that was there when it was said.
    const heardOf = ({ id, atMs }: { id: string; atMs: number }) =>
      receiver.unacked().some(({ data }) => (data as { id: string }).id === id) ||
      (!isWhole && receiver.unknownN / PER_MS > atMs);
    // Redis may have hung up on whoever was on the way; a client would come back by itself.
    await using _erin = erin.socket.readyState === WebSocket.OPEN
      ? erin
      : await openPatiently(here.socketUrl("erin"));
    await receiver.until(
      () => heardOf(zoes) && heardOf(bobs),
      "the messages to be told, or that something is unknown",
      WAIT_MS,
    );
    await receiver.until(
      () => receiver.online().join() === "carol,erin,frank",
      "the table to be right",
      WAIT_MS,
    );
    assertEquals(receiver.forged, 0);
  });
}
