/**
 * What a command has of the outside world: the environment, the standard streams, a way to be stopped. Commands
 * get it as an argument, so that a test can be the terminal. Nothing here ends the process.
 */

/** The standard streams of a command. */
export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** All of standard input. */
  input(): Promise<Uint8Array<ArrayBuffer>>;
  /** Whether a person types standard input. */
  readonly isInteractive: boolean;
  /** Whether a person reads standard error as it is written. @default false */
  readonly isErrTerminal?: boolean;
  /** Width of the help, in characters. */
  readonly columns: number;
  /** Stops a command that does not end by itself, as Ctrl+C does. */
  readonly stop?: AbortSignal;
  /** How long a service may take to answer, in milliseconds. @default 10000 */
  readonly patienceMs?: number;
}

/** Where a command runs. */
export interface Shell {
  readonly env: Readonly<Record<string, string>>;
  readonly io: Io;
  /** What the process ends with unless something is thrown. */
  exitCode: number;
}

/** The streams of this process. */
export function terminal(): Io {
  return {
    out: (text) => writeAll(Deno.stdout, text),
    err: (text) => writeAll(Deno.stderr, text),
    input: () => new Response(Deno.stdin.readable).bytes(),
    isInteractive: Deno.stdin.isTerminal(),
    isErrTerminal: Deno.stderr.isTerminal(),
    columns: Deno.stdout.isTerminal() ? Deno.consoleSize().columns : 100,
  };
}

/** A signal that aborts at Ctrl+C or with `io.stop`. Disposing of it gives Ctrl+C its usual meaning back. */
export function interruption(io: Io): Disposable & { readonly signal: AbortSignal } {
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  Deno.addSignalListener("SIGINT", interrupt);
  return {
    signal: io.stop === undefined ? interrupted.signal : AbortSignal.any([io.stop, interrupted.signal]),
    [Symbol.dispose]: () => Deno.removeSignalListener("SIGINT", interrupt),
  };
}

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  // A pipe may take a part only.
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) {
    rest = rest.subarray(stream.writeSync(rest));
  }
}
