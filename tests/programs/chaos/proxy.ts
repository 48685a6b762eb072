/**
 * A TCP proxy in front of the nodes, as a load balancer is: each connection goes to one of those that live. It can
 * do to a connection what networks do: cut it, or let nothing through for a while.
 */
import type { Chance } from "../../../testkit/random.ts";

interface Pair {
  readonly client: Deno.TcpConn;
  readonly server: Deno.TcpConn;
  /** While set, nothing is read from the server: its client stalls. */
  stalled: PromiseWithResolvers<void> | undefined;
  /** Whose it is, once that is known. */
  user?: string;
}

/** How a client says in the head of its handshake who it is. */
const USER = /^GET \S*[?&]user=([^&\s]+)/;

export class Proxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #pairs = new Set<Pair>();
  readonly #chance: Chance;
  readonly #accepting: Promise<void>;
  /** The newest of each user. */
  readonly #latest = new Map<string, Pair>();
  readonly #onCut: (user: string) => void;
  /** Ports of the nodes that live. */
  targets: readonly number[] = [];
  #isClosed = false;

  /** @param onCut Hears at once whose connection was cut; a busy client may notice that much later. */
  constructor(chance: Chance, onCut: (user: string) => void) {
    this.#chance = chance;
    this.#onCut = onCut;
    this.#accepting = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  get size(): number {
    return this.#pairs.size;
  }

  /** Cuts one in so many connections; returns how many that were. */
  cut(oneIn: number): number {
    const pairs = this.#pick(oneIn);
    for (const pair of pairs) {
      const { user } = pair;
      if (user !== undefined && this.#latest.get(user) === pair) this.#onCut(user);
      this.#end(pair);
    }
    return pairs.length;
  }

  /** Cuts one in so many connections, and lets nobody in until `letIn`; returns how many were cut. */
  sendAway(oneIn: number): number {
    this.#isClosed = true;
    return this.cut(oneIn);
  }

  letIn(): void {
    this.#isClosed = false;
  }

  /** Stalls one in so many for the time given; returns how many. */
  stall(oneIn: number, ms: number): number {
    const pairs = this.#pick(oneIn).filter((pair) => !pair.stalled);
    for (const pair of pairs) pair.stalled = Promise.withResolvers();
    setTimeout(() => {
      for (const pair of pairs) {
        pair.stalled?.resolve();
        pair.stalled = undefined;
      }
    }, ms);
    return pairs.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const pair of this.#pairs) this.#end(pair);
    await this.#accepting;
  }

  #pick(oneIn: number): Pair[] {
    return [...this.#pairs].filter(() => this.#chance.below(oneIn) === 0);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const port = this.targets[this.#chance.below(this.targets.length)];
      if (port === undefined || this.#isClosed) client.close();
      else void this.#serve(client, port);
    }
  }

  async #serve(client: Deno.TcpConn, port: number): Promise<void> {
    let server: Deno.TcpConn;
    try {
      server = await Deno.connect({ hostname: "127.0.0.1", port });
    } catch {
      client.close(); // a node that died a moment ago
      return;
    }
    const pair: Pair = { client, server, stalled: undefined };
    this.#pairs.add(pair);
    await Promise.all([this.#pipe(pair, client, server), this.#pipe(pair, server, client)]);
  }

  async #pipe(pair: Pair, from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        if (from === pair.server) await pair.stalled?.promise;
        const count = await from.read(buffer);
        if (count === null) break;
        if (from === pair.client && pair.user === undefined) this.#know(pair, buffer.subarray(0, count));
        for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
      }
    } catch {
      // One side is gone: so is the other.
    }
    this.#end(pair);
  }

  #know(pair: Pair, head: Uint8Array): void {
    const [, user = ""] = USER.exec(new TextDecoder().decode(head)) ?? [];
    pair.user = decodeURIComponent(user);
    this.#latest.set(pair.user, pair);
  }

  #end(pair: Pair): void {
    if (!this.#pairs.delete(pair)) return;
    pair.stalled?.resolve();
    pair.client.close();
    pair.server.close();
  }
}
