/** Many runs of the Python client's driver in one process, since a process for each takes its time to start. */
import { fileURLToPath } from "node:url";
import type { Program, StartProgram } from "../../conformance/program.ts";
import { PYTHON } from "../../testkit/programs.ts";

const HOST = fileURLToPath(new URL("python_host.py", import.meta.url));
const DRIVER = fileURLToPath(new URL("../../conformance/drivers/python.py", import.meta.url));

interface Told {
  readonly number: number;
  readonly line?: Record<string, unknown>;
  readonly ended?: boolean;
}

interface Run {
  readonly lines: Record<string, unknown>[];
  hasEnded: boolean;
  readonly onChange: () => void;
}

export class PythonHost implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  readonly #runs: Run[] = [];
  readonly #reading: Promise<unknown>;
  /** What it has said on the side. */
  trouble = "";

  /** @param pace What it multiplies its times by. */
  constructor(pace: number) {
    this.#child = new Deno.Command(PYTHON, {
      args: [HOST, DRIVER, `${pace}`],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#orders = this.#child.stdin.getWriter();
    this.#reading = Promise.all([this.#read(), this.#readTrouble()]);
  }

  readonly start: StartProgram = (env, onChange) => {
    const run: Run = { lines: [], hasEnded: false, onChange };
    const number = this.#runs.push(run) - 1;
    this.#order({ number, env });
    const { trouble } = this;
    return {
      lines: run.lines,
      trouble,
      get hasEnded() {
        return run.hasEnded;
      },
      // deno-lint-ignore require-await -- it has nothing of its own that could end
      end: async () => this.#order({ number }),
    } satisfies Program;
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#orders.close().catch(() => {});
    await Promise.all([this.#reading, this.#child.status]);
  }

  #order(order: Record<string, unknown>): void {
    void this.#orders.write(new TextEncoder().encode(JSON.stringify(order) + "\n"));
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#onTold(JSON.parse(line));
    }
  }

  #onTold({ number, line, ended }: Told): void {
    const run = this.#runs[number]!;
    if (line !== undefined) run.lines.push(line);
    if (ended) run.hasEnded = true;
    run.onChange();
  }

  async #readTrouble(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.trouble += text;
  }
}
