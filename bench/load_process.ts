/** A load generator in its own process, seen from the benchmark that started it. */
import { withDeadline } from "../testkit/deadline.ts";
import type { Answer, Scenario } from "./load/generator.ts";
import { linesOf } from "./load/lines.ts";
import type { Scenarios, Setup } from "./load/scenarios.ts";

type Options<Name extends Scenario> = Parameters<Scenarios[Name]>[0];
type Result<Name extends Scenario> = Awaited<ReturnType<Scenarios[Name]>>;

const START_MS = 20_000;
const SCENARIO_MS = 120_000;
const END_MS = 3_000;

export class LoadProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncGenerator<string>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #ready: Promise<unknown>;

  private constructor(child: Deno.ChildProcess, setup: Setup) {
    this.#child = child;
    this.#lines = linesOf(child.stdout);
    this.#input = child.stdin.getWriter();
    this.#ready = this.#ask(setup, START_MS);
    this.#ready.catch(() => {}); // reported by the first call
  }

  /** Starts it; it connects to the system at once. @param flags More for Deno. */
  static start(setup: Setup, flags: readonly string[] = []): LoadProcess {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        // To come from an address is a permission, too.
        `--allow-net=${["127.0.0.1", ...setup.sources ?? []]}`,
        "--no-prompt",
        ...flags,
        new URL("load/generator.ts", import.meta.url).href,
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    return new LoadProcess(child, setup);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Runs a scenario to its end. */
  async run<Name extends Scenario>(scenario: Name, options: Options<Name>): Promise<Result<Name>> {
    await this.#ready;
    return await this.#ask({ scenario, options }, SCENARIO_MS) as Result<Name>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), END_MS);
    await this.#input.close().catch(() => {}); // it has ended by itself
    await this.#child.status;
    clearTimeout(timer);
    await this.#lines.return(undefined);
  }

  async #ask(message: object, ms: number): Promise<unknown> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(message) + "\n"));
    const line = await withDeadline(this.#lines.next(), ms, "the load generator to answer");
    if (line.done) throw new Error("The load generator ended");
    const answer = JSON.parse(line.value) as Answer;
    if ("error" in answer) throw new Error(`The load generator failed: ${answer.error}`);
    return answer.result;
  }
}
