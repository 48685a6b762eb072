/** Faults of those who send to nodes and are told by them, and of others on the same Redis. */
import { assertEquals } from "@std/assert";
import { CLOSED, KEY, protocolsFor, tokenFor } from "../../../testkit/closed.ts";
import { RawSocket } from "../../../testkit/raw_socket.ts";
import { RedisServer } from "../../../testkit/redis_server.ts";
import { openClient } from "../../../testkit/ws_client.ts";
import { WebhookReceiver } from "../../../testkit/webhook_receiver.ts";
import { consoleOf, linesOf, userwire } from "./night.ts";
import { type Fault, nodes, sendAll, USERS } from "./fault.ts";

export const BACKEND_FAULTS: readonly Fault[] = [
  {
    name: "A webhook hangs",
    fires: ["UserwireWebhookLate", "UserwireRequestsFailed"],
    async play(night) {
      const backend = night.use(new WebhookReceiver());
      const env = {
        ...backend.env,
        USERWIRE_WEBHOOK_EVENTS: "users,requests",
        USERWIRE_WEBHOOK_TIMEOUT_MS: "1000",
      };
      const [node] = await nodes(night, 1, env);
      await night.read(node!.server.url);
      const clients = await night.open(node!, USERS);
      await backend.until(() => backend.online().length === USERS.length, "the backend to know of all");
      backend.answer = backend.hang;
      await night.open(node!, ["late"]);
      let id = 0;
      night.steadily(200, async () => {
        await Promise.resolve();
        clients[id++ % clients.length]!.send(JSON.stringify({ t: "req", id: `${id}`, op: "ask" }));
      });
      await night.fires("UserwireWebhookLate");
      await night.fires("UserwireRequestsFailed");
      return [
        ["userwire webhook test", /in time|1000 ms|1 s/, await userwire("webhook test", env)],
        ["lines", /webhook failed .*reason/, linesOf(node!, "webhook failed")],
        ["lines", /requests not answered .*reason/, linesOf(node!, "requests not answered")],
        ["console", /"webhook_oldest_s":[1-9]/, await consoleOf(node!.server.url)],
      ];
    },
  },
  {
    name: "The backend signs tokens with another secret",
    fires: ["UserwireHandshakesRefused"],
    async play(night) {
      const [node] = await nodes(night, 1, { ...CLOSED, USERWIRE_METRICS: "on" });
      await night.read(node!.server.url);
      const token = await tokenFor("alice", {}, { secret: "another secret of thirty-two bytes or more" });
      const headers = { "Sec-WebSocket-Protocol": protocolsFor(token).join(", ") };
      night.steadily(100, async () => {
        await using socket = await RawSocket.open(node!.socketUrl(), { headers });
        assertEquals(socket.answer.status, 401);
      });
      await night.fires("UserwireHandshakesRefused");
      const told = await node!.fetch("/metrics", { headers: { authorization: `Bearer ${KEY.key}` } });
      return [
        ["curl /metrics | grep", /handshakes_refused_total\{code="unauthorized"\} [1-9]/, await told.text()],
        ["lines", /handshake refused .*unauthorized/, linesOf(node!, "handshake refused")],
      ];
    },
  },
  {
    name: "A program that is no node subscribes for users",
    fires: ["UserwireNotDelivered"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const [node] = await nodes(night, 1, { REDIS_URL: redis.url });
      const other = night.use(await Deno.connect({ port: redis.port }));
      await other.write(new TextEncoder().encode(`SUBSCRIBE ${USERS.join(" ")}\r\n`));
      sendAll(night, node!);
      await night.read(node!.server.url);
      await night.fires("UserwireNotDelivered");
      const list = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).split("\n");
      const strangers = list.filter((line) => line !== "" && !line.includes("name=userwire"));
      assertEquals(strangers.length, 1, list.join("\n"));
      return [[
        "redis-cli client list type pubsub | grep -v name=userwire",
        /name= .*sub=12/,
        strangers.join("\n"),
      ]];
    },
  },
  {
    name: "A backend sends what is no message",
    fires: ["UserwireSendsRefused"],
    async play(night) {
      const [node] = await nodes(night, 1, {});
      await night.open(node!, USERS);
      sendAll(night, node!);
      await night.read(node!.server.url);
      night.steadily(50, () => node!.send("a b", 1));
      await night.fires("UserwireSendsRefused");
      return [["lines", /call refused .*invalid_username/, linesOf(node!, "call refused")]];
    },
  },
  {
    name: "Clients were away for longer than the history reaches",
    fires: ["UserwireMessagesMissed"],
    async play(night) {
      const [node] = await nodes(night, 1, { USERWIRE_HISTORY: "2" });
      const begun = await Promise.all(USERS.map(async (user) => {
        await using client = await openClient(node!.socketUrl(user), ["userwire.v1"]);
        return (await client.nextJson()).pos;
      }));
      for (let n = 0; n < 5; n++) for (const user of USERS) await node!.send(user, n);
      await night.read(node!.server.url);
      for (const [i, user] of USERS.entries()) {
        await using client = await openClient(`${node!.socketUrl(user)}&resume=${begun[i]}`, ["userwire.v1"]);
        assertEquals([(await client.nextJson()).t, (await client.nextJson()).t], ["hi", "gap"]);
      }
      await night.fires("UserwireMessagesMissed");
      const metrics = await (await node!.fetch("/metrics")).text();
      return [["the panel Gaps announced", /userwire_gaps_total\{why="trimmed"\} 12/, metrics]];
    },
  },
];
