/** Which question an answer on a shared connection belongs to, and what the answer says of the connection; on no Redis. */
import { assertEquals, assertMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { SharedChannel } from "../../src/broker/shared_channel.ts";
import { SharedCommands } from "../../src/broker/shared_commands.ts";
import { PLAIN, type PubSubWords } from "../../src/redis/pubsub_words.ts";
import { encodeCommand, ReplyError } from "../../src/redis/resp.ts";

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
