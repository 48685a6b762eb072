/**
 * The PHP sender with a real service and with a server that misbehaves: by PHP's own streams, and by curl where that
 * extension is. One process of each runs all checks, each of which is a step here.
 */
import { assert, assertEquals } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { findPhp } from "../../testkit/programs.ts";
import { Service } from "../../testkit/service.ts";

const CHECKS = new URL("php_checks.php", import.meta.url).pathname;
const php = findPhp();

const text = (status: string, body: string, headers = "") =>
  `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n${headers}\r\n${body}`;
const BUSY = text(
  "503 Busy",
  '{"code":"broker_unavailable","detail":"Redis is away"}',
  "Retry-After: 0\r\n",
);
/** What comes for one call after the other: a hang-up, an answer that is cut off, a refusal, and then the answer. */
const FAILURES = [
  "",
  "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
  BUSY,
  text("200 OK", '{"id":"a","sockets":1}'),
];

/** A server that does what the path of a call says. */
class Misbehaving implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns: Deno.TcpConn[] = [];
  readonly #serving = this.#serve();
  /** The idempotency keys that came. */
  readonly keys: string[] = [];
  #failures: string[] = [];

  get url(): string {
    return `http://127.0.0.1:${this.#listener.addr.port}`;
  }

  /** Begins with the first failure. */
  reset(): void {
    this.#failures = [...FAILURES];
    this.keys.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#serving;
    for (const conn of this.#conns) close(conn);
  }

  async #serve(): Promise<void> {
    for await (const conn of this.#listener) {
      this.#conns.push(conn);
      const bytes = new Uint8Array(65_536);
      const length = await conn.read(bytes);
      const request = new TextDecoder().decode(bytes.subarray(0, length ?? 0));
      if (request.startsWith("GET /silent")) continue;
      if (request.startsWith("POST /fails")) {
        this.keys.push(/^idempotency-key: (.+)\r$/im.exec(request)![1]!);
      }
      const answer = request.startsWith("GET /busy")
        ? BUSY
        : request.startsWith("GET /redirect")
        ? text("302 Found", "", "Location: http://127.0.0.1:1/\r\n")
        : this.#failures.shift()!;
      await conn.write(new TextEncoder().encode(answer));
      close(conn);
    }
  }
}

function close(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // It is closed.
  }
}

async function run(args: readonly string[]): Promise<{ check: string; fault?: string }[]> {
  const child = new Deno.Command(php!, { args: [...args], stdin: "null", stdout: "piped", stderr: "piped" })
    .spawn();
  const { code, stdout, stderr } = await withDeadline(child.output(), 60_000, "the checks to end");
  const [said, trouble] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(code, 0, said! + trouble);
  return said!.trim().split("\n").map((line) => {
    assert(line.startsWith("{"), said);
    return JSON.parse(line);
  });
}

Deno.test({
  name: "The PHP sender, with a service and with a server that misbehaves",
  ignore: php === undefined,
  async fn(t) {
    const key = newKey("php", { scopes: ["send", "read", "groups", "admin"], users: "*|@*" });
    await using service = await Service.start({
      USERWIRE_API_KEYS: key.line,
      USERWIRE_JWT_SECRET: "x".repeat(32),
    });
    await using misbehaving = new Misbehaving();
    // Without its settings PHP loads no extension.
    for (const options of [["-n"], []]) {
      misbehaving.reset();
      const shown = ["-d", "display_errors=1", "-d", "error_reporting=-1"];
      const lines = await run([
        ...options,
        ...shown,
        CHECKS,
        service.server.url,
        key.key,
        misbehaving.url,
      ]);
      for (const { check, fault } of lines) {
        await t.step(check, () => {
          if (fault !== undefined) throw new Error(fault);
        });
      }
      assertEquals(lines.length, 12);
      assertEquals(misbehaving.keys, Array(4).fill(misbehaving.keys[0]), "one key for all tries");
    }
  },
});
