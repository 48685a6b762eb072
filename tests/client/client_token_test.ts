/** The client's tokens: how they travel, when a new one is asked for, and when that is given up. */
import { assertEquals } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { connectAlice, flush, QUICK, Watch } from "../../testkit/client_watch.ts";
import { CLOSED, KEY } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";
import { Service } from "../../testkit/service.ts";

Deno.test("Client offers its token as a subprotocol, and asks for a new one before every attempt", async () => {
  await using server = new ScriptedServer();
  const tokens = ["eyJ.a-b_c.d", "ü~~>>??ÿ"];
  await using client = connect(server.url, {
    token: () => Promise.resolve(tokens.shift()!),
    backoff: QUICK,
  });
  const first = await server.next();
  assertEquals(first.protocols, ["userwire.v1", "userwire.bearer.ZXlKLmEtYl9jLmQ"]);
  assertEquals(first.url.search, "");
  first.hi({ pos: "e.3" });
  first.close(1012);
  const second = await server.next();
  // In UTF-8 it has both letters that base64url has in place of others.
  assertEquals(second.protocols, ["userwire.v1", "userwire.bearer.w7x-fj4-Pz_Dvw"]);
  assertEquals(second.url.search, "?resume=e.3");
  await client.close();
});

Deno.test("Client exchanges an expired token once, and stops when the new one is refused too", async () => {
  await using server = new ScriptedServer();
  let count = 0;
  const client = connect(server.url, { token: () => Promise.resolve(`t${++count}`), backoff: QUICK });
  const first = await server.next();
  first.hi({ pos: "e.0" });
  first.close(4401, "token_expired");
  const second = await server.next();
  assertEquals(second.protocols[1], `userwire.bearer.${btoa("t2").replaceAll("=", "")}`);
  assertEquals(second.resume, "e.0");
  second.hi({ pos: "e.0" });
  second.close(4401, "token_expired");
  assertEquals(await new Watch(client).closed(), { code: 4401, reason: "token_expired" });
  assertEquals(server.attempts, 2);
});

Deno.test("Client exchanges an expired token again after a steady connection, also by word of a bye", async () => {
  await using server = new ScriptedServer();
  await using client = connect(server.url, {
    token: () => Promise.resolve("t"),
    backoff: { ...QUICK, steadyMs: 0 },
  });
  for (let round = 0; round < 3; round++) {
    const socket = await server.next();
    socket.hi();
    socket.send({ t: "bye", code: 4401, why: "token_expired" });
    socket.close(4401);
  }
  (await server.next()).hi();
  await until(() => client.state === "open", "the client to be open");
});

Deno.test("Client stops when its token is refused for another reason, or it has none to exchange", async () => {
  await using server = new ScriptedServer();
  const withToken = connect(server.url, { token: () => Promise.resolve("t"), backoff: QUICK });
  (await server.next()).close(4401, "bad signature");
  assertEquals((await new Watch(withToken).closed()).reason, "bad signature");
  const withName = connectAlice(server.url);
  (await server.next()).close(4401, "token_expired");
  assertEquals((await new Watch(withName).closed()).reason, "token_expired");
  assertEquals(server.attempts, 2);
});

Deno.test("Client tries again when no token can be had, and says so", async () => {
  await using server = new ScriptedServer();
  let count = 0;
  const client = connect(server.url, {
    token: () => ++count < 3 ? Promise.reject(new Error("no network")) : Promise.resolve("t"),
    backoff: QUICK,
  });
  const watch = new Watch(client);
  await using _ = client;
  await server.next();
  assertEquals(watch.errors, ["Can't get a token: no network", "Can't get a token: no network"]);
  assertEquals(watch.lost.map(({ code, opened }) => [code, opened]), [[1006, false], [1006, false]]);
  assertEquals(server.attempts, 1);
});

Deno.test("Client gives up an attempt whose token does not come, says so, and does not use it later", async () => {
  await using server = new ScriptedServer();
  // Its time is up when the test says so, and that of the next attempt never is.
  using times = new HeldTimers(200);
  const late = Promise.withResolvers<string>();
  let count = 0;
  const client = connect(server.url, {
    token: () => ++count === 1 ? late.promise : Promise.resolve("t"),
    timeoutMs: 200,
    backoff: QUICK,
  });
  await using _ = client;
  const watch = new Watch(client);
  await until(() => times.count === 1, "the token to be waited for");
  times.run();
  const socket = await server.next();
  const reason = "Can't get a token: token() has not answered for 0.2 s";
  assertEquals(watch.errors, [reason]);
  assertEquals(watch.lost.map(({ code, reason, opened }) => [code, reason, opened]), [[1006, reason, false]]);
  socket.hi({ pos: "e.0" });
  await watch.state("open");
  late.resolve("late");
  await flush(client, socket);
  assertEquals([server.attempts, client.state], [1, "open"]);
});

Deno.test("Client says so when token() gives no text, instead of showing that to the server", async () => {
  await using server = new ScriptedServer();
  const tokens: unknown[] = [undefined, null, "", "t"];
  const client = connect(server.url, {
    token: () => Promise.resolve(tokens.shift() as string),
    backoff: QUICK,
  });
  await using _ = client;
  const watch = new Watch(client);
  await server.next();
  const error = "Can't get a token: token() must resolve to a string that is not empty";
  assertEquals(watch.errors, [error, error, error]);
  assertEquals(server.attempts, 1);
});

for (const [way, settings] of [["with keys only", {}], ["with tokens too", CLOSED]] as const) {
  Deno.test(`Client whose ticket is too old or used before it got in comes with a fresh one, ${way}`, async () => {
    await using service = await Service.start({ USERWIRE_API_KEYS: KEY.line, ...settings });
    const { auth } = service.server.app;
    const old = await auth.issueTicket("alice", 1);
    await auth.redeem(old);
    const tickets = [old, "x".repeat(43)];
    let asked = 0;
    const client = connect(service.server.url, {
      token: () => Promise.resolve(tickets[asked++] ?? auth.issueTicket("alice", 30)),
      backoff: QUICK,
    });
    await using _ = client;
    const watch = new Watch(client);
    await watch.state("open");
    assertEquals([asked, watch.lost.map(({ code, opened }) => [code, opened])], [
      3,
      [[1006, false], [1006, false]],
    ]);
  });
}
