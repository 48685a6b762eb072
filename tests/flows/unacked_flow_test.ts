/** The backend hears what no client has acknowledged in time: through real services, Redis, sockets and webhooks. */
import { assertEquals, assertMatch } from "@std/assert";
import { createServer } from "../../clients/npm/server.ts";
import { run } from "../../src/cli/cli.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { connectAlice, Inbox } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { WallClock } from "../../testkit/wall_clock.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient } from "../../testkit/ws_client.ts";

const WAIT_MS = 30_000;
const EVENTS = { USERWIRE_WEBHOOK_EVENTS: "unacked" };

/** What was told, by user. */
function told(receiver: WebhookReceiver): Record<string, Record<string, unknown>> {
  return Object.fromEntries(
    receiver.unacked().map(({ data }) => {
      const { user, ...rest } = data as { user: string };
      return [user, rest];
    }),
  );
}

function untilTold(receiver: WebhookReceiver, ...users: string[]): Promise<void> {
  return receiver.until(
    () => users.every((user) => user in told(receiver)),
    `${users} to be told of`,
    WAIT_MS,
  );
}

async function send(
  service: { url: string },
  path: string,
  init: RequestInit = {},
): Promise<Record<string, unknown> & { status: number }> {
  const response = await fetch(new URL(`/v1/${path}`, service.url), {
    method: "POST",
    headers: { "content-type": "application/json", ...init.headers },
    body: '{"order":7}',
  });
  return { status: response.status, ...await response.json() };
}

Deno.test("In memory: who is offline is told at once with 0, who never acknowledges after his time, and who does not at all", async () => {
  using clock = new WallClock();
  await using receiver = new WebhookReceiver();
  await using service = await Service.start({ ...receiver.env, ...EVENTS });
  const { server } = service;
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  await inbox.state("open");
  await using _raw = await openClient(service.socketUrl("raw"));
  const offline = await send(server, "users/bob/messages?unacked=0");
  await send(server, "users/raw/messages?unacked=0");
  assertEquals((await send(server, "users/alice/messages?unacked=60&wait=ack&timeout=10000")).acked, 1);
  const never = await send(server, "users/raw/messages?unacked=60");
  await untilTold(receiver, "bob");
  const { ts, ...found } = told(receiver).bob!;
  assertEquals(found, { id: offline.id, seq: 1, sockets: 0 });
  assertEquals(typeof ts, "number");
  // For a push the message is read from the history.
  const page = await service.fetch(`/v1/users/bob/messages?after=${Number(found.seq) - 1}&limit=1`);
  const { items } = await page.json();
  assertEquals(items.map(({ id, data }: { id: string; data: unknown }) => [id, data]), [[offline.id, {
    order: 7,
  }]]);
  // Other ways to ask for the same.
  const { id } = await createServer({ url: server.url }).send("carol", 1, { unackedS: 0 });
  const terminal = new Terminal();
  assertEquals(await run(["send", "--url", server.url, "--unacked", "0", "dave", "hi"], {}, terminal), 0);
  assertEquals(await run(["send", "--url", server.url, "--unacked", "soon", "dave", "hi"], {}, terminal), 2);
  await untilTold(receiver, "carol", "dave");
  assertEquals(told(receiver).carol!.id, id);
  clock.aheadMs = 61_000;
  await untilTold(receiver, "raw");
  const { raw } = told(receiver);
  assertEquals([raw!.id, raw!.sockets], [never.id, 1]);
  assertEquals(receiver.unacked().length, 4, "nothing of whom it was handed to with 0, nor of alice");
  await inbox.received(1);
});

Deno.test("A time that is none, and a service that tells nobody, refuse the send and say why", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start({ ...receiver.env, ...EVENTS });
  for (const bad of ["-1", "86401", "soon", ""]) {
    assertEquals((await send(service.server, `users/bob/messages?unacked=${bad}`)).status, 400, bad);
  }
  await using mute = await Service.start({ ...receiver.env });
  const { status, detail } = await send(mute.server, "users/bob/messages?unacked=1");
  assertEquals(status, 400);
  assertMatch(String(detail), /name unacked in USERWIRE_WEBHOOK_EVENTS/);
  await using short = await Service.start({ ...receiver.env, ...EVENTS, USERWIRE_HISTORY: "0" });
  assertMatch(String((await send(short.server, "users/bob/messages?unacked=1")).detail), /USERWIRE_HISTORY/);
});

redisTest(
  "Over two nodes: a group's members are told of one by one, and an acknowledgement anywhere counts",
  async () => {
    await using redis = await RedisServer.start();
    await using receiver = new WebhookReceiver();
    const env = { REDIS_URL: redis.url, ...receiver.env, ...EVENTS };
    await using here = await Service.start(env);
    await using there = await Service.start(env);
    await here.server.app.publisher.groups.put("team", ["alice", "bob", "raw", "out"]);
    await using client = connectAlice(there.server.url);
    const inbox = new Inbox(client);
    await inbox.state("open");
    await using _raw = await openClient(there.socketUrl("raw"));
    const pending = () =>
      redis.cli("ZRANGE", "userwire:{userwire:events}:unacked", "0", "-1") as Promise<string[]>;
    // Who comes back in time gets it from the history, and acknowledges that.
    await send(here.server, "users/back/messages?unacked=3600&wait=ack&timeout=1");
    assertEquals((await pending()).length, 1);
    await using late = await openClient(there.socketUrl("back") + "&resume=x.0", "userwire.v1");
    await late.nextJson();
    let seq = 0;
    while (seq === 0) seq = Number((await late.nextJson()).seq ?? 0);
    late.send(JSON.stringify({ t: "ack", seq }));
    await until(async () => (await pending()).length === 0, "it to be acknowledged");

    const key = { headers: { "idempotency-key": "once" } };
    const sent = await send(here.server, "groups/team/messages?unacked=0&except=out", key);
    await untilTold(receiver, "bob");
    const { bob, ...others } = told(receiver);
    assertEquals([bob!.id, bob!.group, bob!.sockets, others], [sent.id, "team", 0, {}]);
    receiver.received.length = 0;
    await send(here.server, "groups/team/messages?unacked=3600&except=out");
    await inbox.received(2);
    await until(
      async () => (await pending()).map((member) => member.split(" ")[1]).sort().join() === "bob,raw",
      "alice to acknowledge",
      WAIT_MS,
      pending,
    );
    assertEquals((await send(here.server, "groups/team/messages?unacked=3600&except=out", key)).id, sent.id);
    assertEquals((await pending()).length, 2, "a repeated send is watched no second time");
    assertEquals(receiver.unacked().length, 0);
  },
);

redisTest("A node that dies with a send behind it leaves nobody untold", async () => {
  await using redis = await RedisServer.start();
  await using receiver = new WebhookReceiver();
  const env = { REDIS_URL: redis.url, ...receiver.env, ...EVENTS };
  await using _other = await Service.start(env);
  let id: unknown;
  {
    await using dying = await ProcessService.start(env);
    ({ id } = await send(dying, "users/bob/messages?unacked=1"));
    dying.signal("SIGKILL");
  }
  await untilTold(receiver, "bob");
  assertEquals(receiver.unacked().map(({ data }) => (data as { id: string }).id), [id as string]);
});
