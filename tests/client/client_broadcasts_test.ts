/** Broadcasts as the client has them, from a server that also breaks the rules. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { until } from "../../testkit/deadline.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

Deno.test("The client hands broadcasts over once, keeps their place beside its own, and resumes both", async () => {
  await using server = new ScriptedServer();
  const saved: string[] = [];
  const heard: unknown[] = [];
  const errors: string[] = [];
  await using client = connect(server.url, {
    user: "alice",
    backoff: { baseMs: 1, maxMs: 1 },
    store: { load: () => "e.4.tagtagE4,a.2", save: (place) => void saved.push(place) },
  });
  client.on("broadcast", ({ data, seq, replayed }) => heard.push([data, seq, replayed]));
  client.on("broadcastGap", ({ from, to, why }) => heard.push([why, from, to]));
  client.on("error", ({ message }) => errors.push(message));
  const first = await server.next();
  const query = () => new URL(first.url).searchParams;
  assertEquals([query().get("resume"), query().get("all")], ["e.4.tagtagE4", "a.2"]);
  first.hi({ pos: "e.4", all: "a.2" });
  first.send({ t: "b", seq: 3, tag: "tagtagA3", id: "i", ts: 1, data: "three", r: 1 });
  first.send({ t: "b", seq: 3, tag: "tagtagA3", id: "i", ts: 1, data: "three" });
  first.send({ t: "m", seq: 5, tag: "tagtagE5", id: "i", ts: 1, data: "own" });
  first.send({ t: "bgap", from: 4, to: 6, count: 3, why: "trimmed", pos: "a.6" });
  first.send({ t: "b", seq: 7, tag: "tagtagA7", id: "i", ts: 1, enc: "base64", data: "Af8=" });
  first.send({ t: "b", ts: 1, data: "bare" });
  first.send({ t: "b", seq: 9, tag: "tagtagA9", id: "i", ts: 1, data: "nine" });
  await until(() => heard.length === 5, "all broadcasts");
  assertEquals(heard, [
    ["three", 3, true],
    ["trimmed", 4, 6],
    [new Uint8Array([1, 255]), 7, false],
    ["bare", undefined, false],
    ["nine", 9, false],
  ]);
  // Nobody has taken her own message yet: it waits, and its place is not saved.
  assertEquals([client.position, client.broadcastPosition], ["e.4.tagtagE4", "a.9.tagtagA9"]);
  await until(() => saved.at(-1) === "e.4.tagtagE4,a.9.tagtagA9", "both places to be saved");
  client.on("message", () => {});
  await until(() => saved.at(-1) === "e.5.tagtagE5,a.9.tagtagA9", "both places to be saved");
  assertEquals(errors.splice(0), ["Broadcast 9 came after 7, and no gap was announced"]);

  first.close(1012);
  const second = await server.next();
  const again = new URL(second.url).searchParams;
  assertEquals([again.get("resume"), again.get("all")], ["e.5.tagtagE5", "a.9.tagtagA9"]);
  second.hi({ pos: "e.5", all: "b.0" });
  second.send({ t: "bgap", from: 10, to: null, count: null, why: "epoch", pos: "b.0" });
  second.send({ t: "b", seq: 1, tag: "tagtagB1", id: "i", ts: 1, data: "new" });
  second.send({ t: "bgap", from: 2, to: 2, count: 1, why: "trimmed", pos: "nowhere" });
  await until(() => errors.length === 1, "the broken gap to be noticed");
  assertEquals(heard.slice(5), [["epoch", 10, null], ["new", 1, false]]);
  assertMatch(errors[0]!, /"nowhere", which is no position/);
});

Deno.test("The client starts where the server says, asks for nothing an old server does not know, and takes old stores", async () => {
  await using server = new ScriptedServer();
  for (
    const [stored, asked, all, place, error] of [
      [undefined, [null, null], "a.7", "a.7", undefined],
      ["e.4.tagtagE4", ["e.4.tagtagE4", null], undefined, undefined, undefined],
      [",a.2", [null, "a.2"], "a.2", "a.2", undefined],
      ["e.4,?", ["e.4", null], "a.7", "a.7", /has "e.4,\?"/],
      ["", [null, null], "a.7", "a.7", /has ""/],
    ] as const
  ) {
    const errors: string[] = [];
    await using client = connect(server.url, {
      user: "alice",
      store: { load: () => stored, save() {} },
    });
    client.on("error", ({ message }) => errors.push(message));
    const socket = await server.next();
    const { searchParams } = new URL(socket.url);
    assertEquals([searchParams.get("resume"), searchParams.get("all")], [...asked]);
    socket.hi({ pos: "e.4", ...(all !== undefined && { all }) });
    await until(() => client.state === "open", "the client to be open");
    assertEquals([client.broadcastPosition, errors.length], [place, error ? 1 : 0]);
    if (error) assertMatch(errors[0]!, error);
  }
  assertThrows(
    () => connect(server.url, { user: "alice", resumeBroadcasts: "17" }),
    TypeError,
    'Can\'t resume from "17": give what "broadcastPosition" was',
  );
});
