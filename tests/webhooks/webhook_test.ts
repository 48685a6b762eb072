/** One request to the backend: what it looks like, and every way in which an answer can be bad. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { sign, verifyWebhook, WebhookVerificationError } from "../../src/protocol/signature.ts";
import { type Delivery, Webhook, type WebhookOptions } from "../../src/webhooks/webhook.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { Webhook as StandardWebhook } from "../packages/standardwebhooks.ts";
import { SECRET, WebhookReceiver } from "../../testkit/webhook_receiver.ts";

const OTHER = "whsec_" + btoa("another secret of 32 random byte");
const THIRD = "whsec_" + btoa("a third secret of 32 random byte");
const MESSAGE = { id: "evt_1-2", type: "users.changed", atMs: 1_700_000_000_000, data: '{"changes":[]}' };

function open(url: string, options: Partial<WebhookOptions> = {}): Webhook {
  return new Webhook({ url, secrets: [SECRET], timeoutMs: 20_000, userAgent: "userwire/test", ...options });
}

Deno.test("A signature is that of the example in the specification of Standard Webhooks", async () => {
  assertEquals(
    await sign([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'),
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  );
});

Deno.test("A webhook is signed, says what it is and when it was decided", async () => {
  await using receiver = new WebhookReceiver();
  using webhook = open(receiver.url);
  assertEquals((await webhook.post(MESSAGE)).outcome, "delivered");
  const [{ id, type, timestamp, data, headers }] = receiver.received as [typeof receiver.received[0]];
  assertEquals([id, type, timestamp, data], [
    "evt_1-2",
    "users.changed",
    "2023-11-14T22:13:20.000Z",
    { changes: [] },
  ]);
  assertEquals(headers.get("content-type"), "application/json");
  assertEquals(headers.get("user-agent"), "userwire/test");
  assertEquals(receiver.forged, 0);
});

Deno.test("The published library of Standard Webhooks verifies each of our signatures, and takes no other", async () => {
  let headers: Record<string, string> = {};
  let body = "";
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    headers = Object.fromEntries(request.headers);
    body = await request.text();
    return new Response();
  });
  using webhook = open(`http://127.0.0.1:${server.addr.port}/`, { secrets: [OTHER, SECRET] });
  const data = JSON.stringify({ user: "Zoë 😀\u2028" });
  for (const id of ["evt_1-2", "req_Zo%C3%AB%20%2E:a_b-1"]) {
    assertEquals((await webhook.post({ ...MESSAGE, id, data })).outcome, "delivered");
    for (const secret of [SECRET, OTHER]) {
      assertEquals(new StandardWebhook(secret).verify(body, headers), JSON.parse(body));
      assertThrows(() => new StandardWebhook(secret).verify(body + " ", headers));
      assertThrows(() => new StandardWebhook(secret).verify(body, { ...headers, "webhook-id": "x" }));
    }
    assertThrows(() => new StandardWebhook(THIRD).verify(body, headers));
  }
});

Deno.test("A webhook to a server whose certificate nobody vouches for is not sent", async () => {
  await using certificates = await Certificates.make();
  const [cert, key] = await Promise.all([
    Deno.readTextFile(certificates.cert("server")),
    Deno.readTextFile(certificates.key("server")),
  ]);
  let came = 0;
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, cert, key, onListen() {} }, () => {
    came++;
    return new Response();
  });
  using webhook = open(`https://127.0.0.1:${server.addr.port}/`);
  const delivery = await webhook.post(MESSAGE);
  assertEquals([delivery.outcome, came], ["failed", 0]);
  assertMatch((delivery as { reason: string }).reason, /certificate/i);
});

Deno.test("With two secrets who knows either can verify", async () => {
  for (const known of [SECRET, OTHER]) {
    await using receiver = new WebhookReceiver([known]);
    using webhook = open(receiver.url, { secrets: [OTHER, SECRET] });
    assertEquals((await webhook.post(MESSAGE)).outcome, "delivered");
  }
  await using receiver = new WebhookReceiver([OTHER]);
  using webhook = open(receiver.url);
  assertEquals((await webhook.post(MESSAGE)).outcome, "refused");
  assertEquals(receiver.forged, 1);
});

Deno.test("verifyWebhook refuses what is changed, old, from the future, unsigned or of another secret", async () => {
  const nowS = 1_700_000_000;
  const body = '{"type":"a","timestamp":"t","data":{}}';
  const headers = async (secret: string, id = "x", timestamp = nowS) => ({
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": await sign([secret], id, timestamp, body),
  });
  const good = await headers(SECRET);
  assertEquals(await verifyWebhook(good, body, [OTHER, SECRET], { nowS }), JSON.parse(body));
  assertEquals(await verifyWebhook(new Headers(good), body, SECRET, { nowS: nowS + 299 }), JSON.parse(body));
  const bad: [Record<string, string>, string, string, number][] = [
    [good, body + " ", SECRET, nowS],
    [{ ...good, "webhook-id": "y" }, body, SECRET, nowS],
    [{ ...good, "webhook-timestamp": String(nowS + 1) }, body, SECRET, nowS],
    [{ ...good, "webhook-timestamp": "soon" }, body, SECRET, nowS],
    [good, body, SECRET, nowS + 301],
    [good, body, SECRET, nowS - 301],
    [good, body, OTHER, nowS],
    [{ ...good, "webhook-signature": "v1,%%%" }, body, SECRET, nowS],
    [{ ...good, "webhook-signature": good["webhook-signature"].replace("v1,", "v1a,") }, body, SECRET, nowS],
    [{ "webhook-id": "x" }, body, SECRET, nowS],
  ];
  for (const [given, text, secret, atS] of bad) {
    await assertRejects(() => verifyWebhook(given, text, secret, { nowS: atS }), WebhookVerificationError);
  }
  await assertRejects(() => verifyWebhook(good, body, "secret", { nowS }), TypeError, "whsec_");
});

Deno.test("What an answer means: taken, not this one, or not now", async () => {
  await using receiver = new WebhookReceiver();
  using webhook = open(receiver.url);
  const answers: [status: number, outcome: Delivery["outcome"]][] = [
    [200, "delivered"],
    [204, "delivered"],
    [400, "refused"],
    [413, "refused"],
    [422, "refused"],
    [401, "failed"],
    [404, "failed"],
    [410, "failed"],
    [429, "failed"],
    [500, "failed"],
    [503, "failed"],
  ];
  for (const [status, outcome] of answers) {
    receiver.answer = () => new Response(null, { status });
    const delivery = await webhook.post(MESSAGE);
    assertEquals([status, delivery.outcome], [status, outcome]);
    if (delivery.outcome !== "delivered") assertMatch(delivery.reason, new RegExp(`answered ${status}`));
  }
});

Deno.test("A redirect is not followed", async () => {
  await using elsewhere = new WebhookReceiver();
  await using receiver = new WebhookReceiver();
  using webhook = open(receiver.url);
  for (const status of [301, 302, 307, 308]) {
    receiver.answer = () => new Response(null, { status, headers: { location: elsewhere.url } });
    const delivery = await webhook.post(MESSAGE);
    assertEquals(delivery.outcome, "failed");
    assertMatch((delivery as { reason: string }).reason, /redirects are not followed/);
  }
  assertEquals(elsewhere.received.length + elsewhere.forged, 0);
});

Deno.test("An endless answer is cut off, and refused", async () => {
  await using receiver = new WebhookReceiver();
  using webhook = open(receiver.url);
  let sent = 0;
  const cancelled = Promise.withResolvers<void>();
  receiver.answer = () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          sent += 65_536;
          controller.enqueue(new Uint8Array(65_536));
        },
        cancel: () => cancelled.resolve(),
      }),
    );
  const delivery = await webhook.post(MESSAGE);
  assertEquals(delivery.outcome, "refused");
  await cancelled.promise;
  assert(sent < 64 * 1024 * 1024);
});

Deno.test("A backend that hangs, hangs up, or is not there is one that failed", async () => {
  await using receiver = new WebhookReceiver();
  const hung = Promise.withResolvers<Response>();
  receiver.answer = () => hung.promise;
  using webhook = open(receiver.url, { timeoutMs: 50 });
  assertEquals(await webhook.post(MESSAGE), {
    outcome: "failed",
    reason: "no answer within 50 ms",
    isTimeout: true,
  });
  hung.resolve(new Response());
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const hangsUp = (async () => {
    const connection = await listener.accept();
    await connection.read(new Uint8Array(1024));
    connection.close();
  })();
  using bare = open(`http://127.0.0.1:${port}/`);
  assertEquals((await bare.post(MESSAGE)).outcome, "failed");
  await hangsUp;
  listener.close();
  assertEquals((await bare.post(MESSAGE)).outcome, "failed");
});
