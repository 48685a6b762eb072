/**
 * The command line as a process: exit codes, standard streams, signals, and that the permissions of
 * `deno task start` are enough.
 */
import { assert, assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import manifest from "../../deno.json" with { type: "json" };
import { Certificates } from "../../testkit/certificates.ts";
import { Bell, until, withDeadline } from "../../testkit/deadline.ts";
import { FaultyRelay } from "../../testkit/faulty_relay.ts";
import { Service } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const ROOT = new URL("../../", import.meta.url);
const START_MS = 30_000;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process of the command line. Ends with the test. */
class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #bell = new Bell();
  readonly #output: ReadableStreamDefaultReader<string>;
  readonly #streams: Promise<void>[];
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    // As `deno task start` does: "deno run <permissions> main.ts".
    const [deno, ...command] = manifest.tasks.start.command.split(" ");
    assertEquals(deno, "deno");
    // Deno itself needs its home; the settings of whoever runs the tests must not get in.
    const { PATH = "", HOME = "", TMPDIR = "/tmp", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [...command, ...args],
      cwd: ROOT,
      clearEnv: true,
      env: { PATH, HOME, DENO_DIR, TMPDIR, NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const { stdout, stderr } = this.#child;
    this.#output = stdout.pipeThrough(new TextDecoderStream()).getReader();
    const errors = stderr.pipeThrough(new TextDecoderStream()).getReader();
    this.#streams = [
      this.#read(this.#output, (text) => this.stdout += text),
      this.#read(errors, (text) => this.stderr += text),
    ];
  }

  async #read(reader: ReadableStreamDefaultReader<string>, keep: (text: string) => void): Promise<void> {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      keep(read.value);
      this.#bell.ring();
    }
  }

  /** Waits until standard output or standard error holds the text. */
  async until(pattern: RegExp): Promise<RegExpMatchArray> {
    const find = () => this.stdout.match(pattern) ?? this.stderr.match(pattern);
    await this.#bell.until(() => find() !== null, `${pattern} from the process`, START_MS);
    return find()!;
  }

  /** Stops reading its standard output, as `head` does when it has seen enough. */
  async closeOutput(): Promise<void> {
    await this.#output.cancel();
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits for the end. */
  async end(): Promise<Ended> {
    const { code } = await withDeadline(this.#child.status, START_MS, "the process to end");
    await Promise.all(this.#streams);
    return { code, stdout: this.stdout, stderr: this.stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.end();
  }
}

async function runProgram(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  await using program = new Program(args, env);
  return await program.end();
}

Deno.test("userwire --version prints the version in deno.json", async () => {
  assertEquals(await runProgram(["--version"]), { code: 0, stdout: `${manifest.version}\n`, stderr: "" });
});

Deno.test("userwire --help shows the commands", async () => {
  const { code, stdout, stderr } = await runProgram(["--help"]);
  assertEquals([code, stderr], [0, ""]);
  for (const name of ["serve", "send", "listen", "who"]) {
    assertMatch(stdout, new RegExp(`^ {2}${name} `, "m"));
  }
});

Deno.test("userwire shows all faults of the settings at once, without secrets or a stack, and exits with 2", async () => {
  const env = {
    PORT: "70000",
    REDIS_URL: "http://user:hunter2@localhost",
    HOST: "0.0.0.0",
    USERWIRE_PINGS_S: "10",
    USERWIRE_CHANNEL_PREFIX: "a b",
  };
  const { code, stdout, stderr } = await runProgram(["--log-level", "loud"], env);
  assertEquals([code, stdout], [2, ""]);
  const [headline, ...faults] = stderr.trimEnd().split("\n");
  assertEquals(headline, "error: 6 settings can't be used:");
  assertEquals(faults.map((fault) => fault.trim().split(" ")[0]), [
    "PORT",
    "REDIS_URL",
    "--log-level",
    "USERWIRE_CHANNEL_PREFIX",
    "HOST",
    "USERWIRE_PINGS_S",
  ]);
  assertStringIncludes(stderr, "rename it to USERWIRE_PING_S");
  assertNotMatch(stderr, /hunter2|\.ts:\d+/);
});

Deno.test("userwire shows faults of settings, of keys and tokens and of files at once, and blames none for another", async () => {
  const faultsWith = async (env: Record<string, string>) => {
    const { code, stderr } = await runProgram([], env);
    assertEquals(code, 2);
    assertNotMatch(stderr, /hunter2|\.ts:\d+/);
    return stderr.trimEnd().split("\n").slice(1).map((fault) => fault.trim().split(/[ :]/)[0]);
  };
  const files = { USERWIRE_TLS_CERT: "no.pem", USERWIRE_TLS_KEY: "no.key", USERWIRE_API_KEYS: "hunter2" };
  assertEquals(await faultsWith({ ...files, USERWIRE_JWT_SECRET: "hunter2", LOG_LEVEL: "x", PORT: "x" }), [
    "PORT",
    "LOG_LEVEL",
    "USERWIRE_TLS_CERT",
    "USERWIRE_TLS_KEY",
    "USERWIRE_API_KEYS",
    "USERWIRE_JWT_SECRET",
  ]);
  // The issuer is not to blame for it that there is no way to verify tokens.
  assertEquals(
    await faultsWith({ USERWIRE_JWKS_URL: "hunter2", USERWIRE_JWT_ISSUER: "x", USERWIRE_REDIS_X: "1" }),
    ["USERWIRE_JWKS_URL", "USERWIRE_REDIS_X"],
  );
});

Deno.test("userwire exits with 2 and no stack when the port is taken", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  using dir = new TempFolder("logs");
  const { code, stderr } = await runProgram(["--port", String(listener.addr.port), "--log-dir", dir.path]);
  assertEquals(code, 2);
  assertMatch(stderr, new RegExp(`^error: a setting can't be used:\n .*${listener.addr.port}.*\n$`));
});

Deno.test("userwire exits with 2 on an unknown command", async () => {
  const { code, stderr } = await runProgram(["sned", "alice", "hi"]);
  assertEquals({ code, stderr }, {
    code: 2,
    stderr: "error: unknown command 'sned'\n(Did you mean send?)\n",
  });
});

Deno.test("userwire serves, listens and sends as three processes, and each ends with 0", async () => {
  using dir = new TempFolder("logs");
  await using service = new Program([], { PORT: "0", LOG_DIR: dir.path, USERWIRE_DRAIN_S: "0" });
  const [url = ""] = await service.until(/http:\/\/127\.0\.0\.1:\d+/);
  const env = { USERWIRE_URL: url };
  await using listener = new Program(["listen", "alice"], env);
  await listener.until(/^Listening as alice/);

  assertEquals(await runProgram(["send", "alice", "hi"], env), {
    code: 0,
    stdout: "sent to 1 socket\n",
    stderr: "",
  });
  await listener.until(/^hi$/m);
  listener.kill("SIGINT");
  const { code, stdout } = await listener.end();
  assertEquals({ code, stdout }, { code: 0, stdout: "hi\n" });

  service.kill("SIGTERM");
  assertEquals((await service.end()).code, 0);
});

Deno.test("userwire bench, interrupted, ends with 0 and what it has measured", async () => {
  await using service = await Service.start();
  await using bench = new Program(
    ["bench", "--users", "2", "--rate", "50", "--seconds", "600", "--json"],
    { USERWIRE_URL: service.server.url },
  );
  const delivered = async () => {
    const metrics = await (await service.fetch("/metrics")).text();
    return Number(/^userwire_messages_delivered_total (\d+)$/m.exec(metrics)?.[1]);
  };
  await until(async () => await delivered() > 0, "messages to arrive");
  bench.kill("SIGINT");
  const { code, stdout } = await bench.end();
  const found = JSON.parse(stdout);
  assertEquals([code, found.interrupted, found.lost, found.delivered], [0, true, 0, found.sent]);
});

Deno.test("userwire bench says when the rate is not reached, and that it is not itself the limit", async () => {
  await using service = await Service.start();
  await using relay = new FaultyRelay(service.server.url, { slowMs: 700 });
  const args = ["bench", "--users", "10", "--rate", "1000", "--seconds", "2", "--in-flight", "2", "--json"];
  const { code, stdout } = await runProgram([...args, "--url", relay.url]);
  const found = JSON.parse(stdout);
  assertEquals([code, found.limit, found.lost], [0, "service", 0]);
  assertEquals(found.sent + found.unsent, 2_000);
  assert(found.sent <= 20, stdout);
});

Deno.test("userwire bench speaks TLS, with an authority of one's own as well", async () => {
  await using certificates = await Certificates.make();
  await using service = await Service.start({
    USERWIRE_TLS_CERT: certificates.cert("server"),
    USERWIRE_TLS_KEY: certificates.key("server"),
  });
  const args = ["bench", "--users", "5", "--rate", "50", "--seconds", "1", "--json", "--url"];
  const url = service.server.url.replace("127.0.0.1", "localhost");
  const { code, stdout } = await runProgram([...args, url], { DENO_CERT: certificates.cert("ca") });
  assertEquals([code, JSON.parse(stdout).delivered], [0, 50]);
  const stranger = await runProgram([...args, url]);
  assertEquals([stranger.code, stranger.stdout], [2, ""]);
  assertMatch(stranger.stderr, /error: Can't reach a service at https:\S+: .*UnknownIssuer/);
});

Deno.test("userwire listen ends with 0 when nobody reads its output any more", async () => {
  await using service = await Service.start();
  await using listener = new Program(["listen", "alice"], { USERWIRE_URL: service.server.url });
  await listener.until(/^Listening as alice/);
  await listener.closeOutput();
  let hasEnded = false;
  const ended = listener.end().finally(() => hasEnded = true);
  await until(async () => {
    await service.server.app.publisher.send("alice", { kind: "text", text: "a line" });
    return hasEnded;
  }, "the process to end");
  const { code, stderr } = await ended;
  assertEquals(code, 0);
  assertNotMatch(stderr, /error/);
});
