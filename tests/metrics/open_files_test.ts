/** File descriptors: how many there are, what happens when they run out, and that it passes. */
import { assert, assertEquals } from "@std/assert";
import { loadConfig } from "../../testkit/config.ts";
import { OpenFiles } from "../../src/metrics/open_files.ts";
import { serve } from "../../src/server/run.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const LIMIT = 256;
const isLinux = Deno.build.os === "linux"; // which has such limits, and says what a process has open

/** TCP connections that say nothing. */
class Silent implements Disposable {
  readonly #connections: Deno.Conn[] = [];

  /** Opens more of them; those that nobody takes don't matter. */
  async add(url: string, count: number): Promise<void> {
    const { hostname, port } = new URL(url);
    for (let i = 0; i < count; i++) {
      const connection = await Deno.connect({ hostname, port: Number(port) }).catch(() => undefined);
      if (connection) this.#connections.push(connection);
    }
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections.splice(0)) connection.close();
  }
}

async function metric(service: ProcessService, name: string): Promise<number> {
  const text = await (await fetch(`${service.url}metrics`)).text();
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
}

async function statusOf(url: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(url, init).catch(() => undefined);
  await response?.body?.cancel();
  return response?.status ?? 0;
}

for (const through of ["run", "task"] as const) {
  Deno.test({
    name: `Above nine tenths of its descriptors a service takes no more work, and says so: ${through}`,
    ignore: !isLinux,
    async fn() {
      await using service = await ProcessService.start({}, { through, openFiles: LIMIT });
      assertEquals(await metric(service, "userwire_open_files_limit"), LIMIT);
      const send = () => statusOf(`${service.url}v1/users/alice/messages`, { method: "POST", body: "1" });
      using silent = new Silent();
      await silent.add(service.url, Math.ceil(LIMIT * 0.93) - await metric(service, "userwire_open_files"));
      await until(async () => await metric(service, "userwire_open_files") > LIMIT * 0.9, "them to count");
      const response = await fetch(`${service.url}v1/users/alice`);
      const { code, detail } = await response.json();
      assertEquals([response.status, code, response.headers.get("retry-after")], [503, "out_of_files", "1"]);
      assert(detail.includes(`of ${LIMIT}`), detail);
      {
        await using socket = await RawSocket.open(service.socketUrl("alice"));
        assertEquals(socket.answer.status, 503);
      }
      const ready = await fetch(`${service.url}readyz`);
      assertEquals([ready.status, (await ready.json()).why], [
        503,
        detail.replace(/\d+ files/, /\d+ files/.exec(detail)![0]),
      ]);
      assertEquals(await statusOf(`${service.url}healthz`), 200);

      silent[Symbol.dispose]();
      await until(async () => await statusOf(`${service.url}readyz`) === 200, "it to be ready again");
      assertEquals(await send() < 300, true);
    },
  });
}

Deno.test({
  name: "When no descriptor is left, a service listens again once there is one; its sockets stay",
  ignore: !isLinux,
  async fn() {
    await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "1" }, { openFiles: LIMIT });
    await using alice = await RawSocket.open(service.socketUrl("alice"));
    using silent = new Silent();
    for (let round = 1; round <= 2; round++) {
      const ends = () =>
        service.records.filter(({ event }) => event.startsWith("not listening any more")).length;
      await until(async () => {
        await silent.add(service.url, 50);
        return ends() >= round;
      }, "Deno to stop listening");
      silent[Symbol.dispose]();
      await until(async () => await statusOf(`${service.url}healthz`) === 200, "it to listen again");
    }
    await service.logged("listening again");
    await until(async () => await statusOf(`${service.url}readyz`) === 200, "it to be ready");
    const sent = await fetch(`${service.url}v1/users/alice/messages`, {
      method: "POST",
      body: '"hello"',
      headers: { "content-type": "application/json" },
    });
    assertEquals((await sent.json()).sockets, 1);
    assertEquals(await alice.readText(), '"hello"');
    assertEquals(service.records.filter(({ event }) => event === "unexpected error"), []);
    service.signal("SIGTERM");
    assertEquals((await service.ended(10_000)).code, 0);
  },
});

/** What `Deno.serve` gave, so that it can end as Deno ends it, and a clock that can be put forward. */
class Inside implements Disposable {
  readonly servers: Deno.HttpServer<Deno.NetAddr>[] = [];
  tries = 0;
  readonly #serve = Deno.serve;
  readonly #now = performance.now;
  #aheadMs = 0;

  constructor() {
    const serve = this.#serve as (...args: unknown[]) => Deno.HttpServer<Deno.NetAddr>;
    Deno.serve = ((...args: unknown[]) => {
      this.tries++;
      const server = serve(...args);
      this.servers.push(server);
      return server;
    }) as typeof Deno.serve;
    performance.now = () => this.#now.call(performance) + this.#aheadMs;
  }

  pass(ms: number): void {
    this.#aheadMs += ms;
  }

  [Symbol.dispose](): void {
    Deno.serve = this.#serve;
    performance.now = this.#now;
  }
}

Deno.test("A service whose port was taken while it did not listen tries for half a minute, and then ends with 1", async () => {
  using inside = new Inside();
  using logs = new TempFolder("gone");
  const config = loadConfig({ env: { PORT: "0", USERWIRE_DRAIN_S: "0", LOG_DIR: logs.path } });
  const said = async (event: string) => {
    let text = "";
    for await (const { name } of Deno.readDir(logs.path)) {
      text += await Deno.readTextFile(`${logs.path}/${name}`);
    }
    return text.includes(event);
  };
  const ending = serve(config);
  await until(() => inside.servers.length === 1, "it to listen");
  const { addr: { hostname, port } } = inside.servers[0]!;
  await until(() => said('"listening"'), "it to say so");
  await inside.servers[0]!.shutdown();
  // Before it listens anew, a tenth of a second later.
  const other = Deno.listen({ hostname, port });
  let code: number | undefined;
  ending.then((ended) => code = ended);
  try {
    await until(() => said("not listening any more"), "it to notice");
    inside.pass(15_000);
    const { tries } = inside;
    await until(() => inside.tries >= tries + 2, "it to try");
    assertEquals(code, undefined);
    inside.pass(16_000);
    assertEquals(await withDeadline(ending, 10_000, "the service to end"), 1);
    assert(await said("can't listen: gives up"));
    assert(!await said("listening again"));
  } finally {
    other.close();
  }
});

Deno.test("Open files are looked for once in a while, not for each request", () => {
  using _clock = new StandingClock();
  let looks = 0;
  const files = new OpenFiles({ limit: 100, read: () => 90 + looks++ });
  assertEquals([files.areScarce, files.count, files.areScarce, looks], [false, 90, false, 1]);
});

Deno.test("A burst that comes between two looks counts what it opens, and is refused at the same mark", async () => {
  using _clock = new StandingClock();
  let open = 80;
  let looks = 0;
  const files = new OpenFiles({ limit: 100, read: () => (looks++, open) });
  const work = Promise.withResolvers<void>();
  const burst: Promise<void>[] = [];
  while (!files.areScarce) {
    burst.push(files.opening(2, async () => {
      await work.promise;
      open += 2;
    }));
  }
  assertEquals([burst.length, looks], [6, 1], "five fit, and the sixth is over the mark");
  work.resolve();
  await Promise.all(burst);
  assertEquals(
    [files.areScarce, files.count, looks],
    [true, 92, 2],
    "those that are open now were looked for",
  );
  assertEquals([files.areScarce, looks], [true, 2], "who is refused opens nothing, and costs no look");
});

Deno.test("What failed to open counts no more at the next look, which comes before anybody is refused for it", async () => {
  using _clock = new StandingClock();
  let looks = 0;
  const files = new OpenFiles({ limit: 100, read: () => (looks++, 80) });
  for (let i = 0; i < 50; i++) {
    assertEquals(files.areScarce, false);
    await files.opening(2, () => {});
  }
  assertEquals(looks <= 1 + 50 * 2 / 10 + 1, true, `${looks} looks`);
});
