/** A GET of /ws that asks why a handshake is refused: the same words, at the same price, and nothing is opened or used. */
import { assertEquals, assertMatch } from "@std/assert";
import { CLOSED, KEY, tokenFor } from "../../testkit/closed.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { openClient } from "../../testkit/ws_client.ts";

async function ask(service: Service, query = "", headers: Record<string, string> = {}) {
  const response = await service.fetch(`/ws${query}`, {
    headers: { accept: "application/problem+json", ...headers },
  });
  const { code, detail } = await response.json();
  const allowed = response.headers.get("access-control-allow-origin");
  return { status: response.status, code, detail, allowed };
}

Deno.test("Whoever asks is told what a handshake would be, in open mode", async () => {
  await using service = await Service.start({
    ...{ USERWIRE_ALLOWED_ORIGINS: "https://app.example", USERWIRE_MAX_CONNECTIONS_PER_USER: "1" },
    ...{ USERWIRE_ON_TOO_MANY: "refuse" },
  });
  const asked: [query: string, status: number, says: RegExp][] = [
    ["?username=alice", 426, /would be let in.*proxy/],
    ["", 400, /Who is connecting/],
    ["?username=two%20words", 400, /white space/],
    ["?username=alice&resume=x", 400, /"resume" must be a position/],
    ["?username=alice&ping=soon", 400, /"ping" must be a whole number/],
  ];
  for (const [query, status, says] of asked) {
    const answer = await ask(service, query);
    assertEquals(answer.status, status, query);
    assertMatch(answer.detail, says);
  }
  const page = await ask(service, "?username=alice", { origin: "https://app.example" });
  assertEquals([page.status, page.allowed], [426, "https://app.example"]);
  const stranger = await ask(service, "?username=alice", { origin: "https://other.example" });
  assertEquals([stranger.code, stranger.allowed], ["origin_not_allowed", null]);
  {
    await using _alice = await openClient(service.socketUrl("alice"));
    assertEquals((await ask(service, "?username=alice")).code, "too_many_connections");
    assertEquals((await ask(service, "?username=bob")).code, "upgrade_required");
  }
  await service.isEmpty();
  assertEquals(service.logged("call refused"), []);
  // Others are answered as before, and that is logged.
  const plain = await service.fetch("/ws");
  assertEquals([plain.status, (await plain.json()).code], [426, "upgrade_required"]);
  assertEquals(service.logged("call refused").length, 1);
});

Deno.test("Whoever asks with a token or a ticket uses nothing up", async () => {
  await using service = await Service.start(CLOSED);
  const authorization = `Bearer ${await tokenFor("alice")}`;
  assertEquals((await ask(service, "", { authorization })).code, "upgrade_required");
  assertEquals((await ask(service, "?username=bob", { authorization })).code, "forbidden");
  assertEquals((await ask(service, "", { authorization: "Bearer x.y.z" })).status, 401);
  assertEquals((await ask(service)).status, 401);
  const { auth } = service.server.app;
  const ticket = await auth.issueTicket("alice", 30);
  assertEquals((await ask(service, `?ticket=${ticket}`)).code, "upgrade_required");
  assertEquals((await ask(service, "", { authorization: `Bearer ${ticket}` })).code, "upgrade_required");
  {
    await using alice = await openClient(`${service.socketUrl()}?ticket=${ticket}`);
    assertEquals(alice.socket.readyState, WebSocket.OPEN);
  }
  assertEquals((await ask(service, `?ticket=${ticket}`)).status, 401);
  await service.fetch("/v1/users/alice/revocations", {
    ...{ method: "POST", body: "{}" },
    headers: { authorization: `Bearer ${KEY.key}`, "content-type": "application/json" },
  }).then((answer) => answer.body?.cancel());
  assertMatch((await ask(service, "", { authorization })).detail, /has been revoked/);
});

Deno.test("A question counts as a handshake", async () => {
  await using service = await Service.start({ USERWIRE_UPGRADES_PER_SECOND: "1" });
  using _clock = new StandingClock();
  const codes = [];
  for (let i = 0; i < 3; i++) codes.push((await ask(service, "?username=alice")).code);
  assertEquals(codes, ["upgrade_required", "upgrade_required", "too_many_requests"]);
});
