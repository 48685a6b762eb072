/** Where one Redis is dialled: at a URL, or at the one that a file holds now. */
import { assertEquals, assertThrows } from "@std/assert";
import { memoryLog } from "../../testkit/memory_log.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { Standalone } from "../../src/redis/standalone.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

/** A topology over a file, what it says of changes, and what it logs. */
class World implements Disposable {
  readonly folder = new TempFolder("standalone");
  readonly file = `${this.folder}/redis-url`;
  readonly log = memoryLog();
  readonly changes: string[] = [];
  readonly topology: Standalone;

  constructor(url: string) {
    this.write(url);
    this.topology = new Standalone(new UrlSource({ file: this.file, log: this.log }));
    this.topology.onChange((reason) => this.changes.push(reason));
  }

  write(url: string): void {
    Deno.writeTextFileSync(this.file, `${url}\n`);
  }

  get place(): string {
    const { hostname, port, password } = this.topology.locate();
    return `${hostname}:${port} ${password}`;
  }

  [Symbol.dispose](): void {
    this.folder[Symbol.dispose]();
  }
}

Deno.test("A file is read again when it is reloaded, and only another place is a change", () => {
  using world = new World("redis://:old@here:1");
  const { topology, changes } = world;
  topology.reload();
  world.write("redis://:new@here:1");
  assertEquals(world.place, "here:1 old");
  topology.reload();
  assertEquals([world.place, changes], ["here:1 new", []]);
  world.write("redis://:new@there:1");
  topology.reload();
  assertEquals([world.place, changes], ["there:1 new", ["REDIS_URL_FILE names another Redis"]]);
  for (const wrong of ["redis://", "http://:hunter2@there:1", "redis://there/3"]) {
    world.write(wrong);
    const { message } = assertThrows(() => topology.reload(), ConfigError);
    assertEquals([message.includes("hunter2"), world.place], [false, "there:1 new"]);
  }
});

Deno.test("Refused logins have the file read once a second, and a fault of it is logged once", () => {
  using world = new World("redis://:old@here:1");
  using clock = new StandingClock();
  const { topology, log } = world;
  world.write("redis://:new@here:1");
  topology.loginRefused();
  assertEquals(world.place, "here:1 new");
  world.write("redis://:newer@here:1");
  clock.pass(999);
  topology.loginRefused();
  assertEquals(world.place, "here:1 new");
  clock.pass(1);
  topology.loginRefused();
  assertEquals(world.place, "here:1 newer");
  world.write("nonsense");
  for (let i = 0; i < 3; i++) {
    clock.pass(1_000);
    topology.loginRefused();
  }
  const events = log.records.map(({ level, event }) => `${level} ${event}`);
  assertEquals(events, [
    "info redis address reloaded",
    "info redis address reloaded",
    "error settings not reloaded",
  ]);
});

Deno.test("A topology over a URL has nothing to read again", () => {
  const topology = new Standalone(new UrlSource({ url: "redis://here" }));
  topology.onChange(() => {
    throw new Error("nothing changes");
  });
  topology.reload();
  topology.loginRefused();
  assertEquals(topology.locate().hostname, "here");
});
