/** The client's position beyond the end of its program. */
import { assertEquals, assertStrictEquals } from "@std/assert";
import { type Store, storedIn } from "../../src/client/mod.ts";
import { Saving } from "../../src/client/store.ts";
import { connectAlice, Inbox, watchAlice } from "../../testkit/client_watch.ts";
import { Bell, until } from "../../testkit/deadline.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

/** A store whose saves take as long as the test wants. */
class SlowStore implements Store {
  readonly saves: string[] = [];
  saved: string | undefined;
  readonly bell = new Bell();
  #done = Promise.withResolvers<void>();

  load(): string | undefined {
    return this.saved;
  }

  async save(position: string): Promise<void> {
    this.saves.push(position);
    this.bell.ring();
    await this.#done.promise;
    this.saved = position;
  }

  finish(): void {
    this.#done.resolve();
  }
}

Deno.test("Client saves its position as it moves, one save at a time, and the last before it is closed", async () => {
  await using server = new ScriptedServer();
  const store = new SlowStore();
  const client = connectAlice(server.url, { store });
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi({ pos: "e.7" });
  await store.bell.until(() => store.saves.length === 1, "a save");
  assertEquals(store.saves, ["e.7"], "Also where nothing was received yet");
  for (const seq of [8, 9, 10]) socket.message(seq);
  await inbox.received(3);
  assertEquals(store.saves, ["e.7"]);
  let isClosed = false;
  void client.close().then(() => isClosed = true);
  await socket.closed;
  // By the time that another client has come and gone, this one's socket is closed at both ends.
  const other = connectAlice(server.url);
  (await server.next()).hi();
  await until(() => other.state === "open", "the other client to be open");
  await other.close();
  assertEquals(isClosed, false);
  store.finish();
  await client.closed;
  assertEquals([store.saves, store.saved], [["e.7", "e.10"], "e.10"]);

  const again = connectAlice(server.url, { store });
  assertEquals((await server.next()).resume, "e.10");
  await again.close();
  const elsewhere = connectAlice(server.url, { store, resume: "e.3" });
  assertEquals((await server.next()).resume, "e.3", "What the application says wins");
  await elsewhere.close();
});

Deno.test("Client waits for its store, however often the network flickers meanwhile", async () => {
  await using server = new ScriptedServer();
  const loading = Promise.withResolvers<string>();
  const bell = new Bell();
  let loads = 0;
  const saves: string[] = [];
  const store: Store = {
    load() {
      loads++;
      bell.ring();
      return loading.promise;
    },
    save: (position) => void saves.push(position),
  };
  const { client, watch } = watchAlice(server.url, { store });
  await bell.until(() => loads === 1, "the store to be asked");
  dispatchEvent(new Event("offline"));
  dispatchEvent(new Event("online"));
  await watch.state("connecting");
  // A client that did not wait would be there before this one.
  const other = connectAlice(server.url);
  (await server.next()).hi();
  await until(() => other.state === "open", "the other client to be open");
  await other.close();
  assertEquals(server.attempts, 1);
  loading.resolve("e.90");
  const socket = await server.next();
  assertEquals(socket.resume, "e.90");
  socket.hi({ pos: "e.90", resumed: true });
  await watch.state("open");
  assertEquals([client.position, loads], ["e.90", 1]);
  await client.close();
  assertEquals(saves, []);
});

Deno.test("Client does not connect without the answer of its store, says so, and takes it when it comes", async () => {
  await using server = new ScriptedServer();
  const loading = Promise.withResolvers<string>();
  let loads = 0;
  const store: Store = {
    load() {
      loads++;
      return loading.promise;
    },
    save() {},
  };
  const { client, watch } = watchAlice(server.url, { store, timeoutMs: 20 });
  await watch.losses(2);
  const reason = "Can't load the position: the store has not answered for 0.02 s";
  assertEquals(watch.errors.slice(0, 2), [reason, reason]);
  assertEquals(watch.lost.slice(0, 2).map((lost) => [lost.code, lost.reason]), [[1006, reason], [
    1006,
    reason,
  ]]);
  assertEquals(server.attempts, 0);
  loading.resolve("e.90");
  assertEquals((await server.next()).resume, "e.90");
  await client.close();
  assertEquals(loads, 1);

  const hanging = watchAlice(server.url, { store: { load: () => new Promise(() => {}), save() {} } });
  await hanging.client.close();
});

Deno.test("Client goes on without a store that fails, and says so", async () => {
  await using server = new ScriptedServer();
  const failing = (what: string) => () => Promise.reject(new Error(`no ${what}`));
  const client = connectAlice(server.url, { store: { load: failing("load"), save: failing("save") } });
  const inbox = new Inbox(client);
  const socket = await server.next();
  assertStrictEquals(socket.resume, null);
  socket.hi({ pos: "e.0" });
  await inbox.failures(2);
  socket.message(1);
  await inbox.failures(3);
  await client.close();
  assertEquals(inbox.errors, [
    "Can't load the position: no load",
    "Can't save the position: no save",
    "Can't save the position: no save",
  ]);

  const odd = connectAlice(server.url, { store: { load: () => "what is this", save() {} } });
  const { errors } = new Inbox(odd);
  assertStrictEquals((await server.next()).resume, null);
  assertEquals(errors, ['The store has "what is this", which is no position']);
  await odd.close();
});

Deno.test("storedIn keeps the position under its key in a storage of the browser", async () => {
  await using server = new ScriptedServer();
  const items = new Map<string, string>();
  const storage = {
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
  };
  const client = connectAlice(server.url, { store: storedIn(storage, "alice") });
  const first = await server.next();
  assertStrictEquals(first.resume, null);
  first.hi({ pos: "e.5" });
  await until(() => items.size > 0, "a position");
  assertEquals([...items], [["alice", "e.5"]]);
  await client.close();
  const again = connectAlice(server.url, { store: storedIn(storage, "alice") });
  assertEquals((await server.next()).resume, "e.5");
  await again.close();
});

Deno.test("Client saves only the last of the positions through which it goes at one moment", async () => {
  const saves: string[] = [];
  const store: Store = { load: () => undefined, save: (position) => void saves.push(position) };
  const saving = new Saving(store, () => {});
  for (let seq = 1; seq <= 100; seq++) saving.save(`e.${seq}`);
  await saving.done;
  saving.save("e.100");
  await saving.done;
  saving.save("e.101");
  await saving.done;
  assertEquals(saves, ["e.100", "e.101"]);
});
