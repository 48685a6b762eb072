/**
 * A wire that can be damaged: a proxy between a client and a service that passes bytes on both ways, until it is told
 * to cut connections with a TCP reset, or to take nothing more from the service, as a stalled client does.
 *
 * On `node:net`, because only there a connection can be reset (`raw_socket.ts` says why).
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { withDeadline } from "./deadline.ts";

const WAIT_MS = 20_000;

/** So much of what a client says first is looked at. */
const SAID_CHARACTERS = 4_096;

interface Pair {
  readonly client: Socket;
  readonly service: Socket;
  /** What the client said first. */
  said: string;
}

export class TcpProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  /** One promise per socket: whoever closes the proxy waits for all of them. */
  readonly #closings = new Set<Promise<void>>();
  #isStalled = false;
  /** Whether the answers to a client that has said this are held back. */
  #isHeld: (said: string) => boolean = () => false;
  #targetPort: number;
  /** Where every other connection goes. */
  #otherPort: number | undefined;
  #isOthersTurn = false;
  /** Where connections go when so many more have come. */
  #next: { left: number; readonly port: number } | undefined;

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.#targetPort = targetPort;
  }

  /** Listens on a free port, and passes on to this one. */
  static async start(targetPort: number): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: false });
    const proxy = new TcpProxy(server, targetPort);
    server.on("connection", (client: Socket) => proxy.#join(client));
    const listening = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", () => listening.resolve());
    await withDeadline(listening.promise, WAIT_MS, "the proxy to listen");
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** How many connections pass through it. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** The same address, by way of this proxy. */
  through(url: string): string {
    const target = new URL(url);
    target.port = String(this.port);
    return target.href;
  }

  /** Resets every connection, on both sides. */
  cut(): void {
    for (const { client, service } of this.#pairs) {
      client.resetAndDestroy();
      service.resetAndDestroy();
    }
  }

  /** As `turn`, once so many more connections have come. */
  turnAfter(connections: number, targetPort: number): void {
    this.#next = { left: connections, port: targetPort };
  }

  /** New connections go to this port from now on; those that are there stay where they are. */
  turn(targetPort: number): void {
    this.#targetPort = targetPort;
    this.#otherPort = undefined;
  }

  /** New connections go in turns to where they went, and to this port, as by a load balancer. */
  share(otherPort: number): void {
    this.#otherPort = otherPort;
    this.#isOthersTurn = false;
  }

  /**
   * Passes nothing more on, on the connections there are, and tells nobody, as a firewall that has forgotten them. New ones
   * work.
   */
  forget(): void {
    for (const { client, service } of this.#pairs) {
      client.pause();
      service.pause();
    }
  }

  /** Holds back what the service answers to some clients, by what they said first; the others notice nothing. */
  hold(isHeld: (said: string) => boolean): void {
    this.#isHeld = isHeld;
    for (const pair of this.#pairs) this.#holdOrNot(pair);
  }

  /** Takes nothing more from the service; what clients say is still passed on. */
  stall(): void {
    this.#isStalled = true;
    for (const { service } of this.#pairs) service.pause();
  }

  /** Goes on taking from the service. */
  flow(): void {
    this.#isStalled = false;
    for (const { service } of this.#pairs) service.resume();
  }

  #holdOrNot({ service, said }: Pair): void {
    if (this.#isHeld(said)) service.pause();
    else if (!this.#isStalled) service.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client, service } of this.#pairs) {
      client.destroy();
      service.destroy();
    }
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    await withDeadline(
      Promise.all([closed.promise, ...this.#closings]),
      WAIT_MS,
      "the proxy to close",
      () => `${this.#pairs.size} connections are open`,
    );
  }

  #join(client: Socket): void {
    if (this.#next && this.#next.left-- === 0) this.#targetPort = this.#next.port;
    const isOthers = this.#otherPort !== undefined && this.#isOthersTurn;
    this.#isOthersTurn = !this.#isOthersTurn;
    const service = connect({ host: "127.0.0.1", port: isOthers ? this.#otherPort! : this.#targetPort });
    const pair: Pair = { client, service, said: "" };
    this.#pairs.add(pair);
    client.on("data", (chunk) => {
      if (pair.said.length >= SAID_CHARACTERS) return;
      pair.said += chunk.toString("latin1");
      if (this.#isHeld(pair.said)) service.pause();
    });
    this.#pass(client, service, pair);
    this.#pass(service, client, pair);
    if (this.#isStalled) service.pause();
  }

  /** Passes on what comes from one side; when that side ends, ends the other. */
  #pass(from: Socket, to: Socket, pair: Pair): void {
    from.on("data", (chunk) => to.write(chunk));
    from.on("error", () => {}); // closes too
    const closed = Promise.withResolvers<void>();
    this.#closings.add(closed.promise);
    from.on("close", () => {
      to.destroy();
      this.#pairs.delete(pair);
      this.#closings.delete(closed.promise);
      closed.resolve();
    });
  }
}
