/** That refusals leave a trace in the log: what was refused to whom and what to do, not too often, and no secret. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { problem } from "../../src/http/problem.ts";
import { RefusalLog } from "../../src/http/refusal_log.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { call, CLOSED, KEY, tokenFor } from "../../testkit/closed.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

/** The refusals that the log tells. */
function told(service: Service) {
  return service.log.records.filter(({ event }) => /refused$/.test(event));
}

async function shake(service: Service, path: string, headers: Record<string, string> = {}): Promise<number> {
  await using socket = await RawSocket.open(new URL(path, service.server.url), { headers });
  return socket.answer.status;
}

Deno.test("Refused handshakes and calls stand in the log once, with reason, origin, address and what to do", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_UPGRADES_PER_SECOND: "10" });
  // However long they take, they come in one moment.
  using _clock = new StandingClock();
  const shop = { Origin: "https://shop.example" };
  for (let i = 0; i < 3; i++) {
    assertEquals(await shake(service, "/ws", { "Sec-WebSocket-Protocol": "userwire.v1" }), 401);
    assertEquals(await shake(service, "/ws", shop), 403);
    assertEquals((await call(service, "GET /v1/users/alice", { key: "uw_tests_wrong" })).status, 401);
    assertEquals((await call(service, "GET /v1/users/alice", { headers: shop })).status, 403);
  }
  assertEquals(
    told(service).map((
      { level, event, fields },
    ) => [level, event, fields.code, fields.status, fields.origin]),
    [
      ["warn", "handshake refused", "unauthorized", 401, undefined],
      ["warn", "handshake refused", "origin_not_allowed", 403, "https://shop.example"],
      ["warn", "call refused", "unauthorized", 401, undefined],
      ["warn", "call refused", "origin_not_allowed", 403, "https://shop.example"],
    ],
  );
  assertMatch(String(told(service)[0]!.fields.reason), /show a token/);
  assertMatch(String(told(service)[1]!.fields.reason), /USERWIRE_ALLOWED_ORIGINS/);
  for (const { fields } of told(service)) assertEquals(fields.address, "127.0.0.1");

  const before = told(service).length;
  for (let i = 0; i < 30; i++) await shake(service, "/ws", { "Sec-WebSocket-Protocol": "userwire.v1" });
  assertEquals(told(service).slice(before).map(({ fields }) => fields.code), ["too_many_requests"]);
  // What is an answer like any other is no refusal.
  await call(service, "POST /v1/users/alice/messages?expect=online", { body: 1 });
  await call(service, "GET /v1/nothing");
  assertEquals(told(service).length, before + 1);
});

Deno.test("A backend that sends what is no message stands in the log, without what it sent", async () => {
  await using service = await Service.start();
  const send = (name: string, payload: string, key: string) =>
    service.fetch(`/v1/users/${name}/messages`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key },
      body: payload,
    }).then((response) => response.text());
  for (let i = 0; i < 3; i++) {
    await send("a%20b", '"secret"', "1");
    await send("alice", "{secret", "2");
    for (const payload of ['"secret"', '"another"']) await send("alice", payload, "3");
  }
  assertEquals(told(service).map(({ fields }) => fields.code), [
    "invalid_username",
    "invalid_message",
    "idempotency_conflict",
  ]);
  assert(!JSON.stringify(told(service)).includes("secret"));
});

Deno.test("A call by a name that is not this machine's stands in the log", async () => {
  await using service = await Service.start();
  assertEquals(await shake(service, "/ws?username=alice", { Host: "evil.example" }), 421);
  assertEquals(told(service).map(({ fields }) => fields.code), ["misdirected"]);
});

Deno.test("No token, key or ticket that was refused stands in the log, wherever it was shown", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
  const token = await tokenFor("alice", { lifeS: -100 });
  const ticket = "t".repeat(43);
  const v1 = { "Sec-WebSocket-Protocol": "userwire.v1" };
  await shake(service, `/ws?token=${token}`, { ...v1, "X-Forwarded-For": "1.1.1.1" });
  await shake(service, `/ws?ticket=${ticket}`, { ...v1, "X-Forwarded-For": "1.1.1.2" });
  await shake(service, "/ws", { ...v1, Authorization: `Bearer ${token}` });
  await shake(service, "/ws", { ...v1, Origin: `https://${KEY.key}:${token}@shop.example` });
  await shake(service, "/ws", { ...v1, Origin: `https://shop.example/?token=${token}` });
  await shake(service, "/ws", { ...v1, Origin: token, "X-Forwarded-For": token });
  await shake(service, "/ws", { ...v1, Origin: `https://${token}` });
  await call(service, `GET /v1/users/${token}`, { key: `${KEY.key}x` });
  await call(service, `POST /v1/tickets?key=${KEY.key}`, { body: { user: token }, key: ticket });
  assert(told(service).length >= 5);
  const text = JSON.stringify(service.log.records);
  for (const secret of [token, token.slice(-20), ticket, KEY.key]) assert(!text.includes(secret), text);
});

Deno.test("The same refusal is told once a minute, with how often it came, and many places are told as a number", () => {
  using clock = new StandingClock();
  const log = memoryLog();
  const refusals = new RefusalLog(log, { trustedProxies: ["127.0.0.1"] });
  const from = (address: string) =>
    refusals.note(
      new Request("http://localhost/ws", { headers: { "x-forwarded-for": address } }),
      "127.0.0.1",
      problem("unauthorized", "Who?"),
      true,
    );
  for (let i = 0; i < 10; i++) from("1.2.3.4");
  assertEquals(log.records.length, 1);
  clock.pass(59_999);
  from("1.2.3.4");
  assertEquals(log.records.length, 1);
  clock.pass(1);
  from("1.2.3.4");
  assertEquals(log.records.map(({ fields }) => fields.times_before), [undefined, 10]);
  from("1.2.3.4");
  clock.pass(60_000);
  from("1.2.3.5");
  from("1.2.3.4");
  assertEquals(log.records.slice(2).map(({ fields }) => fields.times_before), [undefined, 1], "others came");

  // Each /64 of IPv6 is a place of its own: a stranger has as many as it likes.
  clock.pass(60_000);
  log.records.length = 0;
  for (let i = 0; i < 20_000; i++) from(`2001:db8:${(i >> 8).toString(16)}:${(i & 255).toString(16)}::1`);
  assertEquals(log.records.length, 100);
  clock.pass(60_000);
  from("1.2.3.4");
  assertEquals(log.records.slice(100).map(({ fields }) => fields.times ?? fields.address), [
    19_900,
    "1.2.3.4",
  ]);
});
