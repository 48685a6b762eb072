/**
 * Waits in vain with everything in this folder that waits, and writes what each error says, as JSON. For a process of its
 * own with a small TEST_TIME_FACTOR (`deadline_test.ts`): in others what is waited for has time.
 */
import { Service, Truth } from "./service.ts";
import { Terminal } from "./cli_terminal.ts";
import { connectAlice, flush, Inbox, take } from "./client_watch.ts";
import { Bell, until, withDeadline } from "./deadline.ts";
import { connectFake } from "./fake_socket.ts";
import { Follower } from "./follower.ts";
import { ProcessService } from "./process_service.ts";
import { OPCODE, RawSocket } from "./raw_socket.ts";
import { Recorder } from "./recorder.ts";
import { RedisCommands } from "./redis_commands.ts";
import { RedisServer } from "./redis_server.ts";
import { ScriptedServer } from "./scripted_server.ts";
import { openClient } from "./ws_client.ts";

const factor = Deno.env.get("TEST_TIME_FACTOR")!;
/** What is to come about has time. */
Deno.env.delete("TEST_TIME_FACTOR");

const said: Record<string, string> = {};

async function vain(name: string, wait: () => Promise<unknown>): Promise<void> {
  Deno.env.set("TEST_TIME_FACTOR", factor);
  const waiting = wait();
  Deno.env.delete("TEST_TIME_FACTOR");
  said[name] = await waiting.then(() => "it did not wait in vain", (error) => String(error));
}

const never = new Promise<never>(() => {});

await vain("withDeadline", () => withDeadline(never, 20_000, "the end", () => "there is none"));
await vain("until", () => until(() => false, "the end", undefined, () => ({ count: 1 })));
await vain("until, of a question without an answer", () => until(() => never, "the end"));
await vain("Bell.until", () => new Bell().until(() => false, "the end"));

{
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  const truth = new Truth(redis);
  await using client = await openClient(service.socketUrl("alice"));
  await truth.untilCount("alice", 1);
  await vain("Truth.untilCount", () => truth.untilCount("alice", 2));
  await vain("Truth.isEmpty", () => truth.isEmpty());
  await vain("Service.isEmpty", () => service.isEmpty());
  await vain("RedisServer.copied", () => redis.copied());
  await vain("WsClient.next", () => client.next(20_000));
  {
    await using follower = await Follower.open(service.socketUrl("alice"));
    await vain("Follower.reaches", () => follower.reaches(7));
    await vain("Follower.accountsFor", () => follower.accountsFor([{ id: "a", epoch: "e", seq: 7 }]));
    await using raw = await RawSocket.open(service.socketUrl("alice"));
    await vain("RawSocket.readFrame", () => raw.readFrame());
    await vain("RawSocket.readText", () => raw.readText(OPCODE.text));
  }
  {
    using mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const url = `ws://127.0.0.1:${mute.addr.port}/`;
    await using raw = await RawSocket.dial(url);
    await vain("RawSocket.readAnswer", () => raw.readAnswer());
    using commands = await RedisCommands.connect({ port: mute.addr.port });
    await vain("RedisCommands.command", () => commands.command("PING"));
  }
  {
    const recorder = new Recorder();
    await vain("Recorder.received", () => recorder.received(1));
    await vain("Recorder.isLost", () => recorder.isLost());
    await vain("Recorder.isRestored", () => recorder.isRestored());
  }
  {
    await using server = new ScriptedServer();
    await vain("ScriptedServer.next", () => server.next(20_000));
    await vain("ScriptedServer.attempted", () => server.attempted(3, 20_000));
    await using alice = connectAlice(server.url);
    const inbox = new Inbox(alice);
    const socket = await server.next();
    await vain("ScriptedSocket.received", () => socket.received(3, 20_000));
    await vain("Watch.state", () => inbox.state("open"));
    await vain("Watch.losses", () => inbox.losses(1));
    await vain("Watch.failures", () => inbox.failures(1));
    await vain("Watch.closed", () => inbox.closed());
    await vain("Inbox.received", () => inbox.received(1));
    const { client: fake, socket: nth } = connectFake();
    await vain("connectFake.socket", () => nth(2));
    await vain("flush", () => flush(fake, { send() {} } as never));
    await vain("take", () => take(fake[Symbol.asyncIterator]()));
    await fake.close();
  }
  {
    await using process = await ProcessService.start();
    await vain("ProcessService.logged", () => process.logged("no such event"));
    await vain("ProcessService.ended", () => process.ended());
  }
  await vain("Terminal.until", () => new Terminal().until("a text"));
}
console.log(JSON.stringify(said));
// Not before all that was started has ended: what waits for ever would keep this going.
Deno.exit(0);
