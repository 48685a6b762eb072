/**
 * A master that was cut off goes on for a while beside the one that took over, and then becomes its replica: what was
 * accepted on it is gone. Clients of the other side are told, too.
 */
import { assert, assertEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { send, sendAll } from "../../testkit/nodes.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const WAIT_MS = 30_000;

async function isReady(service: Service): Promise<void> {
  await until(async () => (await service.readiness()).status === 200, "the service to be ready", WAIT_MS);
}

async function isUnready(service: Service): Promise<void> {
  await until(async () => (await service.readiness()).status === 503, "the service not to be ready", WAIT_MS);
}

/** Resolves when a node has told the others of an append, which it does once a second. */
async function isTold(redis: RedisServer, count: number): Promise<void> {
  await until(
    async () => await redis.cli("HLEN", "userwire:{userwire:timeline}:last") === count,
    `${count} nodes to have told of their last append`,
    WAIT_MS,
  );
}

for (const isMissed of [false, true]) {
  const also = isMissed ? ", also when that side missed something when it came" : "";
  redisTest(`What a cut-off master accepted is stated to clients of the other side${also}`, async () => {
    await using old = await RedisServer.start();
    await using other = await RedisServer.start({ replicaOf: old });
    await other.copied();
    await using thisWay = await TcpProxy.start(old.port);
    await using thatWay = await TcpProxy.start(old.port);
    await using here = await Service.start({ REDIS_URL: thisWay.through(old.url) });
    await using there = await Service.start({ REDIS_URL: thatWay.through(old.url) });
    await using alice = await Follower.open(there.socketUrl("alice"));
    await send(here, 1);
    await send(there, 2);
    // Of the replica: what it has not got when it takes over is lost, and a new epoch begins.
    await isTold(other, 2);

    await other.follow();
    if (isMissed) await send(there, 0);
    thatWay.turn(other.port);
    thatWay.cut();
    await isUnready(there);
    await isReady(there);
    // So a new epoch has begun there before that is accepted which is lost.
    if (isMissed) await alice.until(() => alice.gaps.length === 1, "what was missed to be stated");
    const lost = [await send(here, 3), await send(here, 4)];
    await sendAll(there, 5, 7);
    if (!isMissed) await alice.reaches(5);
    await alice.until(() => alice.data.includes(7), "what is sent there");
    const told = String(await other.cli("HVALS", "userwire:{userwire:timeline}:last"));
    await until(
      async () =>
        String(await other.cli("HVALS", "userwire:{userwire:timeline}:last")) !== told ||
        / 5 \S+ alice/.test(told),
      "the last append to be told",
      WAIT_MS,
    );

    await old.follow(other);
    thisWay.turn(other.port);
    await isUnready(here);
    await isReady(here);
    const { epoch } = await send(here, 8);
    assert(!lost.some((message) => message.epoch === epoch), "a new epoch has begun");
    await alice.until(() => alice.data.includes(8), "the last message");
    // She stands after the numbers that were given out twice, so no number of hers names the loss: the gap itself does.
    assertEquals(alice.gaps.map(({ why }) => why), isMissed ? ["epoch", "epoch"] : ["epoch"]);
    assertEquals(alice.gaps.at(-1)!.pos.split(".")[0], epoch);
    alice.assertNoFault();
    await using away = await Follower.open(here.socketUrl("alice"), `${lost[1]!.epoch}.${lost[1]!.seq}`);
    await away.until(() => away.data.includes(8), "the last message, also after a return");
    assertEquals(away.gaps.map(({ why }) => why), ["epoch"]);
  });
}
