/**
 * Is the load generator right? A service that is wrong on purpose, in known numbers, and the generator's verdict on
 * it: `deno task compare --self-check`. It drops, doubles, holds back and misdelivers one message in a hundred each,
 * delays all of them, and once stands still, which a generator that waits for answers would not notice.
 */
import { LoadProcess } from "./load_process.ts";

const USERS = 7;
const PER_SECOND = 1_000;
const SECONDS = 2;
const DELAY_MS = 30;
const STALL_MS = 300;
/** Of so many messages one has each fault. */
const EVERY = 100;
const EACH_FAULT = PER_SECOND * SECONDS / EVERY;

/** @returns Whether the generator found exactly what is wrong. */
export async function selfCheck(own: (started: AsyncDisposable) => void): Promise<boolean> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  const service = stack.use(new FaultyService());
  const load = stack.use(LoadProcess.start({
    ports: [service.port, service.port],
    by: "http",
    redisPort: 0,
    bytes: 128,
  }));
  const { opened } = await load.run("openUsers", { users: USERS, atOnce: USERS });
  const steady = await load.run("steady", { perSecond: PER_SECOND, seconds: SECONDS, isTimed: true });
  const { late } = await load.run("closeUsers", {});

  const exactly = (wanted: number) => ({ wanted: `${wanted}`, is: (found: number) => found === wanted });
  const atLeast = (wanted: number) => ({
    wanted: `${wanted} or more`,
    is: (found: number) => found >= wanted,
  });
  const checks = [
    { what: "sockets opened", found: opened, ...exactly(USERS) },
    { what: "messages sent", found: steady.sent, ...exactly(PER_SECOND * SECONDS) },
    { what: "lost", found: steady.lost, ...exactly(EACH_FAULT) },
    { what: "doubled", found: steady.duplicated, ...exactly(EACH_FAULT) },
    { what: "disordered", found: steady.disordered, ...exactly(EACH_FAULT) },
    { what: "misdelivered", found: steady.misdelivered, ...exactly(EACH_FAULT) },
    { what: "p50 ms", found: steady.p50Ms, ...atLeast(DELAY_MS) },
    // The stall delays 15 % of all messages, those that fall due meanwhile included.
    { what: "p99 ms", found: steady.p99Ms, ...atLeast(STALL_MS / 2) },
    { what: "closed late", found: late, ...exactly(0) },
  ];
  for (const { what, found, wanted, is } of checks) {
    console.log(`${is(found) ? "ok   " : "WRONG"} ${what}: ${Math.round(found)}, wanted ${wanted}`);
  }
  return checks.every(({ found, is }) => is(found));
}

class FaultyService implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #sockets = new Map<string, WebSocket>();
  /** Held back until the user's next message has gone. */
  readonly #held = new Map<string, string>();
  #count = 0;

  constructor() {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      (request) => this.#handle(request),
    );
  }

  get port(): number {
    return this.#server.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #handle(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (request.headers.has("upgrade")) {
      const { socket, response } = Deno.upgradeWebSocket(request);
      this.#sockets.set(url.searchParams.get("username")!, socket);
      return response;
    }
    const username = url.pathname.split("/")[3]!;
    this.#deliver(username, await request.text());
    return Response.json({ sockets: 1 });
  }

  #deliver(username: string, payload: string): void {
    const number = this.#count++;
    if (number === PER_SECOND) block(STALL_MS);
    switch (number % EVERY) {
      case 10:
        return;
      case 20:
        this.#send(username, payload);
        break;
      case 30:
        this.#held.set(username, payload);
        return;
      case 40: {
        const other = [...this.#sockets.keys()].find((name) => name !== username)!;
        this.#send(other, payload);
      }
    }
    this.#send(username, payload);
    const held = this.#held.get(username);
    if (held === undefined) return;
    this.#held.delete(username);
    this.#send(username, held);
  }

  #send(username: string, payload: string): void {
    setTimeout(() => this.#sockets.get(username)!.send(payload), DELAY_MS);
  }
}

/** Stands still, as a garbage collection or a hung disk would make it. */
function block(ms: number): void {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs) { /* nothing else runs */ }
}
