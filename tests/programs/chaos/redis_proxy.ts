/**
 * The address at which the nodes find their Redis, as a name, a Service or a load balancer is one: a TCP proxy
 * whose new connections can be led elsewhere while the old ones stay.
 *
 * What one side ends is ended for the other side only in that direction: a subscription says goodbye by a half-close, and
 * waits for Redis to hang up.
 */
interface Pair {
  readonly client: Deno.TcpConn;
  readonly server: Deno.TcpConn;
}

export class RedisProxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #pairs = new Set<Pair>();
  readonly #serving = new Set<Promise<void>>();
  readonly #accepting: Promise<void>;
  #target: number;

  /** @param target Port of the Redis that connections lead to. */
  constructor(target: number) {
    this.#target = target;
    this.#accepting = this.#accept();
  }

  /** What the nodes take for their Redis. */
  get url(): string {
    return `redis://127.0.0.1:${this.#listener.addr.port}`;
  }

  /** New connections lead to this port from now on; those that are there stay. */
  turn(port: number): void {
    this.#target = port;
  }

  /** Ends every connection. */
  cut(): void {
    for (const pair of this.#pairs) this.#end(pair);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await Promise.all([this.#accepting, ...this.#serving]);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const serving = this.#serve(client, this.#target).finally(() => this.#serving.delete(serving));
      this.#serving.add(serving);
    }
  }

  async #serve(client: Deno.TcpConn, port: number): Promise<void> {
    let server: Deno.TcpConn;
    try {
      server = await Deno.connect({ hostname: "127.0.0.1", port });
    } catch {
      client.close(); // nobody is there
      return;
    }
    const pair = { client, server };
    this.#pairs.add(pair);
    client.setNoDelay();
    server.setNoDelay();
    try {
      await Promise.all([pipe(client, server), pipe(server, client)]);
    } catch {
      // One side broke: so does the other.
    }
    this.#end(pair);
  }

  #end(pair: Pair): void {
    if (!this.#pairs.delete(pair)) return;
    pair.client.close();
    pair.server.close();
  }
}

async function pipe(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(16 * 1024);
  for (;;) {
    const count = await from.read(buffer);
    if (count === null) break;
    for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
  }
  await to.closeWrite();
}
