/**
 * A real HAProxy with the settings of `deploy/haproxy.cfg`, in front of a service. It ends with the test:
 *
 *     await using proxy = await HaProxy.start(service.url);
 */
import { until, withDeadline } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { findHaProxy, HAPROXY_MISSING } from "./programs.ts";

const CONFIG = new URL("../../deploy/haproxy.cfg", import.meta.url).pathname;

export class HaProxy implements AsyncDisposable {
  readonly #port: OwnPort;
  readonly #child: Deno.ChildProcess;

  private constructor(port: OwnPort, child: Deno.ChildProcess) {
    this.#port = port;
    this.#child = child;
  }

  /** Resolves when the service answers through it. */
  static async start(serviceUrl: string): Promise<HaProxy> {
    const program = findHaProxy();
    if (program === undefined) throw new Error(HAPROXY_MISSING);
    const port = OwnPort.take();
    const child = new Deno.Command(program, {
      args: ["-q", "-f", CONFIG],
      env: { BIND: `127.0.0.1:${port}`, USERWIRE: new URL(serviceUrl).host },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const proxy = new HaProxy(port, child);
    const answers = async () => {
      const response = await fetch(`${proxy.url}readyz`).catch(() => undefined);
      await response?.body?.cancel();
      return response?.status === 200;
    };
    try {
      await until(answers, "HAProxy to pass requests on", 30_000);
      return proxy;
    } catch (error) {
      await proxy[Symbol.asyncDispose]();
      throw error;
    }
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It had ended by itself.
    }
    await withDeadline(this.#child.status, 20_000, "HAProxy to end");
    this.#port[Symbol.dispose]();
  }
}
