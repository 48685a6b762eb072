/**
 * A relay between clients and a service that is wrong on purpose, in known numbers: of the messages of each socket it
 * loses one, doubles one, and gives one too late; and sends may stand still for a while.
 */
export interface Faults {
  /** Which message of each socket, from 1 on, has the fault. */
  readonly lose?: number;
  readonly double?: number;
  /** It comes after the next one. */
  readonly late?: number;
  /** How long each send takes longer, in milliseconds. */
  readonly slowMs?: number;
  /** From which send on all wait, and how long, in milliseconds. */
  readonly stall?: { readonly from: number; readonly ms: number };
}

export class FaultyRelay implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #target: string;
  readonly #faults: Faults;
  #sends = 0;
  #stalled: Promise<void> | undefined;

  constructor(target: string, faults: Faults) {
    this.#target = target;
    this.#faults = faults;
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      (request) => this.#handle(request),
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #handle(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const to = new URL(pathname + search, this.#target);
    if (request.headers.has("upgrade")) return await this.#join(request, to);
    const body = await request.text();
    const { slowMs = 0, stall } = this.#faults;
    if (slowMs > 0) await pause(slowMs);
    if (++this.#sends === stall?.from) this.#stalled = pause(stall.ms);
    await this.#stalled;
    const { headers } = request;
    const response = await fetch(to, { method: request.method, headers, body });
    return new Response(await response.text(), { status: response.status, headers: response.headers });
  }

  async #join(request: Request, to: URL): Promise<Response> {
    to.protocol = "ws:";
    const service = new WebSocket(to, "userwire.v1");
    const early: string[] = [];
    let pass = (frame: string): void => void early.push(frame);
    service.onmessage = ({ data }) => pass(data);
    await new Promise((resolve) => service.onopen = resolve);
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    socket.onopen = () => {
      pass = this.#passTo(socket);
      early.forEach(pass);
    };
    socket.onclose = () => service.close();
    service.onclose = () => socket.close();
    return response;
  }

  #passTo(socket: WebSocket): (frame: string) => void {
    const { lose, double, late } = this.#faults;
    let number = 0;
    let held: string | undefined;
    return (frame) => {
      if (!frame.startsWith('{"t":"m"')) return socket.send(frame);
      number++;
      if (number === lose) return;
      if (number === late) return void (held = frame);
      socket.send(frame);
      if (number === double) socket.send(frame);
      if (held !== undefined) socket.send(held);
      held = undefined;
    };
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
