/** Which question an answer on a shared connection belongs to, and what the answer says of the connection; on no Redis. */
import { assertEquals, assertMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { SharedChannel } from "../../src/broker/shared_channel.ts";
import { SharedCommands } from "../../src/broker/shared_commands.ts";
import { PLAIN, type PubSubWords, SHARDED } from "../../src/redis/pubsub_words.ts";
import { encodeCommand, ReplyError } from "../../src/redis/resp.ts";
import { slotOf } from "../../src/redis/slots.ts";

class World {
  readonly done: string[] = [];
  readonly taken: string[] = [];
  readonly refused: [names: string[], reason: string][] = [];
  readonly commands: SharedCommands;

  constructor(words: PubSubWords = PLAIN) {
    this.commands = new SharedCommands({
      onDone: ({ name }) => this.done.push(name),
      onRefused: (channels, reason) => this.refused.push([channels.map(({ name }) => name), reason]),
      onTaken: (name) => this.taken.push(name),
    }, words);
  }

  join(channels: SharedChannel[]): string {
    return String(Buffer.from(this.commands.make({ leave: [], join: channels })));
  }

  leave(channels: SharedChannel[]): string {
    return String(Buffer.from(this.commands.make({ leave: channels, join: [] })));
  }

  answer(kind: string, name: string): string | undefined {
    return this.commands.take([Buffer.from(kind), Buffer.from(name), 1]);
  }
}

const named = (...names: string[]) => names.map((name) => new SharedChannel(name));
const wire = (...words: string[]) => String(Buffer.from(encodeCommand(...words)));

Deno.test("SharedCommands gives each answer to the first command that has not all of its own", () => {
  const world = new World();
  const [a, b, c] = named("a", "b", "c") as [SharedChannel, SharedChannel, SharedChannel];
  assertEquals(world.join([a, b]), wire("SUBSCRIBE", "a", "b"));
  world.commands.ping();
  assertEquals(world.leave([a]), wire("UNSUBSCRIBE", "a"));
  world.join([c]);
  assertEquals([a.sent, a.due, b.sent, b.due], ["unsubscribe", 2, "subscribe", 1]);
  for (const name of ["a", "b"]) assertEquals(world.answer("subscribe", name), undefined);
  assertEquals(world.commands.take([Buffer.from("pong"), Buffer.from("")]), undefined);
  assertEquals(world.answer("unsubscribe", "a"), undefined);
  assertEquals(world.answer("subscribe", "c"), undefined);
  assertEquals(world.done, ["a", "b", "a", "c"]);
  world.join([c]);
  assertMatch(world.answer("subscribe", "a") ?? "", /another order/);
});

Deno.test("SharedCommands takes a refusal for that of a whole command, and every other error for the end", () => {
  const world = new World();
  world.join(named("a", "b"));
  assertEquals(world.commands.take(new ReplyError("NOPERM no channels")), undefined);
  assertEquals(world.refused, [[["a", "b"], "NOPERM no channels"]]);
  world.join(named("c"));
  assertEquals(world.commands.take(new ReplyError("ERR out of order")), "Redis says: ERR out of order");
  const leaving = new World();
  leaving.leave(named("a"));
  assertEquals(leaving.commands.take(new ReplyError("NOPERM no")), "Redis says: NOPERM no");
  assertEquals(new World().commands.take(new ReplyError("NOPERM no")), "Redis says: NOPERM no");
  assertEquals([world.refused.length, leaving.refused], [1, []]);
});

Deno.test("SharedCommands asks for 500 channels at a time, and for one that was refused alone", () => {
  const world = new World();
  const names = Array.from({ length: 501 }, (_, i) => `c${i}`);
  const channels = named(...names);
  assertEquals(world.join(channels), wire("SUBSCRIBE", ...names.slice(0, 500)) + wire("SUBSCRIBE", "c500"));
  channels[1]!.isSuspect = true;
  const asked = world.join(channels.slice(0, 3));
  assertEquals(asked, wire("SUBSCRIBE", "c0", "c2") + wire("SUBSCRIBE", "c1"));
});

/** How Redis says, unasked, that another master has a channel, and how it refuses what is about one. */
const TAKEN = "sunsubscribe";
const moved = (name: string) => new ReplyError(`MOVED ${slotOf(name)} 127.0.0.1:7001`);

Deno.test("SharedCommands on a cluster names one channel in each command, with its own words", () => {
  const world = new World(SHARDED);
  const [a, b] = named("a", "b") as [SharedChannel, SharedChannel];
  assertEquals(world.join([a, b]), wire("SSUBSCRIBE", "a") + wire("SSUBSCRIBE", "b"));
  assertEquals(world.leave([a, b]), wire("SUNSUBSCRIBE", "a") + wire("SUNSUBSCRIBE", "b"));
  for (const kind of ["ssubscribe", TAKEN]) {
    for (const name of ["a", "b"]) assertEquals(world.answer(kind, name), undefined);
  }
  assertEquals([world.done, world.taken, a.sent, a.due], [["a", "b", "a", "b"], [], "unsubscribe", 2]);
});

Deno.test("SharedCommands takes what was not asked for no answer, wherever it comes", () => {
  const nothing = new World(SHARDED);
  assertEquals([nothing.answer(TAKEN, "a"), nothing.taken, nothing.done], [undefined, ["a"], []]);

  const subscribing = new World(SHARDED);
  subscribing.join(named("a", "b"));
  for (const name of ["c", "a"]) assertEquals(subscribing.answer(TAKEN, name), undefined);
  assertEquals(subscribing.answer("ssubscribe", "a"), undefined);
  assertEquals(subscribing.answer(TAKEN, "a"), undefined);
  assertEquals(subscribing.answer("ssubscribe", "b"), undefined);
  assertEquals([subscribing.taken, subscribing.done], [["c", "a", "a"], ["a", "b"]]);

  const leaving = new World(SHARDED);
  leaving.leave(named("a"));
  assertEquals([leaving.answer(TAKEN, "é☃"), leaving.answer(TAKEN, "a")], [undefined, undefined]);
  assertEquals([leaving.taken, leaving.done], [["é☃"], ["a"]]);

  const pinging = new World(SHARDED);
  pinging.commands.ping();
  pinging.join(named("b"));
  assertEquals(pinging.answer(TAKEN, "a"), undefined);
  assertEquals(pinging.commands.take([Buffer.from("pong"), Buffer.from("")]), undefined);
  assertEquals(pinging.answer("ssubscribe", "b"), undefined);
  assertEquals([pinging.taken, pinging.done], [["a"], ["b"]]);
});

Deno.test("SharedCommands loses one channel, and not the connection, when another master has it", () => {
  const world = new World(SHARDED);
  world.join(named("a", "b"));
  assertEquals(world.commands.take(moved("a")), undefined);
  assertEquals(world.answer("ssubscribe", "b"), undefined);
  for (const text of ["CLUSTERDOWN The cluster is down", "TRYAGAIN Multiple keys", "ASK 1 127.0.0.1:7001"]) {
    world.join(named("c"));
    assertEquals(world.commands.take(new ReplyError(text)), undefined, text);
  }
  assertEquals(world.refused.map(([names]) => names), [["a"], ["c"], ["c"], ["c"]]);
  assertEquals(world.done, ["b"]);
});

Deno.test("SharedCommands has left a channel that another master has, whether or not that was said before", () => {
  // Asked for and left at once, when the slot was away already.
  const away = new World(SHARDED);
  const [a] = named("a") as [SharedChannel];
  away.join([a]);
  away.leave([a]);
  assertEquals([away.commands.take(moved("a")), away.commands.take(moved("a"))], [undefined, undefined]);
  assertEquals([away.refused.length, away.done], [1, ["a"]]);

  // The slot went while it was being left: Redis says that unasked, and then refuses the command.
  for (const next of ["join", "leave", "ping", "nothing"] as const) {
    const world = new World(SHARDED);
    world.leave(named("a"));
    if (next === "ping") world.commands.ping();
    else if (next !== "nothing") world[next](named("b"));
    assertEquals(world.answer(TAKEN, "a"), undefined);
    assertEquals(world.commands.take(moved("a")), undefined, next);
    if (next === "ping") assertEquals(world.commands.take([Buffer.from("pong"), Buffer.from("")]), undefined);
    if (next === "join") assertEquals(world.answer("ssubscribe", "b"), undefined);
    if (next === "leave") assertEquals(world.answer(TAKEN, "b"), undefined);
    const left = next === "join" || next === "leave" ? ["a", "b"] : ["a"];
    assertEquals([world.done, world.taken, world.refused], [left, [], []], next);
  }
  // And it is wanted again: that is refused as well.
  const again = new World(SHARDED);
  const [b] = named("b") as [SharedChannel];
  again.leave([b]);
  again.join([b]);
  assertEquals(again.answer(TAKEN, "b"), undefined);
  for (const _ of ["leave", "join"]) assertEquals(again.commands.take(moved("b")), undefined);
  assertEquals([again.done, again.refused.map(([names]) => names)], [["b"], [["b"]]]);
});
