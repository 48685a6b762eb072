/**
 * The soak's end of a node: starts its process, asks it for reports, stops it. What the process does is in
 * `node.ts`.
 */
import { withDeadline } from "../../../testkit/deadline.ts";
import type { Report } from "./node.ts";
import { lines } from "./lines.ts";

const START_MS = 20_000;
const REPORT_MS = 10_000;
const STOP_MS = 20_000;

export class NodeProcess implements AsyncDisposable {
  readonly name: string;
  /** Base of the HTTP API, with a slash at its end. */
  readonly url: string;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: AsyncGenerator<string>;

  private constructor(
    name: string,
    url: string,
    parts: {
      child: Deno.ChildProcess;
      input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
      output: AsyncGenerator<string>;
    },
  ) {
    this.name = name;
    this.url = url;
    this.#child = parts.child;
    this.#input = parts.input;
    this.#output = parts.output;
  }

  /**
   * @param name Also the name of its log file.
   * @param settings By the names of their variables; those of this process are not handed on.
   */
  static async start(name: string, settings: Readonly<Record<string, string>>): Promise<NodeProcess> {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--v8-flags=--expose-gc",
        `${import.meta.dirname}/node.ts`,
        JSON.stringify(settings),
        name,
      ],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const output = lines(child.stdout);
    const { value } = await withDeadline(output.next(), START_MS, `${name} to start`);
    if (value === undefined) throw new Error(`${name} ended at once: its reason is above`);
    return new NodeProcess(name, JSON.parse(value).url, {
      child,
      input: child.stdin.getWriter(),
      output,
    });
  }

  /** How the process ends, whenever it does. */
  get ended(): Promise<Deno.CommandStatus> {
    return this.#child.status;
  }

  /** What it holds, garbage aside. One caller at a time. */
  async report(): Promise<Report> {
    await this.#write("report\n");
    const { value } = await withDeadline(this.#output.next(), REPORT_MS, `the report of ${this.name}`);
    if (value === undefined) throw new Error(`${this.name} has ended`);
    return JSON.parse(value);
  }

  /** Shuts it down; resolves with its exit code. */
  async stop(): Promise<number> {
    await this.#write("stop\n");
    const { code } = await withDeadline(this.#child.status, STOP_MS, `${this.name} to stop`);
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
    await this.#input.close().catch(() => {}); // broken when the process has ended
    await this.#output.return(undefined);
  }

  async #write(text: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(text));
  }
}
