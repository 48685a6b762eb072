/** The examples but those for Redis, run as their readers would run them. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { fileURLToPath } from "node:url";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Page } from "../packages/playwright.ts";
import { connect, RequestError } from "../../src/client/mod.ts";
import { newKey } from "../../src/auth/keys.ts";
import { SECRET } from "../../testkit/closed.ts";
import { Bell, stretched, until, withDeadline } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { findPhp, hasPython, hasPythonWebsockets, PYTHON } from "../../testkit/programs.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));
const php = findPhp();

/** A program that runs until it is ended, and what it has written. */
class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<unknown>;
  readonly #bell = new Bell();
  output = "";

  constructor(command: string, args: readonly string[], env: Record<string, string> = {}) {
    this.#child = new Deno.Command(command, {
      args: [...args],
      env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#reading = Promise.all([this.#read(this.#child.stdout), this.#read(this.#child.stderr)]);
  }

  writes(text: string): Promise<void> {
    return this.#bell.until(() => this.output.includes(text), text, 20_000, () => this.output);
  }

  signal(name: Deno.Signal): void {
    this.#child.kill(name);
  }

  /** Resolves with its exit code. */
  async ended(): Promise<number> {
    await withDeadline(this.#reading, 20_000, "the program to end", () => this.output);
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.ended();
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.output += text;
      this.#bell.ring();
    }
  }
}

async function run(command: string, args: readonly string[], env: Record<string, string> = {}) {
  await using program = new Program(command, args, env);
  return { code: await program.ended(), output: program.output };
}

function textOf(page: Page, selector: string): Promise<string> {
  return page.locator(selector).innerText();
}

Deno.test({
  name: "Example: the programs of the Python version, on the Python client",
  ignore: !hasPythonWebsockets(),
  async fn() {
    await using service = await Service.start({ USERWIRE_USERNAME_CASE: "lower" });
    const { url } = service.server;
    const [receiver, sender] = ["receiver", "sender"].map((name) =>
      `${EXAMPLES}coming_from_python/${name}.py`
    );
    const order = ["37gGsvs0", "order", "It has shipped: é"];
    assertEquals(
      (await run(PYTHON, [sender!, url, ...order])).output,
      "37gGsvs0 is offline: it is kept for them\n",
    );
    await using receiving = new Program(PYTHON, [receiver!, url.replace("http", "ws"), "37gGsvs0"]);
    await until(async () => await service.sockets("37gGsvs0") === 1, "the receiver to be there");
    assertEquals(await run(PYTHON, [sender!, url, ...order]), { code: 0, output: "sent to 1 sockets\n" });
    await receiving.writes('2 {"event_type": "order", "message": "It has shipped: \\u00e9"}\n');
  },
});

Deno.test({
  name: "Example: a receiver of server-sent events in plain Python, which goes on where it was cut",
  ignore: !hasPython(),
  async fn() {
    await using service = await Service.start({});
    await using wire = await TcpProxy.start(Number(new URL(service.server.url).port));
    const url = `http://127.0.0.1:${wire.port}/v1/events?username=alice`;
    await using receiving = new Program(PYTHON, [`${EXAMPLES}sse_python/receiver.py`, url]);
    await until(async () => await service.sockets("alice") === 1, "the receiver to be there");
    await service.send("alice", { order: 7, text: "é\n" });
    await receiving.writes('1 {"order": 7, "text": "\\u00e9\\n"}\n');
    wire.cut();
    // Not that it is away: it may be back before anybody looks.
    await until(() => service.logged("connection closed").length === 1, "it to be gone");
    await service.send("alice", 2);
    await receiving.writes("2 2\n");
    const { items: [{ conn }] } = await (await service.fetch("/v1/users/alice/connections")).json();
    const closing = await service.fetch(`/v1/users/alice/connections/${conn}`, { method: "DELETE" });
    assertEquals(await closing.json(), { closed: 1 });
    assertEquals(await receiving.ended(), 1);
    assertEquals(
      receiving.output,
      '1 {"order": 7, "text": "\\u00e9\\n"}\n2 2\nsent away for good: kicked (4403)\n',
    );
  },
});

Deno.test({
  name: "Example: the lines for Python in docs/sse.md, which go on where they were cut",
  ignore: !hasPython(),
  async fn() {
    const page = await Deno.readTextFile(new URL("../../docs/sse.md", import.meta.url));
    const code = /```python [^\n]*examples_test[^\n]*\n(.+?)```/s.exec(page)![1];
    using folder = new TempFolder("sse");
    const path = `${folder.path}/events.py`;
    await Deno.writeTextFile(
      path,
      `${code}\nimport sys\nfor frame in events(sys.argv[1]): print(frame["t"], frame.get("data"), flush=True)\n`,
    );
    await using service = await Service.start({});
    await using wire = await TcpProxy.start(Number(new URL(service.server.url).port));
    await using receiving = new Program(PYTHON, [
      path,
      `http://127.0.0.1:${wire.port}/v1/events?username=alice`,
    ]);
    await receiving.writes("hi None\n");
    // A line end in it is two lines of the stream.
    await service.fetch("/v1/users/alice/messages", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{\n"order": 7}',
    }).then((sent) => sent.json());
    await receiving.writes("m {'order': 7}\n");
    wire.cut();
    // Not that it is away: it may be back before anybody looks.
    await until(() => service.logged("connection closed").length === 1, "it to be gone");
    await service.send("alice", 2);
    await receiving.writes("m 2\n");
    assertEquals(receiving.output.split("\n").filter((line) => line.startsWith("m ")), [
      "m {'order': 7}",
      "m 2",
    ]);
  },
});

Deno.test({
  name: "Example: a PHP sender",
  ignore: php === undefined,
  async fn() {
    const key = newKey("shop", { scopes: ["send"] });
    await using service = await Service.start({ USERWIRE_API_KEYS: key.line, USERWIRE_JWT_SECRET: SECRET });
    const send = (key: string) =>
      run(php!, [`${EXAMPLES}php_sender/send.php`, service.server.url, "alice", '{"order": 7, "more": {}}'], {
        USERWIRE_KEY: key,
      });
    assertEquals(await send(key.key), { code: 0, output: "alice is offline: it is kept for them\n" });
    const refused = await send("");
    assertEquals(refused.code, 1);
    assertMatch(refused.output, /^It will not be taken: .+\(401 unauthorized\)\n$/);
  },
});

Deno.test({
  name: "Example: tickets with a Python backend and a plain page",
  ignore: isBrowserMissing || !hasPythonWebsockets(),
  async fn() {
    using port = OwnPort.take();
    const key = newKey("backend", { scopes: ["send", "tickets"] });
    await using service = await Service.start({
      USERWIRE_API_KEYS: key.line,
      USERWIRE_JWT_SECRET: SECRET,
      USERWIRE_ALLOWED_ORIGINS: `http://127.0.0.1:${port}`,
    });
    await using _backend = new Program(PYTHON, [`${EXAMPLES}tickets_python/backend.py`], {
      BACKEND_PORT: `${port}`,
      USERWIRE_URL: service.server.url,
      USERWIRE_KEY: key.key,
    });
    const backend = `http://127.0.0.1:${port}`;
    const answers = async () => (await fetch(`${backend}/ticket`).catch(() => undefined))?.text();
    await until(async () => await answers() === "Log in first", "the backend, which gives nobody a ticket");

    await using browser = await launchBrowser();
    const page = await browser.newPage();
    page.setDefaultTimeout(stretched(20_000));
    await page.goto(backend);
    const text = (selector: string) => textOf(page, selector);
    const logIn = async (password: string) => {
      await page.locator("input[name=user]").fill("alice");
      await page.locator("input[name=password]").fill(password);
      await page.locator("#login button").click();
    };
    await logIn("builder");
    await until(async () => await text("#state") === "That is not the password", "the refusal");
    await logIn("wonderland");
    await until(async () => await text("#state") === "open", "the connection");
    await page.locator("#order").click();
    await until(async () => /^Order \d+: taken$/.test(await text("#messages")), "the message");
  },
});

Deno.test({
  name: "Example: a page without a bundler",
  ignore: isBrowserMissing,
  async fn() {
    const html = await Deno.readTextFile(`${EXAMPLES}plain_page/index.html`);
    await using site = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
      return new Response(html, { headers: { "content-type": "text/html" } });
    });
    const origin = `http://127.0.0.1:${site.addr.port}`;
    await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: origin });
    await using browser = await launchBrowser();
    const page = await browser.newPage();
    page.setDefaultTimeout(stretched(20_000));
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.goto(`${origin}?service=${service.server.url.slice(0, -1)}`);
    await until(async () => await textOf(page, "#state") === "open", "the connection");
    await service.send("alice", { order: 7 });
    await page.locator("#messages li", { hasText: '{"order":7}' }).waitFor();

    const turn = (hidden: boolean) =>
      page.evaluate(`Object.defineProperty(document, "hidden", { value: ${hidden}, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));`);
    await turn(true);
    await until(async () => await textOf(page, "#state") === "paused", "the pause");
    await service.isEmpty();
    await service.send("alice", "meanwhile");
    await turn(false);
    await page.locator("#messages li", { hasText: '"meanwhile"' }).waitFor();
    const items = await page.locator("#messages li").allInnerTexts();
    assertEquals([items, await textOf(page, "#error"), faults], [['{"order":7}', '"meanwhile"'], "", []]);
  },
});

Deno.test("Example: a program that holds the service", async () => {
  using port = OwnPort.take();
  using logs = new TempFolder("embedded");
  await using program = new Program(Deno.execPath(), ["run", "-A", `${EXAMPLES}embedded.ts`], {
    ...{ PORT: `${port}`, LOG_DIR: logs.path, NO_COLOR: "1" },
  });
  await program.writes("listening");
  await using client = connect(`http://127.0.0.1:${port}`, { user: "alice" });
  assertEquals(await client.request("order", 7), { ordered: 7, by: "alice" });
  const { code } = await assertRejects(() => client.request("pay"), RequestError, 'Nobody answers "pay"');
  assertEquals(code, "unknown_op");
  const { data } = (await client[Symbol.asyncIterator]().next()).value!;
  assertEquals(data, "Hello alice");
  program.signal("SIGTERM");
  assertEquals(await program.ended(), 0);
});
