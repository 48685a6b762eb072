/** The program under test: what it writes, and whether it has ended. */

export interface Program {
  /** Lines that it has written, parsed. */
  readonly lines: readonly Record<string, unknown>[];
  readonly hasEnded: boolean;
  /** What it has said on the side, for the report. */
  readonly trouble: string;
  /** Ends it, if it has not ended by itself. */
  end(): Promise<void>;
}

/**
 * @param env What the program is told.
 * @param onChange Called when it has written a line, and when it has ended.
 */
export type StartProgram = (env: Record<string, string>, onChange: () => void) => Program;

/** Runs a command: each line of its standard output is to be a JSON object. */
export function startCommand(command: string, args: readonly string[]): StartProgram {
  return (env, onChange) => new CommandProgram(command, args, env, onChange);
}

class CommandProgram implements Program {
  readonly lines: Record<string, unknown>[] = [];
  hasEnded = false;
  trouble = "";
  readonly #child: Deno.ChildProcess;
  readonly #onChange: () => void;
  readonly #over: Promise<unknown>;

  constructor(command: string, args: readonly string[], env: Record<string, string>, onChange: () => void) {
    this.#onChange = onChange;
    const stdio = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
    // A group of its own: a shell or npx may be in between.
    this.#child = new Deno.Command(command, { args: [...args], env, ...stdio, detached: true }).spawn();
    this.#over = Promise.all([this.#read(), this.#readTrouble()]);
  }

  async end(): Promise<void> {
    try {
      Deno.kill(-this.#child.pid, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it had ended
    }
    await this.#over;
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#onLine(line);
    }
    await this.#child.status;
    this.hasEnded = true;
    this.#onChange();
  }

  #onLine(line: string): void {
    try {
      this.lines.push(Object(JSON.parse(line)));
    } catch {
      this.trouble += `a line on its standard output is no JSON: ${line}\n`;
    }
    this.#onChange();
  }

  async #readTrouble(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.trouble += text;
  }
}
