/**
 * One fault of a night on call: nodes that a real Prometheus reads, what it fires, and what whoever is called sees first.
 * The rules are those of `deploy/monitoring/`, in shorter times.
 */
import { Terminal } from "../../../testkit/cli_terminal.ts";
import { until } from "../../../testkit/deadline.ts";
import { type ActiveAlert, Prometheus } from "../../../testkit/prometheus.ts";
import type { Service } from "../../../testkit/service.ts";
import { openClient, type WsClient } from "../../../testkit/ws_client.ts";

/** A minute of the rules is so many seconds here. */
const MINUTE_S = 3;
const EVERY_S = 1;
/** An alert that has not come by then does not come. */
const FIRES_MS = 90_000;
const ENDS_MS = 120_000;
const LOOK_MS = 300;
/** How many readings Prometheus has before anything happens: rises need something to rise from. */
const READINGS = 3;
const SECONDS = { s: 1, m: 60, h: 3_600 } as const;

/** The rules with each time, and each age that is waited for, in minutes of the night. */
export function shortened(rules: string): string {
  const short = (count: string, unit: string) =>
    `${
      Math.max(EVERY_S, Math.round(Number(count) * SECONDS[unit as keyof typeof SECONDS] * MINUTE_S / 60))
    }s`;
  return rules
    .replaceAll(/\[(\d+)([smh])\]/g, (_, count, unit) => `[${short(count, unit)}]`)
    .replaceAll(/offset (\d+)([smh])/g, (_, count, unit) => `offset ${short(count, unit)}`)
    .replaceAll(/for: (\d+)([smh])/g, (_, count, unit) => `for: ${short(count, unit)}`)
    .replace("oldest_seconds) > 300", `oldest_seconds) > ${300 * MINUTE_S / 60}`);
}

export class Night implements AsyncDisposable {
  /** All that fired, with what was said of it, and after how many seconds of the fault. */
  readonly fired = new Map<string, { summary: string; afterS: number }>();
  readonly #stack = new AsyncDisposableStack();
  readonly #rules: string;
  #prometheus: Prometheus | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #looking: Promise<void> = Promise.resolve();
  #faultMs = 0;

  /** @param rules The text of the rules. */
  constructor(rules: string) {
    this.#rules = shortened(rules);
  }

  /** What the fault needs goes with it. */
  use<T extends AsyncDisposable | Disposable>(one: T): T {
    return this.#stack.use(one);
  }

  /** Prometheus reads the nodes; resolves when it has done so a few times, and finds nothing amiss. */
  async read(...urls: string[]): Promise<void> {
    const prometheus = this.#prometheus = this.use(
      await Prometheus.start({ rules: this.#rules, targets: urls, everyS: EVERY_S }),
    );
    await until(
      async () => await prometheus.count(`count_over_time(up[1m]) >= ${READINGS}`) === urls.length,
      "Prometheus to have read the nodes",
      FIRES_MS,
    );
    this.#faultMs = performance.now();
    this.#watch = setInterval(() => this.#looking = this.#look(), LOOK_MS);
  }

  /** Resolves when Prometheus has read that so often, one after the other, in the last moments. */
  async seen(expr: string, times: number): Promise<void> {
    let readings = 0, lastAt = "";
    await until(
      async () => {
        const at = await this.#prometheus!.readAt(expr);
        if (at !== "" && at !== lastAt) readings++;
        lastAt = at;
        return readings > times;
      },
      `Prometheus to read ${expr}`,
      FIRES_MS,
    );
  }

  /** Resolves with the alert once it is told of. */
  async fires(alertname: string): Promise<ActiveAlert> {
    let last: ActiveAlert[] = [];
    const find = () => last.find(({ labels, state }) => labels.alertname === alertname && state === "firing");
    await until(
      async () => {
        last = await this.#prometheus!.alerts();
        return find() !== undefined;
      },
      `${alertname} to fire`,
      FIRES_MS,
      () => last.map(({ labels, state }) => `${labels.alertname} ${state}`),
    );
    this.#note(last);
    return find()!;
  }

  /** Resolves when it is over. */
  async ends(alertname: string): Promise<void> {
    await until(
      async () => !(await this.#prometheus!.alerts()).some(({ labels }) => labels.alertname === alertname),
      `${alertname} to end`,
      ENDS_MS,
    );
  }

  /** Framed sockets, one for each user. */
  async open(service: Service, users: readonly string[]): Promise<WsClient[]> {
    const clients = [];
    for (const user of users) {
      const client = this.use(await openClient(service.socketUrl(user), ["userwire.v1"]));
      await client.nextJson();
      clients.push(client);
    }
    return clients;
  }

  /** Does it again and again, beside all else, until the night is over. */
  steadily(everyMs: number, act: () => Promise<unknown>): void {
    const under = new Set<Promise<unknown>>();
    const timer = setInterval(() => {
      const one = act().catch(() => {}).finally(() => under.delete(one));
      under.add(one);
    }, everyMs);
    this.#stack.defer(async () => {
      clearInterval(timer);
      await Promise.all(under);
    });
  }

  #note(alerts: readonly ActiveAlert[]): void {
    for (const { labels: { alertname }, annotations, state } of alerts) {
      if (state !== "firing" || this.fired.has(alertname)) continue;
      const afterS = Math.round((performance.now() - this.#faultMs) / 1_000);
      this.fired.set(alertname, { summary: annotations.summary ?? "", afterS });
    }
  }

  async #look(): Promise<void> {
    this.#note(await this.#prometheus!.alerts().catch(() => []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watch);
    await this.#looking;
    await this.#stack[Symbol.asyncDispose]();
  }
}

/** What `userwire` writes for these arguments, settings as a node has them. */
export async function userwire(args: string, env: Record<string, string> = {}): Promise<string> {
  const terminal = new Terminal();
  await terminal.run(args.split(" "), env);
  return terminal.stdout + terminal.stderr;
}

/** What `/readyz` says, as it stands there. */
export async function readyz(service: Pick<Service, "fetch">): Promise<string> {
  return await (await service.fetch("/readyz")).text();
}

/** What the console shows of a node: its numbers and nodes as they are at this moment, and what the doctor finds. */
export async function consoleOf(
  url: string,
  get: (url: URL) => Response | Promise<Response> = (url) => fetch(url),
): Promise<string> {
  const stats = await get(new URL("/v1/stats", url));
  let shown = "";
  for await (const text of stats.body!.pipeThrough(new TextDecoderStream())) {
    shown += text;
    if (shown.endsWith("\n\n")) break;
  }
  const { samples, ...more } = JSON.parse(shown.slice(shown.indexOf("{")));
  const findings = await (await get(new URL("/v1/doctor", url))).text();
  return `${JSON.stringify({ ...samples.at(-1), ...more })}\n${findings}`;
}

/** Lines of the log with these words, as the page greps for them. */
export function linesOf(service: Service, event: string): string {
  return service.logged(event).map(({ event, fields }) => `${event} ${JSON.stringify(fields)}`).join("\n");
}
