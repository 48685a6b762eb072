/** What `connect` is given: addresses, names, types, and what it refuses. */
import { assertEquals, assertThrows } from "@std/assert";
import { socketUrl } from "../../src/client/address.ts";
import { connect, InvalidUsernameError } from "../../src/client/mod.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

Deno.test("Client finds the sockets of every form of address", () => {
  for (
    const [given, found] of [
      ["ws://host", "ws://host/ws"],
      ["wss://host/", "wss://host/ws"],
      ["wss://host/ws", "wss://host/ws"],
      ["http://host:8765", "ws://host:8765/ws"],
      ["HTTPS://host/push/ws?tenant=1#part", "wss://host/push/ws?tenant=1"],
      ["http://[::1]:80/", "ws://[::1]/ws"],
    ] as const
  ) assertEquals(socketUrl(given), found);
  assertEquals(socketUrl(new URL("https://host")), "wss://host/ws");
  for (const given of ["host", "/ws", "ftp://host", ""]) {
    assertThrows(() => socketUrl(given), TypeError, `Can't connect to "${given}"`);
  }
});

Deno.test("Client finds what is relative to its page", () => {
  Object.defineProperty(globalThis, "location", {
    value: { href: "https://example.com/app/page?x#y" },
    configurable: true,
  });
  try {
    assertEquals(socketUrl("/"), "wss://example.com/ws");
    assertEquals(socketUrl("/push/ws"), "wss://example.com/push/ws");
    assertEquals(socketUrl("//other.example"), "wss://other.example/ws");
  } finally {
    delete (globalThis as { location?: unknown }).location;
  }
});

Deno.test("connect refuses at once what a server would refuse for ever", () => {
  const { WebSocket } = globalThis;
  assertThrows(() => connect("http://host", { user: "two words" }), InvalidUsernameError);
  assertThrows(
    () => connect("http://host", { user: "a", resume: "17" }),
    TypeError,
    `Can't resume from "17"`,
  );
  assertThrows(() => connect("mailto:a@b", { user: "a" }), TypeError, "scheme must be");
  // It would let in once, and no browser tells the refusal of the second time from a network that is down.
  assertThrows(
    () => connect("wss://host/ws?ticket=t", { user: "a" }),
    TypeError,
    "as `token` a function that gets a fresh ticket",
  );
  try {
    delete (globalThis as { WebSocket?: unknown }).WebSocket;
    const options = { user: "a", transport: "websocket" } as const;
    assertThrows(() => connect("http://host", options), TypeError, "There is no WebSocket here");
  } finally {
    globalThis.WebSocket = WebSocket;
  }
});

Deno.test("Client keeps the name of its user as it is", async () => {
  await using server = new ScriptedServer();
  await using _ = connect(`${server.url}/?keep=1?&username=bob`, { user: "Zoë/&=+?#%" });
  const { searchParams, pathname } = (await server.next()).url;
  assertEquals([pathname, searchParams.get("keep")], ["/ws", "1?"]);
  assertEquals(searchParams.get("username"), "Zoë/&=+?#%");
});

Deno.test("Client's messages have the type that the caller names", async () => {
  await using server = new ScriptedServer();
  await using client = connect<{ order: number }>(server.url, { user: "alice" });
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1, { data: { order: 7 } });
  for await (const { data } of client) {
    const order: number = data.order;
    assertEquals(order, 7);
    break;
  }
});
