/** A real reverse proxy in a process of its own, in front of services. It ends with the test. */
import { until, withDeadline } from "./deadline.ts";
import type { OwnPort } from "./own_port.ts";

/** Where a proxy ends TLS. */
export interface ProxyTls {
  /** Certificate of the authority, in PEM. */
  readonly ca: string;
  /** Files of the certificate and its key. */
  readonly cert: string;
  readonly key: string;
}

export interface ProxyCommand {
  /** What it is called in errors. */
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly port: OwnPort;
  readonly tls?: ProxyTls | undefined;
  /** Folder that goes with it. */
  readonly dir?: string;
}

export class Proxy implements AsyncDisposable {
  readonly #command: ProxyCommand;
  readonly #child: Deno.ChildProcess;

  private constructor(command: ProxyCommand, child: Deno.ChildProcess) {
    this.#command = command;
    this.#child = child;
  }

  /** Resolves when a service answers through it. */
  static async start(command: ProxyCommand): Promise<Proxy> {
    const { name, program, args, env = {}, tls } = command;
    const child = new Deno.Command(program, {
      args: [...args],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const proxy = new Proxy(command, child);
    using client = Deno.createHttpClient(tls ? { caCerts: [tls.ca] } : {});
    let last: unknown;
    const answers = async () => {
      try {
        const response = await fetch(`${proxy.url}readyz`, { client });
        await response.body?.cancel();
        last = response.status;
      } catch (error) {
        last = error;
      }
      return last === 200;
    };
    try {
      await until(answers, `${name} to pass requests on`, 20_000, () => `the last answer was ${last}`);
      return proxy;
    } catch (error) {
      await proxy[Symbol.asyncDispose]();
      throw error;
    }
  }

  get url(): string {
    const { tls, port } = this.#command;
    return tls ? `https://localhost:${port}/` : `http://127.0.0.1:${port}/`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { name, port, dir } = this.#command;
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It had ended by itself.
    }
    try {
      await withDeadline(
        this.#child.status,
        20_000,
        `${name} to end`,
        () => `process ${this.#child.pid} lives`,
      );
    } finally {
      port[Symbol.dispose]();
      if (dir !== undefined) await Deno.remove(dir, { recursive: true });
    }
  }
}
