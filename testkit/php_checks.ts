/**
 * Runs `php_checks.php` with a real service, one with TLS and a server that misbehaves, by whatever PHP there is:
 *
 *     await using checks = await PhpChecks.start();
 *     await checks.run(t, "curl", ["php"]);
 */
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { newKey } from "../src/auth/keys.ts";
import { Certificates } from "./certificates.ts";
import { done } from "./npm_package.ts";
import { Service } from "./service.ts";
import { SAMPLED } from "./trace_parents.ts";

export const PHP_CHECKS = fileURLToPath(new URL("php_checks.php", import.meta.url));
const KEY = newKey("php", { scopes: ["send", "read", "groups", "broadcast", "admin"], users: "*|@*" });
/** Whatever PHP has to say against the code comes on standard output, and is no line of JSON. */
const SHOWN = ["-d", "display_errors=1", "-d", "error_reporting=-1"];

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
  readonly #drips: Promise<void>[] = [];
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
    await Promise.all(this.#drips);
  }

  async #serve(): Promise<void> {
    for await (const conn of this.#listener) {
      this.#conns.push(conn);
      const bytes = new Uint8Array(65_536);
      const length = await conn.read(bytes);
      const request = new TextDecoder().decode(bytes.subarray(0, length ?? 0));
      if (request.startsWith("GET /silent")) continue;
      if (request.startsWith("GET /drips")) {
        this.#drips.push(drip(conn));
        continue;
      }
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

/** An answer that comes byte by byte, and never to its end. */
async function drip(conn: Deno.TcpConn): Promise<void> {
  await conn.write(new TextEncoder().encode("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"));
  const tick = new TextEncoder().encode(" ");
  try {
    while (true) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await conn.write(tick);
    }
  } catch {
    // Nobody reads any more.
  }
}

function close(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // It is closed.
  }
}

export class PhpChecks implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly #service: Service;
  readonly #misbehaving: Misbehaving;
  readonly #args: readonly string[];

  private constructor(
    stack: AsyncDisposableStack,
    service: Service,
    misbehaving: Misbehaving,
    args: readonly string[],
  ) {
    this.#stack = stack;
    this.#service = service;
    this.#misbehaving = misbehaving;
    this.#args = args;
  }

  static async start(): Promise<PhpChecks> {
    await using stack = new AsyncDisposableStack();
    const service = stack.use(
      await Service.start({ USERWIRE_API_KEYS: KEY.line, USERWIRE_JWT_SECRET: "x".repeat(32) }),
    );
    const certificates = stack.use(await Certificates.make());
    const strangers = stack.use(await Certificates.make());
    const secure = stack.use(
      await Service.start({
        USERWIRE_API_KEYS: KEY.line,
        USERWIRE_TLS_CERT: certificates.cert("server"),
        USERWIRE_TLS_KEY: certificates.key("server"),
      }),
    );
    const misbehaving = stack.use(new Misbehaving());
    return new PhpChecks(stack.move(), service, misbehaving, [
      ...[service.server.url, KEY.key, misbehaving.url],
      ...[`https://localhost:${secure.server.port}`, certificates.cert("ca"), strangers.cert("ca")],
    ]);
  }

  /**
   * Each check is a step.
   * @param way What this run differs in from others with the same service; a part of usernames.
   * @param php The program, and its options.
   */
  async run(
    t: Deno.TestContext,
    way: string,
    [command, ...options]: [string, ...string[]],
    { env = {}, checks = PHP_CHECKS }: { env?: Record<string, string>; checks?: string } = {},
  ): Promise<void> {
    this.#misbehaving.reset();
    const said = await done(command, [...options, ...SHOWN, checks, way, ...this.#args], { env });
    const lines = said.trim().split("\n");
    for (const line of lines) {
      assert(line.startsWith("{"), said);
      const { check, fault } = JSON.parse(line);
      await t.step(check, () => {
        if (fault !== undefined) throw new Error(fault);
      });
    }
    assertEquals(lines.length, 14);
    const traced = this.#service.logged("message sent").filter(({ fields }) =>
      fields.user === `traced-${way}`
    );
    assertEquals(traced.map(({ fields }) => fields.traceparent), [SAMPLED, undefined, undefined]);
    const { keys } = this.#misbehaving;
    assertEquals(keys, Array(4).fill(keys[0]), "one key for all tries");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
