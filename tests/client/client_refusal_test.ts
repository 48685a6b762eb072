/** What a client finds out when its handshakes are refused, and how often it asks. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { connect, type RefusedError } from "../../src/client/mod.ts";
import { QUICK, Watch, watchAlice } from "../../testkit/client_watch.ts";
import { CLOSED, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";
import { Service } from "../../testkit/service.ts";

/** The first reason that a client of this service is given. */
async function reasonOf(service: Service, token?: string): Promise<RefusedError> {
  const identity = token === undefined ? { user: "alice" } : { token: () => Promise.resolve(token) };
  await using client = connect(service.server.url, { ...identity, backoff: QUICK });
  return await new Promise((resolve) => client.on("error", (error) => resolve(error as RefusedError)));
}

Deno.test("A client that is refused is told why, in the words of the service", async () => {
  await using service = await Service.start({
    ...CLOSED,
    USERWIRE_ON_TOO_MANY: "refuse",
    USERWIRE_MAX_CONNECTIONS_PER_USER: "1",
  });
  const nameless = await reasonOf(service);
  assertEquals([nameless.code, nameless.status], ["unauthorized", 401]);
  assertMatch(
    nameless.message,
    /^The service refuses to connect: Names are not taken on trust here: show a token/,
  );
  const forged = await reasonOf(service, "a.b.c");
  assertEquals([forged.code, forged.status], ["unauthorized", 401]);
  const token = await tokenFor("alice");
  await using first = connect(service.server.url, { token: () => Promise.resolve(token) });
  await new Watch(first).state("open");
  const second = await reasonOf(service, token);
  assertEquals([second.code, second.status], ["too_many_connections", 429]);
  // The questions are no news for the operator: each refusal was logged as a handshake.
  assertEquals(service.logged("call refused"), []);
});

Deno.test("A client that would be let in learns that something in between keeps it out", async () => {
  await using service = await Service.start();
  // Refuses handshakes and passes everything else on, as a proxy does that knows no upgrades.
  const proxy = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    if (request.headers.has("upgrade")) return new Response(null, { status: 400 });
    const { pathname, search } = new URL(request.url);
    return fetch(new URL(pathname + search, service.server.url), { headers: request.headers });
  });
  {
    await using client = connect(`http://127.0.0.1:${proxy.addr.port}`, {
      ...{ user: "alice", backoff: QUICK, transport: "websocket" },
    });
    const watch = new Watch(client);
    await watch.failures(1);
    assertMatch(watch.errors[0]!, /would be let in.*proxy in between must .* pass Upgrade/);
  }
  await proxy.shutdown();
});

Deno.test("A client that has been in, and would be let in, is told of no proxy", async () => {
  await using service = await Service.start();
  const { port } = service.server;
  let passes = true;
  let refused = 0;
  let asked = 0;
  const proxy = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    if (!request.headers.has("upgrade")) {
      asked++;
      return await fetch(new URL(pathname + search, service.server.url), { headers: request.headers });
    }
    if (!passes) {
      refused++;
      return new Response(null, { status: 502 });
    }
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    const behind = new WebSocket(`ws://127.0.0.1:${port}${pathname}${search}`, "userwire.v1");
    behind.onmessage = ({ data }) => socket.send(data);
    behind.onclose = () => socket.close();
    socket.onclose = () => behind.close();
    return response;
  });
  {
    await using client = connect(`http://127.0.0.1:${proxy.addr.port}`, {
      ...{ user: "alice", backoff: QUICK, transport: "websocket" },
    });
    const watch = new Watch(client);
    await watch.state("open");
    passes = false;
    await service.fetch("/v1/users/alice/connections?code=4503", { method: "DELETE" }).then((response) =>
      response.body?.cancel()
    );
    await until(() => asked >= 1 && refused >= 8, "it to have asked");
    passes = true;
    await watch.state("open");
    assertEquals(watch.errors, []);
  }
  await proxy.shutdown();
});

const CAPTIVE: [what: string, answer: () => Response, says: RegExp][] = [
  [
    "a page",
    () => new Response("<!doctype html>Log in", { headers: { "content-type": "text/html" } }),
    /with 200, text\/html/,
  ],
  ["a redirection", () => Response.redirect("http://portal.example/", 302), /with a redirection/],
  [
    "a gateway's error",
    () => new Response("no", { status: 502, headers: { "content-type": "text/html" } }),
    /with 502/,
  ],
  [
    "a problem of somebody else",
    () => new Response("{", { headers: { "content-type": "application/problem+json" } }),
    /can't be read/,
  ],
];
for (const [what, answer, says] of CAPTIVE) {
  Deno.test(`A client that meets ${what} in place of the service says so, and is in when that is gone`, async () => {
    await using server = new ScriptedServer();
    server.answer = answer;
    server.refuse(200);
    const { client, watch } = watchAlice(server.url);
    await using _ = client;
    const socket = await server.next();
    await watch.failures(1);
    assertMatch(watch.errors[0]!, says);
    assertMatch(watch.errors[0]!, /login page of a network/);
    socket.hi({ pos: "e.0" });
    await watch.state("open");
  });
}

Deno.test("A client asks ever more rarely, and tells the same reason once until it was in", async () => {
  await using server = new ScriptedServer();
  server.answer = () =>
    Response.json({ code: "full", detail: "No room" }, {
      status: 503,
      headers: { "content-type": "application/problem+json" },
    });
  server.refuse(...Array(20).fill(503));
  const { client, watch } = watchAlice(server.url);
  await using _ = client;
  const socket = await server.next();
  // At the failures 1, 2, 4, 8 and 16; an answer that is not there when the next is asked for is not waited for.
  assert(server.questions.length <= 5, `${server.questions.length} questions`);
  socket.hi({ pos: "e.0" });
  await watch.state("open");
  assertEquals(watch.errors, ["The service refuses to connect: No room"]);
  const before = server.questions.length;
  server.refuse(503, 503, 503);
  socket.close(1012);
  (await server.next()).hi({ pos: "e.0" });
  await watch.state("open");
  assertEquals(server.questions.length, before, "who was in is patient");
});

Deno.test("A client shows its token where it asks, and nothing of it where it tells", async () => {
  await using server = new ScriptedServer();
  server.refuse(401);
  const client = connect(`${server.url}/ws?tenant=1`, {
    token: () => Promise.resolve("secret-token"),
    backoff: QUICK,
  });
  await using _ = client;
  const watch = new Watch(client);
  const socket = await server.next();
  // Who is in asks no more.
  await until(() => server.questions.length > 0, "the question");
  socket.hi({ pos: "e.0" });
  await watch.state("open");
  const [question] = server.questions;
  assertEquals(question!.url.search, "?tenant=1");
  assertEquals(question!.headers.get("authorization"), "Bearer secret-token");
  assert(!watch.errors.join().includes("secret"));
});
