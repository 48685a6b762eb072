/**
 * The sample client as a newcomer runs it: a process of its own with no permission but the network, against a real
 * service. What it prints is the order in which things happen.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Bell, withDeadline } from "../../testkit/deadline.ts";
import { Service } from "../../testkit/service.ts";

/** The sample client, running. */
class Sample implements AsyncDisposable {
  stdout = "";
  stderr = "";
  readonly #child: Deno.ChildProcess;
  readonly #bell = new Bell();
  readonly #read: Promise<unknown>;

  constructor(...args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-net", "--no-prompt", `${import.meta.dirname}/sample_client.ts`, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      env: { NO_COLOR: "1" },
    }).spawn();
    this.#read = Promise.all([this.#collect("stdout"), this.#collect("stderr")]);
  }

  /** Names of the steps it has told, in order. */
  get steps(): string[] {
    return this.stdout.split("\n").map((line) => line.slice(12).split(" ", 1)[0]!).filter((step) =>
      step !== ""
    );
  }

  /** Resolves when it has told the step so often. */
  async until(step: string, count = 1): Promise<void> {
    const told = () => this.steps.filter((other) => other === step).length;
    await this.#bell.until(() => told() >= count, `the step "${step}"`, 20_000);
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  async exitCode(): Promise<number> {
    const { code } = await withDeadline(this.#child.status, 20_000, "the sample client to end");
    await this.#read;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.exitCode();
  }

  async #collect(stream: "stdout" | "stderr"): Promise<void> {
    for await (const text of this.#child[stream].pipeThrough(new TextDecoderStream())) {
      this[stream] += text;
      this.#bell.ring();
    }
  }
}

function urlOf(service: Service): string {
  return service.server.url.replace("http:", "ws:");
}

Deno.test("The sample client opens, hears hi, a message and a sign of life, and closes when its time is over", async () => {
  await using service = await Service.start({ USERWIRE_PING_S: "1" });
  await using sample = new Sample("--url", urlOf(service), "--user", "Zoë", "--seconds", "2.5");
  await sample.until("hi");
  assertEquals((await service.send("Zoë", { order: 7 })).body.sockets, 1);
  await sample.until("message");
  assertEquals(await sample.exitCode(), 0, sample.stderr);
  // The server's pings come by the clock: on a slow machine one is there before the message.
  const told = sample.steps.filter((step) => step !== "alive");
  assertEquals(told, ["connecting", "open", "hi", "message", "closing", "closed"]);
  assert(sample.steps.includes("alive"), sample.stdout);
  assertStringIncludes(sample.stdout, '{"order":7}');
  assertMatch(sample.stdout, /closed +1000 .*after 1 messages/);
  await service.isEmpty();
  assertEquals(service.logged("connection closed").map(({ fields }) => fields.code), [1000]);
});

Deno.test("The sample client in raw mode says who it is first, and gets payloads as they are", async () => {
  await using service = await Service.start();
  await using sample = new Sample("--url", urlOf(service), "--raw", "--seconds", "60");
  await sample.until("pong");
  await service.send("alice", "plain text");
  await service.send("alice", Uint8Array.of(1, 2, 3));
  await sample.until("message", 2);
  sample.interrupt();
  assertEquals(await sample.exitCode(), 0, sample.stderr);
  const steps = ["connecting", "open", "ping", "pong", "message", "message", "closing", "closed"];
  assertEquals(sample.steps, steps);
  assertMatch(sample.stdout, /plain text\n.*3 bytes\n.*Ctrl\+C\n/);
});

Deno.test("The sample client tells that the server says bye, and fails", async () => {
  await using service = await Service.start();
  await using sample = new Sample("--url", urlOf(service), "--seconds", "60");
  await sample.until("hi");
  await service.server.shutdown();
  assertEquals(await sample.exitCode(), 1);
  assertEquals(sample.steps, ["connecting", "open", "hi", "bye", "closed"]);
  assertMatch(sample.stdout, /bye +1012 restart, come back in \d+ ms\n.*closed +1012 restart/);
});

Deno.test("The sample client fails where nobody listens, and where it is refused", async () => {
  await using service = await Service.start();
  await using nobody = new Sample("--url", "ws://127.0.0.1:1");
  await using refused = new Sample("--url", urlOf(service), "--user", "a b");
  for (const sample of [nobody, refused]) {
    assertEquals(await sample.exitCode(), 1);
    assertEquals(sample.steps, ["connecting", "error", "closed"]);
  }
});

Deno.test("The sample client says how it is used when it is used wrongly", async () => {
  for (const args of [["--seconds", "soon"], ["--colour"], ["--url", "nonsense"]]) {
    await using sample = new Sample(...args);
    assertEquals(await sample.exitCode(), 1);
    assert(sample.stderr.includes(args[1] ?? args[0]!) || sample.stderr.includes("URL"), sample.stderr);
    assertStringIncludes(sample.stderr, "Usage: deno run --allow-net tests/client/sample_client.ts");
  }
});
