/** Sending by HTTP, to a server that treats its connections as it is told. */
import { assertEquals, assertRejects } from "@std/assert";
import type { Refusal } from "../../src/load/http_answer.ts";
import { HttpSender } from "../../src/load/sender.ts";
import { loopback } from "../../src/load/stream.ts";
import { until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";

const LAST = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

/** A server that gives each request to the function, with its connection. */
class Server implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #running: Promise<void>;
  readonly #conns = new Set<Deno.Conn>();
  connections = 0;

  constructor(answer: (conn: Deno.Conn, request: string) => Promise<unknown> | void) {
    this.#running = this.#run(answer);
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of [...this.#conns]) this.end(conn);
    await this.#running;
  }

  async #run(answer: (conn: Deno.Conn, request: string) => Promise<unknown> | void): Promise<void> {
    const serving: Promise<void>[] = [];
    for await (const conn of this.#listener) {
      this.connections++;
      this.#conns.add(conn);
      serving.push(this.#serve(conn, answer));
    }
    await Promise.all(serving);
  }

  async #serve(conn: Deno.Conn, answer: (conn: Deno.Conn, request: string) => Promise<unknown> | void) {
    const buffer = new Uint8Array(4_096);
    try {
      for (let count; (count = await conn.read(buffer)) !== null;) {
        await answer(conn, new TextDecoder().decode(buffer.subarray(0, count)));
      }
    } catch {
      // Closed, by either side.
    }
    if (this.#conns.delete(conn)) conn.close();
  }

  /** Ends a connection. */
  end(conn: Deno.Conn): void {
    if (this.#conns.delete(conn)) conn.close();
  }
}

const say = (conn: Deno.Conn, text: string) => conn.write(new TextEncoder().encode(text));

Deno.test("HttpSender goes on over a new connection when the server ends one after an answer", async () => {
  await using server = new Server(async (conn) => {
    await say(conn, LAST);
    server.end(conn);
  });
  const refused: Refusal[] = [];
  const sender = await HttpSender.open([loopback(server.port)], 1, {
    onRefused: (_user, _sequence, refusal) => refused.push(refusal),
  });
  for (let sent = 1; sent <= 5; sent++) {
    sender.send(0, "alice", "{}");
    await until(() => sender.counts.answered === sent, "an answer", undefined, () => refused);
  }
  sender.close();
  assertEquals([refused, server.connections], [[], 5]);
});

Deno.test("HttpSender takes what is not answered in time as refused, and tells whose it was", async () => {
  await using server = new Server(() => {});
  const refused: unknown[] = [];
  const sender = await HttpSender.open([loopback(server.port)], 1, {
    patienceMs: 50,
    onRefused: (...refusal) => refused.push(refusal),
  });
  sender.send(7, "alice", "{}", 3);
  await until(() => refused.length > 0, "the send to be given up");
  sender.close();
  assertEquals(refused, [[7, 3, { status: 0, code: "", reason: "no answer in 0.05 s" }]]);
});

Deno.test("HttpSender can't be opened where nobody listens, and leaves nothing open", async () => {
  await using server = new Server(() => {});
  using port = OwnPort.take();
  await assertRejects(
    () => HttpSender.open([loopback(server.port), loopback(port.number)], 4),
    Deno.errors.ConnectionRefused,
  );
});
