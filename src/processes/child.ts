/** One process of several, as the supervisor sees it: started, asked how it is, told what to do, and ended. */
import { messageOf } from "../protocol/errors.ts";
import { OpsPath } from "./ops_path.ts";
import type { Order, Place } from "./place.ts";
import { PERMISSIONS, V8_FLAGS } from "./rights.ts";

/** How a process is started, beside its place. */
export interface Program {
  /** Address of `main.ts`. */
  readonly main: string;
  /** What `serve` was given: flags, which each process reads again. */
  readonly flags: readonly string[];
}

/** How long a process may take to answer, in milliseconds. */
const ANSWER_MS = 2_000;
/** Whether it is up is asked so often, in milliseconds. */
const ASK_MS = 50;

/** How a process has ended. */
export interface Ending {
  readonly code: number;
  readonly signal: string | null;
}

export class Child {
  readonly place: Place;
  readonly pid: number;
  /** Resolves when it has ended. */
  readonly ended: Promise<Ending>;
  readonly #process: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #http: Deno.HttpClient;
  #hasEnded = false;

  /** @throws when the program can't be started. */
  constructor({ number, of, port }: Omit<Place, "opsPath">, { main, flags }: Program) {
    const path = new OpsPath();
    const opsPath = path.text;
    this.place = { number, of, port, opsPath };
    const command = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--quiet", ...PERMISSIONS, V8_FLAGS, main],
        ...["process", `${number}`, `${of}`, `${port}`, opsPath, ...flags],
      ],
      stdin: "piped",
      stdout: "inherit",
      stderr: "inherit",
    });
    try {
      this.#process = command.spawn();
    } catch (error) {
      path.remove();
      throw error;
    }
    this.pid = this.#process.pid;
    this.#orders = this.#process.stdin.getWriter();
    // A process that has ended takes no orders.
    this.#orders.closed.catch(() => {});
    this.#http = Deno.createHttpClient({ proxy: { transport: "unix", path: opsPath } });
    this.ended = this.#process.status.then(({ code, signal }) => {
      this.#hasEnded = true;
      // One that was killed has left it behind.
      path.remove();
      this.#http.close();
      this.#orders.close().catch(() => {});
      return { code, signal };
    });
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  order(order: Order): void {
    this.#orders.write(new TextEncoder().encode(`${order}\n`)).catch(() => {});
  }

  kill(): void {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended a moment ago.
    }
  }

  /**
   * Asks it for an answer of its own, such as `/readyz` or `/metrics`.
   * @throws when there is none in time.
   */
  async ask(
    path: string,
    init: Pick<RequestInit, "method" | "headers" | "body"> = {},
    withinMs = ANSWER_MS,
  ): Promise<Response> {
    if (this.#hasEnded) throw new Error("The process has ended");
    const signal = AbortSignal.timeout(withinMs);
    const response = await fetch(`http://localhost${path}`, { ...init, client: this.#http, signal });
    // Read here, under the deadline: a process may hang in the middle of its answer.
    return new Response(await response.text(), { status: response.status, headers: response.headers });
  }

  /** What it says of its readiness; when it says nothing, why it is not ready. */
  async readiness(): Promise<{ ready: boolean } & Record<string, unknown>> {
    try {
      return await (await this.ask("/readyz")).json();
    } catch (error) {
      return {
        ready: false,
        why: isTimeout(error) ? "The process does not answer" : "The process is starting or has ended",
        detail: messageOf(error),
      };
    }
  }

  /** Whether it takes the question and has nothing to say in time; one that can't be asked does not hang. */
  hangs(withinMs: number): Promise<boolean> {
    return this.ask("/readyz", {}, withinMs).then(() => false, isTimeout);
  }

  /** Resolves when it listens, or has ended. @returns Whether it listens. */
  isUp(): Promise<boolean> {
    return this.#until(() => true);
  }

  /** Resolves when it is ready, or has ended, or the time is up. @returns Whether it is ready. */
  isReady(withinMs: number): Promise<boolean> {
    const endMs = performance.now() + withinMs;
    return this.#until(({ ready }) => ready, () => performance.now() > endMs);
  }

  async #until(holds: (answer: { ready: boolean }) => boolean, isOver = () => false): Promise<boolean> {
    while (!this.#hasEnded && !isOver()) {
      const answer = await this.ask("/readyz").then((answer) => answer.json(), () => undefined);
      if (answer !== undefined && holds(answer)) return true;
      await new Promise((resolve) => setTimeout(resolve, ASK_MS));
    }
    return false;
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}
