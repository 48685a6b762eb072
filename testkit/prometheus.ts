/**
 * A real Prometheus that reads nodes and works out alerts, and its `promtool`. It ends with whoever started it:
 *
 *     await using prometheus = await Prometheus.start({ rules, targets: ["127.0.0.1:8765"] });
 */
import { fileURLToPath } from "node:url";
import { until, withDeadline } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { findProgram } from "./programs.ts";

/** What to tell somebody who has neither. */
const PROMETHEUS_MISSING =
  "This needs Prometheus: install it, or run it on Debian, whose package it then unpacks";
/** Where Debian's package is unpacked, beside all that is built. */
const UNPACKED = new URL("../dist/prometheus/", import.meta.url);
const PACKAGE = "prometheus";
const START_MS = 30_000;
const STOP_MS = 30_000;

/**
 * Path of one of its programs. Where none is installed, Debian's package is fetched and unpacked, not installed: that would
 * start a service on this machine.
 */
export async function findPrometheus(name: "prometheus" | "promtool"): Promise<string> {
  const installed = findProgram(name);
  if (installed !== undefined) return installed;
  const path = fileURLToPath(new URL(`usr/bin/${name}`, UNPACKED));
  if (!await isFile(path)) await unpack();
  if (!await isFile(path)) throw new Error(PROMETHEUS_MISSING);
  return path;
}

async function isFile(path: string): Promise<boolean> {
  return (await Deno.stat(path).catch(() => undefined))?.isFile ?? false;
}

async function unpack(): Promise<void> {
  await Deno.mkdir(UNPACKED, { recursive: true });
  const cwd = fileURLToPath(UNPACKED);
  const run = (command: string, ...args: string[]) => output(command, args, { cwd });
  const fetchIt = () => run("apt-get", "-q", "download", PACKAGE);
  // The lists of packages of a fresh machine are empty.
  if (!(await fetchIt()).success) {
    await run("apt-get", "-q", "update");
    const { success, text } = await fetchIt();
    if (!success) throw new Error(`${PROMETHEUS_MISSING}: ${text}`);
  }
  for (const { name } of Deno.readDirSync(UNPACKED)) {
    if (!name.endsWith(".deb")) continue;
    await run("dpkg-deb", "-x", name, ".");
    await Deno.remove(new URL(name, UNPACKED));
  }
}

/** Runs a program to its end. Without it there is no success. */
export async function output(
  command: string,
  args: readonly string[],
  options: Pick<Deno.CommandOptions, "cwd" | "env"> = {},
): Promise<{ success: boolean; text: string }> {
  try {
    const run = new Deno.Command(command, { args: [...args], stdin: "null", ...options });
    const { success, stdout, stderr } = await run.output();
    return { success, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } catch (error) {
    return { success: false, text: `${error}` };
  }
}

export interface PrometheusOptions {
  /** The text of a file of rules. */
  readonly rules: string;
  /** Each with its scheme, as `url` of a service has it. */
  readonly targets: readonly string[];
  /** How often nodes are read and rules are worked out. */
  readonly everyS: number;
}

/** An alert that waits for its time, or is told of. */
export interface ActiveAlert {
  readonly labels: Readonly<Record<string, string>> & { readonly alertname: string };
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: "pending" | "firing";
}

export class Prometheus implements AsyncDisposable {
  readonly #port = OwnPort.take();
  readonly #dir: string;
  #child: Deno.ChildProcess | undefined;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  /** Resolves when it answers. */
  static async start(options: PrometheusOptions): Promise<Prometheus> {
    const program = await findPrometheus("prometheus");
    const prometheus = new Prometheus(await Deno.makeTempDir({ prefix: "userwire-prometheus-" }));
    try {
      await prometheus.#launch(program, options);
      return prometheus;
    } catch (error) {
      await prometheus[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #launch(program: string, { rules, targets, everyS }: PrometheusOptions): Promise<void> {
    const of = (scheme: string) =>
      targets.filter((target) => target.startsWith(`${scheme}:`)).map((target) => new URL(target).host);
    const jobs = ["http", "https"].map((scheme) => ({
      job_name: scheme,
      scheme,
      tls_config: { insecure_skip_verify: true },
      static_configs: [{ targets: of(scheme), labels: { job: "userwire" } }],
    }));
    await Deno.writeTextFile(`${this.#dir}/rules.yml`, rules);
    // JSON is YAML.
    const config = {
      global: {
        scrape_interval: `${everyS}s`,
        scrape_timeout: `${everyS}s`,
        evaluation_interval: `${everyS}s`,
      },
      rule_files: ["rules.yml"],
      scrape_configs: jobs,
    };
    await Deno.writeTextFile(`${this.#dir}/prometheus.yml`, JSON.stringify(config));
    const log = await Deno.open(`${this.#dir}/log`, { write: true, create: true });
    this.#child = new Deno.Command(program, {
      args: [
        `--config.file=${this.#dir}/prometheus.yml`,
        `--storage.tsdb.path=${this.#dir}/data`,
        `--web.listen-address=127.0.0.1:${this.#port}`,
        "--log.level=warn",
      ],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    void this.#child.stderr.pipeTo(log.writable).catch(() => {});
    await until(
      async () => {
        const response = await fetch(`${this.#url}/-/ready`).catch(() => undefined);
        await response?.body?.cancel();
        return response?.ok === true;
      },
      "Prometheus to be ready",
      START_MS,
      () => Deno.readTextFileSync(`${this.#dir}/log`).slice(-2_000),
    );
  }

  /** The alerts that there are now. */
  async alerts(): Promise<ActiveAlert[]> {
    return (await this.#ask("alerts")).alerts as ActiveAlert[];
  }

  /** How many series answer a question. @throws when Prometheus does not understand it. */
  async count(expr: string): Promise<number> {
    return ((await this.#ask(`query?query=${encodeURIComponent(expr)}`)).result as unknown[]).length;
  }

  /** When the first series that answers a question was read, in Unix seconds; empty when none does. */
  async readAt(expr: string): Promise<string> {
    const { result } = await this.#ask(`query?query=${encodeURIComponent(`timestamp(${expr})`)}`);
    return (result as { value: [number, string] }[])[0]?.value[1] ?? "";
  }

  get #url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async #ask(path: string): Promise<Record<string, unknown>> {
    const answer = await (await fetch(`${this.#url}/api/v1/${path}`)).json();
    if (answer.status !== "success") throw new Error(`${path}: ${answer.error}`);
    return answer.data;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child?.kill("SIGKILL");
    if (this.#child) await withDeadline(this.#child.status, STOP_MS, "Prometheus to end");
    this.#port[Symbol.dispose]();
    await Deno.remove(this.#dir, { recursive: true });
  }
}
