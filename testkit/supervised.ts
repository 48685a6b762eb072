/** A service of several processes on one port, over a Redis, with its supervisor. It ends with the test. */
import { assertEquals } from "@std/assert";
import { until } from "./deadline.ts";
import { ProcessService } from "./process_service.ts";
import { openClient, type WsClient } from "./ws_client.ts";

/** What the supervisor says of one process. */
export interface ProcessReadiness {
  readonly process: number;
  readonly ready: boolean;
  readonly why?: string;
  readonly node?: string;
  readonly connections?: number;
}

export class Supervised implements AsyncDisposable {
  readonly service: ProcessService;
  /** Where all processes are asked together. */
  readonly opsUrl: string;
  /** Where clients connect. */
  readonly url: string;

  private constructor(service: ProcessService, { url, ops_url }: Readonly<Record<string, unknown>>) {
    this.service = service;
    this.opsUrl = String(ops_url);
    this.url = String(url);
  }

  /** Starts two processes that drain quickly, unless the settings say else. */
  static async start(
    env: Readonly<Record<string, string>>,
    options?: Parameters<typeof ProcessService.start>[1],
  ): Promise<Supervised> {
    const settings = { USERWIRE_PROCESSES: "2", USERWIRE_DRAIN_S: "1" };
    const service = await ProcessService.start({ ...settings, ...env }, options);
    try {
      const started = await service.logged("processes started", 30_000);
      return new Supervised(service, started);
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
  }

  async readiness(): Promise<{ status: number; ready: boolean; processes: ProcessReadiness[] }> {
    const response = await fetch(new URL("readyz", this.opsUrl));
    return { status: response.status, ...await response.json() };
  }

  /** Resolves when so many processes are ready. */
  async areReady(count: number): Promise<void> {
    let last: ProcessReadiness[] = [];
    const areAll = async () => {
      ({ processes: last } = await this.readiness());
      return last.length === count && last.every(({ ready }) => ready);
    };
    await until(areAll, `${count} ready processes`, 30_000, () => last);
  }

  /** The process of a number, by what the log said last. */
  pidOf(number: number): number {
    const started = this.service.records.filter(({ event, process }) =>
      event === "process started" && process === number
    );
    return Number(started.at(-1)!.pid);
  }

  /** Opens sockets of a user until each of two processes has one. */
  async openOnBoth(user: string, own: (client: WsClient) => void, protocols?: string[]): Promise<number> {
    for (let sockets = 1;; sockets++) {
      own(await openClient(this.service.socketUrl(user), protocols));
      const { processes } = await this.readiness();
      if (processes.filter(({ connections = 0 }) => connections > 0).length === 2) return sockets;
      assertEquals(sockets < 20, true, "connections are spread over the processes");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.service.signal("SIGTERM");
    try {
      await this.service.ended(30_000);
    } finally {
      await this.service[Symbol.asyncDispose]();
    }
  }
}

/** Whether a process lives. Linux only. */
export async function isAlive(pid: number): Promise<boolean> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`).catch(() => "");
  return status !== "" && !/^State:\s+Z/m.test(status);
}
