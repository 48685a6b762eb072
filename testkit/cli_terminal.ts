/**
 * For tests of the command line in their own process: a terminal that remembers what a command wrote, and
 * servers that are not ours, or not there, for it to talk to.
 */
import { assertEquals } from "@std/assert";
import { run } from "../src/cli/cli.ts";
import type { Io } from "../src/cli/shell.ts";
import { Bell, withDeadline } from "./deadline.ts";
import type { Service } from "./service.ts";

/** Runs a command and remembers what it writes. */
export class Terminal implements Io {
  readonly columns = 100;
  readonly isInteractive: boolean;
  readonly isErrTerminal: boolean;
  readonly patienceMs: number;
  stdout = "";
  stderr = "";
  readonly #stop = new AbortController();
  readonly #bell = new Bell();
  readonly #input: Uint8Array<ArrayBuffer>;

  constructor(
    options: {
      input?: string | Uint8Array<ArrayBuffer>;
      isInteractive?: boolean;
      isErrTerminal?: boolean;
      patienceMs?: number;
    } = {},
  ) {
    const { input = "", isInteractive = false, isErrTerminal = false, patienceMs = 10_000 } = options;
    this.#input = typeof input === "string" ? new TextEncoder().encode(input) : input;
    this.isInteractive = isInteractive;
    this.isErrTerminal = isErrTerminal;
    this.patienceMs = patienceMs;
  }

  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  out(text: string): void {
    this.stdout += text;
    this.#bell.ring();
  }

  err(text: string): void {
    this.stderr += text;
    this.#bell.ring();
  }

  input(): Promise<Uint8Array<ArrayBuffer>> {
    return Promise.resolve(this.#input);
  }

  /** What Ctrl+C does. */
  interrupt(): void {
    this.#stop.abort();
  }

  run(args: readonly string[], env: Record<string, string> = {}): Promise<number> {
    return withDeadline(run(args, env, this), 60_000, `userwire ${args.join(" ")}`);
  }

  until(text: string): Promise<void> {
    return this.#bell.until(
      () => this.stdout.includes(text) || this.stderr.includes(text),
      `"${text}"`,
      20_000,
      () => `it wrote ${JSON.stringify(this.stdout + this.stderr)}`,
    );
  }
}

/** Runs a command against the service. */
export async function command(service: Service, args: string[], io = new Terminal()): Promise<string> {
  const code = await io.run(args, { USERWIRE_URL: service.server.url });
  assertEquals(code, 0, io.stderr);
  return io.stdout;
}

/** A server that is not ours. It closes with the test. */
export function serveOther(handler: (request: Request) => Response): { url: string } & AsyncDisposable {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, handler);
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: () => server.shutdown() };
}
