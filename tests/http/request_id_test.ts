/** The id of a request: in answers, in problems and in the log, and whose own ids are taken. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { until } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[\da-f]{4}-[\da-f]{12}$/;
const OURS = "order-7/retry:2";

Deno.test("One id leads from a call through its answer to the send and to each delivery, at level debug", async (t) => {
  await using service = await Service.start();
  await using alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  await alice.next();
  const send = (headers = {}) =>
    service.fetch("/v1/users/alice/messages?token=secret", {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: "1",
    });
  await t.step("a call", async () => {
    const refused = await send({ "x-request-id": OURS });
    assertEquals([refused.status, refused.headers.get("x-request-id")], [400, OURS]);
    assertEquals((await refused.json()).request_id, OURS);
    const [answered] = service.logged("request answered").filter(({ fields }) => fields.request_id === OURS);
    assertEquals([answered!.fields.path, answered!.fields.status], ["/v1/users/*/messages", 400]);
  });
  await t.step("a send and its deliveries", async () => {
    const sent = await service.fetch("/v1/users/alice/messages", {
      method: "POST",
      headers: { "content-type": "application/json", "x-request-id": OURS },
      body: "1",
    });
    assertEquals(sent.headers.get("x-request-id"), OURS);
    const { id, seq } = await sent.json();
    await alice.next();
    const [line] = service.logged("message sent");
    assertEquals([line!.fields.request_id, line!.fields.id, line!.fields.user], [OURS, id, "alice"]);
    await until(() => service.logged("message delivered").length === 1, "the delivery to be logged");
    const { fields } = service.logged("message delivered")[0]!;
    assertEquals([fields.id, fields.seq, fields.user], [id, seq, "alice"]);
  });
  await t.step("not at other levels", async () => {
    const put = await service.fetch("/v1/log-level", {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: '{"level":"info"}',
    });
    assertEquals(put.status, 200);
    await put.body?.cancel();
    const before = service.log.records.length;
    assertEquals((await service.send("alice", 2)).status, 200);
    await alice.next();
    assertEquals(service.log.records.slice(before), []);
  });
});

Deno.test("An id is made where none was given, or none that can stand in a log", async () => {
  await using service = await Service.start();
  const idOf = async (given?: string) => {
    const response = await service.fetch("/healthz", {
      headers: given === undefined ? {} : { "x-request-id": given },
    });
    await response.body?.cancel();
    return response.headers.get("x-request-id")!;
  };
  const ids = new Set([await idOf(), await idOf()]);
  assertEquals(ids.size, 2);
  for (const given of ["", "a b", "x".repeat(129), 'a"b', "a\u00e9", "{}", "a,b"]) {
    const id = await idOf(given);
    assertMatch(id, UUID);
    assertNotEquals(id, given);
  }
  for (const given of ["x".repeat(128), "Root=1-67891233-abc;Self=1", "00-4bf92f35-01"]) {
    assertEquals(await idOf(given), given);
  }
  const head = await service.fetch("/v1/none", { method: "HEAD" });
  const get = await service.fetch("/v1/none");
  assertEquals(head.headers.get("content-length"), String((await get.bytes()).length));
});

Deno.test("Where keys are needed an id is taken from who shows one, and from our own proxies", async () => {
  const { key, line } = newKey("shop", { scopes: ["send"] });
  await using closed = await Service.start({ USERWIRE_API_KEYS: line });
  await using behind = await Service.start({
    USERWIRE_API_KEYS: line,
    USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
  });
  const problemOf = async (service: Service, headers: Record<string, string>) => {
    const response = await service.fetch("/v1/users/alice", {
      headers: { "x-request-id": OURS, ...headers },
    });
    const { request_id: id, code } = await response.json();
    assertEquals(response.headers.get("x-request-id"), id);
    return { id, code };
  };
  const stranger = await problemOf(closed, {});
  assertMatch(stranger.id, UUID);
  assertEquals(stranger.code, "unauthorized");
  assertEquals(closed.logged("call refused")[0]!.fields.request_id, stranger.id);
  assertMatch((await problemOf(closed, { authorization: "Bearer uw_shop_wrong" })).id, UUID);
  assertEquals(await problemOf(closed, { authorization: `Bearer ${key}` }), { id: OURS, code: "forbidden" });
  assertEquals((await problemOf(behind, {})).id, OURS);
});

Deno.test("A refused handshake says its id, and so does the log", async () => {
  const { line } = newKey("shop", { scopes: ["send"] });
  await using service = await Service.start({ USERWIRE_API_KEYS: line });
  await using refused = await RawSocket.open(service.socketUrl("alice"));
  const { request_id: id } = JSON.parse(refused.answer.body);
  assertMatch(id, UUID);
  assertEquals(refused.answer.headers.get("x-request-id"), id);
  const [logged] = service.logged("handshake refused");
  assert(logged);
  assertEquals(logged.fields.request_id, id);
});
