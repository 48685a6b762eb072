/** The trace parent of a send, on its way to clients, the backend, the log and the spans of deliveries. */
import { assertEquals, assertMatch } from "@std/assert";
import { createServer } from "../../clients/npm/server.ts";
import { Publisher } from "../../src/publisher/mod.ts";
import { openSpans } from "../../src/metrics/spans.ts";
import { SUBPROTOCOL } from "../../src/protocol/frames.ts";
import { connectAlice, Inbox } from "../../testkit/client_watch.ts";
import { OtlpSink } from "../../testkit/otlp_sink.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { SAMPLED, TRACE_ID, TRACE_PARENTS, UNSAMPLED } from "../../testkit/trace_parents.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

const SPAN_ID = SAMPLED.slice(36, 52);

interface Place {
  readonly url: string;
}

/** Calls the API as a backend does that is a part of a trace. */
async function post(
  { url }: Place,
  path: string,
  body: string,
  headers: Record<string, string> = { traceparent: SAMPLED },
): Promise<void> {
  const response = await fetch(new URL(`/v1/${path}`, url), {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const text = await response.text();
  assertEquals([response.ok, text.includes('"error"')], [true, false], text);
}

/** The next message or broadcast of a framed client, without what differs from run to run. */
async function nextMessage(client: WsClient): Promise<Record<string, unknown>> {
  for (;;) {
    const { t, tp, data } = await client.nextJson();
    if (t === "m" || t === "b") return { t, tp, data };
  }
}

Deno.test("The trace parent of every call that sends comes with the message to framed clients, and the log", async () => {
  await using service = await Service.start({ USERWIRE_BROADCAST_RAW: "true" });
  const { server } = service;
  await using framed = await openClient(service.socketUrl("alice"), SUBPROTOCOL);
  await using raw = await openClient(service.socketUrl("alice"));
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  await inbox.state("open");
  await service.fetch("/v1/groups/team", {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: '{"users":["alice"]}',
  }).then((response) => response.body?.cancel());

  const calls: [path: string, body: string, headers?: Record<string, string>][] = [
    ["users/alice/messages", "1"],
    ["users/alice/messages?expect=online&ttl=5", "2"],
    ["messages", '{"items":[{"to":"alice","data":3}]}'],
    ["messages", '{"to":"alice","data":4}\n', { "content-type": "application/x-ndjson" }],
    ["groups/team/messages", "5"],
    ["broadcast?ttl=5", "6"],
  ];
  for (const [i, [path, body, headers]] of calls.entries()) {
    await post(server, path, body, { traceparent: SAMPLED, ...headers });
    const found = await nextMessage(framed);
    assertEquals(found, { t: i === 5 ? "b" : "m", tp: SAMPLED, data: i + 1 }, path);
    assertEquals(await raw.next(), String(i + 1));
    await post(server, path, body, headers ?? {});
    assertEquals(await nextMessage(framed), { ...found, tp: undefined }, path);
    assertEquals(await raw.next(), String(i + 1));
  }
  await inbox.received(10);
  const ours = inbox.messages.map((message) => "traceparent" in message ? message.traceparent : "none");
  assertEquals(ours, Array.from({ length: 10 }, (_, i) => i % 2 === 0 ? SAMPLED : "none"));
  const sent = service.logged("message sent").map(({ fields }) => fields.traceparent);
  assertEquals(sent, [SAMPLED, undefined, SAMPLED, undefined]);
  const delivered = service.logged("message delivered").map(({ fields }) => fields.traceparent);
  assertEquals(delivered.length, 30);
  assertEquals(delivered.slice(0, 6), [SAMPLED, SAMPLED, SAMPLED, undefined, undefined, undefined]);
});

Deno.test("What is no trace parent is no error, and goes nowhere", async () => {
  await using service = await Service.start();
  await using framed = await openClient(service.socketUrl("alice"), SUBPROTOCOL);
  const { publisher } = service.server.app;
  const backend = createServer({ url: service.server.url, retries: 0 });
  for (const [traceparent, read] of TRACE_PARENTS) {
    await publisher.send("alice", 1, { traceparent });
    await backend.send("alice", 2, { traceparent });
    assertEquals(await nextMessage(framed), { t: "m", tp: read, data: 1 }, traceparent.slice(0, 99));
    assertEquals(await nextMessage(framed), { t: "m", tp: read, data: 2 }, traceparent.slice(0, 99));
  }
  // What a header can hold, as it stands there; two headers of this name are one with a comma.
  const headers = TRACE_PARENTS.filter(([given]) => /^[\x20-\x7e]*$/.test(given) && given === given.trim());
  for (const [traceparent, read] of headers) {
    await post(service.server, "users/alice/messages", "3", { traceparent });
    assertEquals(await nextMessage(framed), { t: "m", tp: read, data: 3 }, traceparent.slice(0, 99));
  }
});

Deno.test("The backend is told of which trace the message was that nobody has acknowledged", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start({ ...receiver.env, USERWIRE_WEBHOOK_EVENTS: "unacked" });
  await post(service.server, "users/bob/messages?unacked=0", "1");
  await post(service.server, "users/carol/messages?unacked=0", "1", {});
  await post(service.server, "users/dave/messages?unacked=0", "1", { traceparent: "garbage" });
  await receiver.until(() => receiver.unacked().length === 3, "all to be told");
  const told = receiver.unacked().map(({ data, headers }) => {
    const { user, traceparent } = data as { user: string; traceparent?: string };
    return [user, traceparent, headers.get("traceparent")];
  });
  assertEquals(told.sort(), [["bob", SAMPLED, SAMPLED], ["carol", undefined, null], [
    "dave",
    undefined,
    null,
  ]]);
});

redisTest("A publisher and the Redis function carry it to the clients of a node", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_REDIS_FUNCTIONS: "load" });
  await using framed = await openClient(service.socketUrl("alice"), SUBPROTOCOL);
  await using publisher = await Publisher.open({ redisUrl: redis.url });
  await publisher.groups.put("team", ["alice"]);
  await publisher.send("alice", 1, { traceparent: SAMPLED, waitAckMs: 0 });
  await publisher.sendToAll(["alice"], 2, { traceparent: SAMPLED });
  await publisher.sendToGroup("team", 3, { traceparent: SAMPLED });
  await redis.cli("FCALL", "userwire_send", "1", "userwire:{alice}", "4", "traceparent", SAMPLED);
  await redis.cli("FCALL", "userwire_send", "1", "userwire:{alice}", "5", "traceparent", "garbage");
  await publisher.broadcast(6, { traceparent: SAMPLED });
  const found = await Array.fromAsync({ length: 6 }, () => nextMessage(framed));
  assertEquals(found.map(({ data, tp }) => [data, tp]), [
    ...[1, 2, 3, 4].map((data) => [data, SAMPLED]),
    [5, undefined],
    [6, SAMPLED],
  ]);
});

Deno.test("With OTEL_DENO each delivery of a traced send is a span in its trace, linked to it; others make none", async () => {
  assertEquals(openSpans("1"), undefined, "this process exports none");
  await using sink = new OtlpSink();
  await using receiver = new WebhookReceiver();
  const events = { ...receiver.env, USERWIRE_WEBHOOK_EVENTS: "unacked" };
  await using service = await ProcessService.start({ ...sink.env, ...events });
  await using framed = await openClient(service.socketUrl("alice"), SUBPROTOCOL);
  await using raw = await openClient(service.socketUrl("alice"));
  await post(service, "users/alice/messages", "1", {});
  await post(service, "users/alice/messages", "2", { traceparent: UNSAMPLED });
  await post(service, "users/alice/messages", "3", { traceparent: "garbage" });
  await post(service, "users/alice/messages", "4");
  await post(service, "broadcast", "5");
  await post(service, "users/bob/messages?unacked=0", "6");
  const found = await Array.fromAsync({ length: 5 }, () => nextMessage(framed));
  assertEquals(found.map(({ tp }) => tp), [undefined, UNSAMPLED, undefined, SAMPLED, SAMPLED]);
  await sink.until(() => sink.of("userwire").length >= 3, "three spans");
  // Those of the first messages would have been exported before these.
  for (const { name, kind, traceId, parentSpanId, links } of sink.of("userwire")) {
    assertEquals([name, kind, traceId, parentSpanId], ["deliver", 5, TRACE_ID, SPAN_ID]);
    assertEquals(links.map(({ traceId, spanId }) => [traceId, spanId]), [[TRACE_ID, SPAN_ID]]);
  }
  const told = sink.of("userwire").map(({ attributes }) => [
    attributes["userwire.user"],
    attributes["userwire.broadcast"],
  ]);
  assertEquals(told, [["alice", undefined], ["alice", undefined], [undefined, true]]);
  const conns = new Set(sink.of("userwire").map(({ attributes }) => attributes["userwire.conn"]));
  assertEquals(conns.size, 3, "a span for each connection, and one for the broadcast");
  for (const data of [1, 2, 3, 4]) assertEquals(await raw.next(), String(data));
  // What else the backend is told may come before it.
  await receiver.until(() => receiver.unacked().length === 1, "the message to be told");
  // Deno writes this header itself, of the span that its request is.
  assertMatch(
    receiver.unacked()[0]!.headers.get("traceparent")!,
    new RegExp(`^00-${TRACE_ID}-[0-9a-f]{16}-01$`),
  );
});
