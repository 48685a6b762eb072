/**
 * How many sockets a user may have, and what one too many does: on one node, on whichever broker, and over all
 * nodes; whether a socket's user is named in its address or in its first frame.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { CLOSED, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldSubscriptions } from "../../testkit/held_subscriptions.ts";
import { nodesTest, numbers } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

const { onEveryBroker } = nodesTest("A user's sockets");

const TWO = { USERWIRE_MAX_CONNECTIONS_PER_USER: "2" };

/** Opens a socket that names alice in its first frame; whether it is let in shows later. */
async function nameAlice(service: Service): Promise<WsClient> {
  const client = await openClient(service.socketUrl());
  client.send('{"user_name": "alice"}');
  return client;
}

/** Resolves when so many sockets have been let in. */
async function opened(service: Service, count: number): Promise<void> {
  await until(() => service.logged("connection opened").length === count, `${count} sockets to be let in`);
}

/** The code by which a socket is closed. */
async function codeOf(client: WsClient): Promise<number> {
  return (await client.closed).code;
}

// ---------------------------------------------------------------------------------------------------------
// Of one node

onEveryBroker(
  "are so many and no more: the newest is refused with 429, or 4429 after its first frame",
  async ({ here }) => {
    const { connections, publisher } = here.server.app;
    await using first = await openClient(here.socketUrl("alice"));
    await using second = await nameAlice(here);
    await opened(here, 2);
    await using third = await RawSocket.open(here.socketUrl("alice"));
    assertEquals([third.answer.status, third.answer.headers.get("retry-after")], [429, "1"]);
    assertMatch(third.answer.body, /USERWIRE_MAX_CONNECTIONS_PER_USER/);
    await using late = await nameAlice(here);
    assertEquals(await codeOf(late), 4429);
    // Nobody had to make room for it, and it is not counted.
    assertEquals(connections.countOf("alice"), 2);
    await publisher.send("alice", "hello");
    assertEquals([await first.next(), await second.next(), late.waiting], ["hello", "hello", []]);

    await using _bob = await openClient(here.socketUrl("bob"));
    await opened(here, 3);
    await first.close();
    const left = async () => [connections.countOf("alice"), await publisher.count("alice")].join();
    await until(async () => await left() === "1,1", "a place to be free");
    await using _again = await nameAlice(here);
    await opened(here, 4);
  },
  TWO,
);

onEveryBroker(
  "that come at one moment, named in the address or in the first frame, get all the places there are",
  async ({ here }) => {
    const { connections } = here.server.app;
    await using stack = new AsyncDisposableStack();
    const newcomers = [];
    for (const _ of numbers(1, 10)) newcomers.push(stack.use(await openClient(here.socketUrl())));
    const codes: number[] = [];
    for (const newcomer of newcomers) {
      void newcomer.closed.then(({ code }) => codes.push(code));
      newcomer.send('{"user_name": "alice"}');
    }
    await opened(here, 2);
    await until(() => codes.length === 8, "all others to be refused");
    assertEquals([codes, connections.countOf("alice")], [Array(8).fill(4429), 2]);

    const urls = numbers(1, 10).map(() => here.socketUrl("bob"));
    const sockets = await Promise.all(urls.map(async (url) => stack.use(await RawSocket.open(url))));
    const statuses = sockets.map(({ answer }) => answer.status).sort();
    assertEquals([statuses, connections.countOf("bob")], [[101, 101, ...Array(8).fill(429)], 2]);
  },
  TWO,
);

Deno.test("A user's socket that is one too many for its own node is refused without a subscription", async () => {
  await using service = await Service.start(TWO);
  await using _first = await openClient(service.socketUrl("alice"));
  await using _second = await openClient(service.socketUrl("alice"));
  using subscriptions = new HeldSubscriptions();
  await using third = await RawSocket.open(service.socketUrl("alice"));
  assertEquals(third.answer.status, 429);
  await using late = await nameAlice(service);
  assertEquals([await codeOf(late), subscriptions.asked], [4429, 0]);
});

// ---------------------------------------------------------------------------------------------------------
// Of all nodes, and other rules

redisTest("A user's sockets are counted over all nodes, by what Redis says", async () => {
  await using redis = await RedisServer.start();
  const settings = { REDIS_URL: redis.url, USERWIRE_MAX_CONNECTIONS_PER_USER: "3" };
  await using one = await Service.start(settings);
  await using two = await Service.start(settings);
  const open = async (service: Service) => await RawSocket.open(service.socketUrl("alice"));
  const sockets = [await open(one), await open(two), await open(one)];
  try {
    assertEquals(sockets.map(({ answer }) => answer.status), [101, 101, 101]);
    for (const service of [one, two]) {
      await using more = await open(service);
      assertEquals(more.answer.status, 429);
      await using byFrame = await openClient(service.socketUrl());
      byFrame.send('{"user_name": "alice"}');
      assertEquals(await codeOf(byFrame), 4429);
    }
    // However many come at once, there are never more.
    const crowd = await Promise.all(Array.from({ length: 10 }, (_, i) => open([one, two][i % 2]!)));
    assertEquals(crowd.filter(({ answer }) => answer.status === 101).length, 0);
    for (const socket of crowd) await socket.closeAbruptly();
    await until(
      async () => await one.server.app.publisher.count("alice") === 3,
      "three sockets to be left",
    );
  } finally {
    for (const socket of sockets) await socket.closeAbruptly();
  }
});

Deno.test("With USERWIRE_ON_TOO_MANY=replace the newest socket takes the place of the oldest", async () => {
  await using service = await Service.start({
    USERWIRE_MAX_CONNECTIONS_PER_USER: "2",
    USERWIRE_ON_TOO_MANY: "replace",
  });
  await using first = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  await using second = await openClient(service.socketUrl("alice"));
  assertEquals(await service.server.app.publisher.count("alice"), 2, "there is room for both");
  await using third = await openClient(service.socketUrl("alice"));
  assertEquals(await first.closed, { code: 4409, reason: "replaced by a newer connection" });
  await using fourth = await openClient(service.socketUrl());
  fourth.send('{"user_name": "alice"}');
  assertEquals((await second.closed).code, 4409);
  assertEquals(third.socket.readyState, WebSocket.OPEN);
});

Deno.test("A token may say how many sockets its user has", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_MAX_CONNECTIONS_PER_USER: "5" });
  const one = await tokenFor("alice", { userwire: { maxConnections: 1 } });
  await using _first = await openClient(service.socketUrl(), protocolsFor(one));
  await using second = await RawSocket.open(service.socketUrl(), {
    headers: { Authorization: `Bearer ${one}` },
  });
  assertEquals(second.answer.status, 429);
  // What is no number of sockets is no limit of its own.
  for (const maxConnections of [0, -1, 1.5, "9", null]) {
    const odd = await tokenFor("bob", { userwire: { maxConnections } });
    await using socket = await RawSocket.open(service.socketUrl(), {
      headers: { Authorization: `Bearer ${odd}` },
    });
    assertEquals(socket.answer.status, 101);
  }
});
