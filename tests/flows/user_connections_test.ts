/** A user's connections, asked of the nodes that hold them: all of them, what each says, who did not answer; and the end of one. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Connection } from "../../src/publisher/mod.ts";
import { call, CLOSED, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { nodesTest, send, SHARED } from "../../testkit/nodes.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { ENV, openStalled, sendMany } from "../../testkit/slow_readers.ts";
import { SseClient } from "../../testkit/sse_client.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

/** How long who does not answer is waited for, in milliseconds. */
const ANSWER_MS = 2_000;

const { onEveryBroker } = nodesTest("A user's connections");

interface Listed {
  items: Connection[];
  sockets?: number;
  nodes?: number;
  unanswered: number;
}

function path(user: string, conn?: string): string {
  const end = conn === undefined ? "" : `/${encodeURIComponent(conn)}`;
  return `/v1/users/${encodeURIComponent(user)}/connections${end}`;
}

async function list(service: Service, user: string): Promise<Listed> {
  const response = await withDeadline(service.fetch(path(user)), 20_000, `the connections of ${user}`);
  assertEquals(response.status, 200);
  return await response.json();
}

async function close(
  service: Service,
  user: string,
  conn: string,
  query = "",
): Promise<{ status: number; closed?: number; code?: string; detail?: string }> {
  const response = await service.fetch(path(user, conn) + query, { method: "DELETE" });
  return { status: response.status, ...await response.json() };
}

/** A framed socket, and its `hi`. */
async function openFramed(
  service: Service | ProcessService,
  user: string,
): Promise<{ socket: WsClient; conn: string; pos: string }> {
  const socket = await openClient(service.socketUrl(user), "userwire.v1");
  const { conn, pos } = await socket.nextJson();
  return { socket, conn: String(conn), pos: String(pos) };
}

onEveryBroker(
  "are listed as their nodes have them, and one of them is closed",
  async ({ here, there }, t) => {
    // All are there: however long they take, each answers in time.
    using _held = new HeldTimers(ANSWER_MS);
    const { counted } = here.server.app.publisher;
    const framed = await openFramed(here, "alice");
    await using raw = await openClient(there.socketUrl("alice"));
    await using stream = await SseClient.open(there.socketUrl("alice"));
    const streamConn = await stream.conn();
    // It is listed when it is opened: Redis counts it before that.
    await until(
      () => there.logged("connection opened").some(({ fields }) => fields.mode === "raw"),
      "the raw socket",
    );
    const rawConn = there.logged("connection opened").find(({ fields }) => fields.mode === "raw")!.fields
      .conn as string;

    await t.step("with all that is known of each", async () => {
      const { items, unanswered, ...asked } = await list(here, "alice");
      const holders = counted === "sockets" ? 3 : 2;
      assertEquals([asked, unanswered], [{ [counted]: holders }, 0]);
      const byId = Object.fromEntries(items.map(({ since, ...rest }) => {
        assert(Math.abs(Date.now() - Date.parse(since!)) < 60_000, since);
        return [rest.conn, rest];
      }));
      const onHistory = { buffered: 0, position: framed.pos, behind: 0 };
      assertEquals(byId, {
        [framed.conn]: {
          ...{ conn: framed.conn, node: here.server.node, mode: "v1", transport: "websocket" },
          ...onHistory,
        },
        [rawConn]: {
          ...{ conn: rawConn, node: there.server.node, mode: "raw", transport: "websocket" },
          buffered: 0,
        },
        [streamConn]: {
          ...{ conn: streamConn, node: there.server.node, mode: "sse", transport: "sse" },
          ...onHistory,
        },
      });
      assertEquals(items.map(({ since }) => since), items.map(({ since }) => since).toSorted());
    });
    await t.step("each with its position", async () => {
      const { epoch, seq } = await send(here, 7);
      await framed.socket.next();
      await stream.next("m");
      const { items } = await list(there, "alice");
      const places = items.map(({ position, behind }) => [position, behind]);
      assertEquals(places.filter(([position]) => position !== undefined), [
        [`${epoch}.${seq}`, 0],
        [`${epoch}.${seq}`, 0],
      ]);
    });
    await t.step("none where the id is nobody's, or another user's", async () => {
      const bob = await openFramed(here, "bob");
      for (
        const conn of [
          "nobody",
          bob.conn,
          framed.conn.toUpperCase(),
          "a/b",
          "é\u{1f600}",
          '"',
          "{}",
          "a b",
          " ",
        ]
      ) {
        const { status, code } = await close(there, "alice", conn);
        assertEquals([status, code], [404, "connection_not_found"], conn);
      }
      const broken = await there.fetch(`${path("alice")}/%zz%`, { method: "DELETE" });
      assertEquals([broken.status, (await broken.json()).code], [404, "connection_not_found"]);
      assertEquals((await close(here, "bob", framed.conn)).status, 404);
      assertEquals((await list(here, "alice")).items.length, 3);
      await bob.socket.close();
    });
    await t.step("not for a reason that no client could read", async () => {
      for (const query of ["?code=1005", "?code=x", `?why=${"x".repeat(121)}`, "?why=", "?other=1"]) {
        const { status, code } = await close(here, "alice", framed.conn, query);
        assertEquals([status, code], [400, "invalid_request"], query);
      }
    });
    await t.step("one of them, by a node that does not hold it", async () => {
      assertEquals(await close(there, "alice", framed.conn), { status: 200, closed: 1 });
      assertEquals(await framed.socket.closed, { code: 4403, reason: "kicked" });
      assertEquals(await close(here, "alice", streamConn, "?code=4000&why=a%20%26%20b"), {
        status: 200,
        closed: 1,
      });
      assertEquals((await stream.next("bye")).why, "a & b");
      // Redis may count one that has left a moment longer: it is not listed any more.
      const { items } = await list(here, "alice");
      assertEquals(items.map(({ conn }) => conn), [rawConn]);
      assertEquals(raw.waiting.length, 1);
    });
    await raw.close();
    await until(async () => await here.server.app.publisher.count("alice") === 0, "nobody to be there");
    await t.step("none of a user who is offline", async () => {
      assertEquals(await list(here, "alice"), { items: [], [counted]: 0, unanswered: 0 });
      assertEquals((await close(here, "alice", framed.conn)).status, 404);
    });
  },
);

onEveryBroker("are found under every name", async ({ here, there }) => {
  using _held = new HeldTimers(ANSWER_MS);
  const names = ["a/b?c#d", "%2F", "é\u{1f600}", `'";<>&=+`, "\\", "*", "toString", "x".repeat(128)];
  for (const name of names) {
    const { socket, conn } = await openFramed(here, name);
    const { items, unanswered } = await list(there, name);
    assertEquals([items.map((item) => item.conn), unanswered], [[conn], 0], name);
    assertEquals(await close(there, name, conn), { status: 200, closed: 1 }, name);
    assertEquals((await socket.closed).code, 4403);
  }
  for (const name of ["a b", "{", "userwire:x", ".."]) {
    const response = await here.fetch(path(name).replace("..", "%2E%2E"));
    assertEquals([response.status, (await response.json()).code], [
      name === ".." ? 404 : 400,
      name === ".." ? "not_found" : "invalid_username",
    ], name);
  }
});

Deno.test("A user's connections say when their tokens end", async () => {
  await using service = await Service.start(CLOSED);
  const token = await tokenFor("alice", { lifeS: 60 });
  await using alice = await openClient(service.socketUrl(), protocolsFor(token));
  const { exp } = await alice.nextJson();
  const { body } = await call(service, "GET /v1/users/alice/connections");
  assertEquals(body.items.map((item: Connection) => item.exp), [exp]);
});

Deno.test("A user's connections say how far one is behind that does not read", async () => {
  await using service = await Service.start({ ...ENV, USERWIRE_HISTORY: "2000" });
  await using _stalled = await openStalled(service);
  const { publisher } = service.server.app;
  const isBehind = async () => (await publisher.connections("alice")).items[0]!.behind! > 0;
  await until(
    async () => {
      await sendMany(publisher, 40);
      return await isBehind();
    },
    "the client to be behind",
    60_000,
  );
  const { items: [slow] } = await publisher.connections("alice");
  const { last } = await publisher.history("alice", { limit: 1 });
  assertEquals(slow!.behind, last - Number(slow!.position!.split(".")[1]));
  assert(slow!.buffered > 0);
  assertEquals((await close(service, "alice", slow!.conn)).status, 200);
});

for (const [kind, env] of [["dedicated", {}], ["shared", SHARED]] as const) {
  redisTest(`A user's connections over ${kind} subscriptions: who does not answer is counted`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url, ...env });
    const { socket, conn } = await openFramed(service, "alice");
    // A node that hangs is for Redis a subscriber as any other.
    const { hostname, port } = new URL(redis.url);
    using hanging = await Deno.connect({ hostname, port: Number(port) });
    await hanging.write(new TextEncoder().encode("SUBSCRIBE alice\r\n"));
    await new Truth(redis).untilCount("alice", 2);
    const { counted } = service.server.app.publisher;
    const [listed, unknown] = await Promise.all([list(service, "alice"), close(service, "alice", "nobody")]);
    assertEquals([listed.items.map((item) => item.conn), listed[counted], listed.unanswered], [[conn], 2, 1]);
    assertEquals([unknown.status, unknown.code], [503, "nodes_silent"]);
    assertMatch(unknown.detail!, RegExp(`^1 of 2 ${counted} did not answer in time`));
    // The one that is found needs no other's answer.
    {
      using _held = new HeldTimers(ANSWER_MS);
      const closing = close(service, "alice", conn);
      assertEquals(await withDeadline(closing, 20_000, "an answer, without the other's"), {
        status: 200,
        closed: 1,
      });
    }
    await socket.closed;
  });
}

redisTest(
  "A user's connection on a node that hangs is counted, and closed when the node goes on",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    await using hanging = await ProcessService.start({ REDIS_URL: redis.url, USERWIRE_NODE: "hanging" });
    const { socket, conn } = await openFramed(service, "alice");
    const { socket: other, conn: otherConn } = await openFramed(hanging, "alice");
    const nodes: string[] = (await (await service.fetch("/v1/nodes")).json()).items.map((
      { node }: { node: string },
    ) => node);
    assertEquals(nodes.toSorted(), [service.server.node, "hanging"].toSorted());
    hanging.signal("SIGSTOP");
    const [listed, closing] = await Promise.all([list(service, "alice"), close(service, "alice", otherConn)]);
    assertEquals([listed.items.map((item) => item.conn), listed.sockets, listed.unanswered], [[conn], 2, 1]);
    assertEquals([closing.status, closing.code], [503, "nodes_silent"]);
    hanging.signal("SIGCONT");
    assertEquals(await other.closed, { code: 4403, reason: "kicked" });
    await socket.close();
  },
);
