/**
 * The program as one file of JavaScript, made by `deno bundle`, in an empty folder without the project's settings
 * and with the permissions of the compiled binary. It is the nearest to that binary that runs on every machine;
 * where DENORT_BIN leads to a denort, the binary itself has to pass the same tests.
 */
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { PERMISSIONS } from "../../src/processes/rights.ts";
import { assets } from "../../src/web/assets.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { openClient } from "../../testkit/ws_client.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BUILD_MS = 120_000;
const START_MS = 60_000;
const END_MS = 30_000;

/** A program in a folder of its own, in which nothing else is. It ends, and the folder goes, with the test. */
class Program implements AsyncDisposable {
  readonly folder: string;
  /** What it wrote to standard error; resolves when it has ended. */
  readonly stderr: Promise<string>;
  readonly #child: Deno.ChildProcess;
  #hasEnded = false;

  private constructor(folder: string, child: Deno.ChildProcess) {
    this.folder = folder;
    this.#child = child;
    this.stderr = new Response(child.stderr).text();
    child.status.then(() => this.#hasEnded = true);
  }

  static async start(command: readonly string[], env: Record<string, string> = {}): Promise<Program> {
    const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "userwire-bundle-" }));
    const [program, ...args] = command;
    const child = new Deno.Command(program!, {
      args,
      cwd: folder,
      clearEnv: true,
      // No caches, and no way to fill them: all that it needs must be in the file.
      env: {
        DENO_DIR: `${folder}/caches`,
        HTTP_PROXY: "http://127.0.0.1:1",
        HTTPS_PROXY: "http://127.0.0.1:1",
        NO_COLOR: "1",
        PORT: "0",
        ...env,
      },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    return new Program(folder, child);
  }

  /** What the log holds, in the `logs` folder below the working directory. */
  async log(): Promise<Record<string, unknown>[]> {
    try {
      // The name holds the port, which is known only when this was read.
      const [file] = Array.from(Deno.readDirSync(`${this.folder}/logs`), ({ name }) => name);
      if (file === undefined) return [];
      const text = await Deno.readTextFile(`${this.folder}/logs/${file}`);
      const lines = text.slice(0, text.lastIndexOf("\n") + 1).split("\n").filter((line) => line !== "");
      return lines.map((line) => JSON.parse(line));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** Resolves with the service's address when it listens. */
  async url(): Promise<string> {
    let url: unknown;
    await until(
      async () => {
        if (this.#hasEnded) throw new Error(`The program ended: ${await this.stderr}`);
        url = (await this.log()).find(({ event }) => event === "listening")?.url;
        return url !== undefined;
      },
      "the service to listen",
      START_MS,
    );
    return String(url);
  }

  async end(signal: Deno.Signal): Promise<number> {
    if (!this.#hasEnded) this.#child.kill(signal);
    return (await withDeadline(this.#child.status, END_MS, "the program to end")).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.end("SIGKILL");
      await this.stderr;
    } finally {
      await Deno.remove(this.folder, { recursive: true });
    }
  }
}

async function build(args: string[]): Promise<void> {
  const command = new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null" });
  const { success, stderr } = await withDeadline(command.output(), BUILD_MS, `deno ${args.join(" ")}`);
  assert(success, new TextDecoder().decode(stderr));
}

// ---------------------------------------------------------------------------------------------------------
// The tests, for every form of the program

interface Form {
  readonly name: string;
  /** Makes the program in the folder, and says how to start it. */
  make(folder: string): Promise<string[]>;
}

const forms: Form[] = [{
  name: "Bundle",
  async make(folder) {
    await build(["bundle", "--quiet", "--output", `${folder}/userwire.js`, "main.ts"]);
    return [Deno.execPath(), "run", ...PERMISSIONS, `${folder}/userwire.js`];
  },
}];
if (Deno.env.get("DENORT_BIN")) {
  forms.push({
    name: "Binary",
    async make(folder) {
      await build(["run", "-A", "deploy/compile.ts", "--output", `${folder}/userwire`]);
      return [`${folder}/userwire`];
    },
  });
}

for (const { name, make } of forms) {
  let folder = "";
  let command: Promise<string[]> | undefined;

  /** Made by the first test that needs it, so that it fails there when it can't be made. */
  const made = () => command ??= make(folder);

  Deno.test.beforeAll(async () => {
    folder = await Deno.makeTempDir({ prefix: "userwire-program-" });
  });
  Deno.test.afterAll(async () => {
    await Deno.remove(folder, { recursive: true });
  });

  Deno.test(`${name} serves the page and delivers, logs where it was started, and ends with 0 on SIGTERM`, async () => {
    await using program = await Program.start(await made());
    const url = await program.url();

    for (const [path, { body, type }] of assets) {
      const response = await fetch(new URL(path, url));
      assertEquals([response.status, response.headers.get("content-type")], [200, type], path);
      assertEquals(await response.text(), body, path);
    }

    const socketUrl = `${url.replace("http:", "ws:")}?username=alice`;
    await using raw = await openClient(socketUrl);
    await using v1 = await openClient(socketUrl, "userwire.v1");
    assertEquals((await v1.nextJson()).t, "hi");
    const payload = `{"hello": "world"}`;
    const response = await fetch(new URL("/v1/users/alice/messages", url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: payload,
    });
    assertEquals([response.status, (await response.json()).sockets], [200, 2]);
    assertEquals(await raw.next(), payload);
    assertEquals((await v1.nextJson()).data, JSON.parse(payload));

    const ended = program.end("SIGTERM");
    assertEquals([(await raw.closed).code, (await v1.closed).code], [1012, 1012]);
    assertEquals(await ended, 0);
    assertEquals((await program.log()).at(-1)?.event, "stopped");
    // Deno's remark is about a feature that deno.json turns on, which a bundle does not have beside it.
    const strange = (line: string) =>
      line !== "" && !/ WARN |^Deno\.serve: request\.signal aborts /.test(line);
    assertEquals((await program.stderr).split("\n").filter(strange), []);
  });

  redisTest(`${name} delivers through Redis over a unix socket`, async () => {
    await using redis = await RedisServer.start({ unixSocket: true });
    await using program = await Program.start(await made(), { REDIS_URL: redis.url });
    const url = await program.url();
    await using alice = await openClient(`${url.replace("http:", "ws:")}?username=alice`);
    assertEquals(await redis.cli("PUBLISH", "alice", "from a stranger"), 1);
    assertEquals(await alice.next(), "from a stranger");
    const response = await fetch(new URL("/v1/users/alice/messages", url), { method: "POST", body: "hi" });
    assertEquals([response.status, (await response.json()).sockets], [200, 1]);
    assertEquals(await alice.next(), "hi");
  });

  Deno.test(`${name} told to end while it starts does so in order, with 0`, async () => {
    // Takes the connection, and never says a word: a start waits for that a while.
    using redis = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    await using program = await Program.start(await made(), {
      REDIS_URL: `redis://127.0.0.1:${redis.addr.port}`,
    });
    const isOver = program.stderr.then((text) => {
      throw new Error(`The program ended: ${text}`);
    });
    using _connection = await withDeadline(
      Promise.race([redis.accept(), isOver]),
      START_MS,
      "the program to dial Redis",
    );
    assertEquals(await program.end("SIGTERM"), 0);
    assertEquals((await program.log()).at(-1)?.event, "stopped");
  });
}
