/**
 * The built client in other runtimes, each with its own WebSocket: a program there connects, is sent away, and
 * resumes, while this process plays the service. Node and Bun are those installed here, else those that npm has; where
 * neither can be had, the test is skipped, which is said aloud.
 */
import { assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { Bell, stretched, withDeadline } from "../../testkit/deadline.ts";
import { done } from "../../testkit/npm_package.ts";
import { Service } from "../../testkit/service.ts";

const CLIENT = new URL("../../src/web/client.js", import.meta.url).href;
const BARE = fileURLToPath(new URL("../../testkit/bare_runtime.js", import.meta.url));
const BARE_PROGRAM = fileURLToPath(new URL("../../testkit/bare_program.js", import.meta.url));
const PROGRAM = fileURLToPath(new URL("../../testkit/client_program.js", import.meta.url));
/** Getting a runtime from npm for the first time may take long. */
const FETCH_MS = 120_000;

interface Runtime {
  readonly command: string;
  readonly args?: readonly string[];
}

/** What a command says, as one line; undefined when there is no such command, or it fails. */
async function ask(command: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command(command, {
      args,
      stdin: "null",
      stderr: "null",
      signal: AbortSignal.timeout(stretched(FETCH_MS)),
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch {
    return undefined;
  }
}

/** Path of a runtime that has a WebSocket; undefined when none can be had. */
async function findRuntime(name: string, npmPackage: string): Promise<string | undefined> {
  const hasWebSocket = (path: string) => ask(path, "-e", "console.log(typeof WebSocket)");
  const find = ["--yes", "--prefer-offline", `--package=${npmPackage}`, "--call", `command -v ${name}`];
  if (await hasWebSocket(name) === "function") return name;
  const path = await ask("npx", ...find);
  if (path && await hasWebSocket(path) === "function") return path;
  console.warn(
    `The test of the client in ${name} is skipped: install ${npmPackage}, or npm, which can get it`,
  );
  return undefined;
}

/** A run of the program. Ends with the test. */
class Run implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #bell = new Bell();
  readonly #reading: Promise<unknown>;
  readonly said: unknown[] = [];
  stderr = "";

  constructor({ command, args = [] }: Runtime, service: Service) {
    this.#child = new Deno.Command(command, {
      args: [...args, PROGRAM, CLIENT, service.server.url],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#reading = Promise.all([this.#read(), this.#readErrors()]);
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.said.push(...lines.map((line) => JSON.parse(line)));
      this.#bell.ring();
    }
  }

  async #readErrors(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.stderr += text;
  }

  /** Resolves when it has said this last. */
  async says(what: unknown): Promise<void> {
    const text = JSON.stringify(what);
    await this.#bell.until(() => JSON.stringify(this.said.at(-1)) === text, text, 20_000);
  }

  async end(): Promise<number> {
    const { code } = await withDeadline(this.#child.status, 10_000, "the program to end");
    await this.#reading;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.end();
  }
}

async function receiveAndResume(runtime: Runtime): Promise<void> {
  await using service = await Service.start();
  await using run = new Run(runtime, service);
  await run.says({ state: "open" });
  await service.send("alice", { order: 7 });
  await service.send("alice", Uint8Array.of(0, 255));
  await run.says({ seq: 2, data: { bytes: [0, 255] } });

  const closing = await service.fetch("/v1/users/alice/connections?code=4503&why=away", { method: "DELETE" });
  assertEquals((await closing.json()).closed, 1);
  await service.send("alice", "meanwhile"); // to be resumed, if it is not back already
  await run.says({ seq: 3, data: "meanwhile" });
  await service.send("alice", "end");
  await run.says({ closed: { code: 1000, reason: "" } });
  // It ends by itself: nothing of the client keeps the runtime going.
  assertEquals(await run.end(), 0, run.stderr);
  const said = run.said.map((entry) => JSON.stringify(entry));
  const expected = [
    { seq: 1, data: { order: 7 } },
    { seq: 2, data: { bytes: [0, 255] } },
    { code: 4503, opened: true },
    { state: "waiting" },
    { state: "connecting" },
    { state: "open" },
    { seq: 3, data: "meanwhile" },
    { state: "closed" },
    { closed: { code: 1000, reason: "" } },
  ].map((entry) => JSON.stringify(entry));
  assertEquals(said.slice(said.indexOf('{"state":"open"}') + 1), expected);
}

const deno: Runtime = { command: Deno.execPath(), args: ["run", "-A", "--no-config"] };
const node = await findRuntime("node", "node@22");
const bun = await findRuntime("bun", "bun@1");

Deno.test("Built client receives and resumes in Deno", () => receiveAndResume(deno));

Deno.test("Built client receives and resumes where there is as little as in React Native", () => {
  return receiveAndResume({ ...deno, args: [...deno.args!, "--preload", BARE] });
});

Deno.test("Built client asks the backend, and says why it is refused, where there is as little", async () => {
  await using service = await Service.start({}, { onRequest: ({ user, data }) => ({ user, data }) });
  await using other = Deno.serve({ port: 0, onListen() {} }, () => new Response("Log in"));
  const otherUrl = `http://127.0.0.1:${other.addr.port}`;
  const args = [...deno.args!, "--preload", BARE, BARE_PROGRAM, CLIENT, service.server.url, otherUrl];
  const written = await done(deno.command, args);
  assertEquals(written, JSON.stringify(["Zoë", { order: 7 }, true, "not_userwire"]));
});

Deno.test({
  name: "Built client receives and resumes in Node",
  ignore: node === undefined,
  fn: () => receiveAndResume({ command: node! }),
});

Deno.test({
  name: "Built client receives and resumes in Bun",
  ignore: bun === undefined,
  fn: () => receiveAndResume({ command: bun! }),
});
