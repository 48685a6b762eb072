/**
 * A service in a process of its own, honest users of it, and what they notice while somebody attacks. One run measures
 * the time a message takes before and during each attack, in the same windows: their medians are compared, so that one
 * hiccup of a busy machine decides nothing.
 */
import type { Report } from "./honest.ts";
import { CLOSED, KEY, protocolsFor, tokenFor } from "../../../testkit/closed.ts";
import { stretched, until, withDeadline } from "../../../testkit/deadline.ts";
import { startHaProxy } from "../../../testkit/ha_proxy.ts";
import type { Proxy } from "../../../testkit/proxy.ts";
import { type LogRecord, ProcessService } from "../../../testkit/process_service.ts";

const HONEST_USERS = 5;
const WINDOW_MS = 500;
/** How many calm windows are measured between two attacks, unless told otherwise. */
const WINDOWS = 4;

/** What honest users noticed; times are p99, in milliseconds, the median over windows. */
export interface Findings {
  /** Without the attack: before it and after it, for a busy machine changes its mind. */
  readonly withoutMs: number;
  readonly duringMs: number;
  /** The worst window. */
  readonly worstMs: number;
  /** The longest that one message took meanwhile, and one answer of `/healthz`. */
  readonly longestMs: { readonly message: number; readonly health: number };
  /** Resident memory of the service before, and once all is over, in MiB. */
  readonly memory: readonly [before: number, after: number];
  readonly seconds: number;
}

/** What is attacked: the service, as clients reach it. */
export interface Target {
  readonly url: string;
  readonly records: readonly LogRecord[];
  socketUrl(): string;
}

export type Attack = (target: Target) => Promise<void>;

export class Siege implements AsyncDisposable {
  readonly service: ProcessService;
  readonly #target: Target;
  readonly #proxy: Proxy | undefined;
  readonly #worker: Worker;
  readonly #calmWindows: number;
  /** The windows since the last attack. */
  #calm: number[] = [];
  #fault: string | undefined;
  #onReply: ((report: Report) => void) | undefined;
  #longest = { message: 0, health: 0 };

  private constructor(
    service: ProcessService,
    { proxy, worker, windows }: { proxy: Proxy | undefined; worker: Worker; windows: number },
  ) {
    this.#calmWindows = windows;
    this.service = service;
    this.#proxy = proxy;
    this.#target = proxy === undefined ? service : {
      url: proxy.url,
      records: service.records,
      socketUrl: () => new URL("/ws", proxy.url.replace("http:", "ws:")).href,
    };
    this.#worker = worker;
  }

  /**
   * @param env Settings. The attackers' address is what they write into `X-Forwarded-For`.
   * @param options.behindProxy Honest users and attackers come through HAProxy. @default false
   * @param options.windows How many calm windows are measured between two attacks, of half a second. @default 4
   * @param options.isOpen Nobody needs a key or a token. @default false
   */
  static async begin(
    env: Readonly<Record<string, string>> = {},
    options: { behindProxy?: boolean; windows?: number; isOpen?: boolean } = {},
  ): Promise<Siege> {
    const service = await ProcessService.start({
      ...(options.isOpen ? {} : CLOSED),
      USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
      USERWIRE_DRAIN_S: "1",
      ...env,
    });
    const proxy = options.behindProxy ? await proxyOf(service) : undefined;
    const worker = new Worker(new URL("./honest.ts", import.meta.url), { type: "module" });
    const { windows = WINDOWS } = options;
    const siege = new Siege(service, { proxy, worker, windows });
    const ready = Promise.withResolvers<void>();
    worker.onmessage = ({ data }) => {
      if (data === "ready") ready.resolve();
      else if (data.messages) siege.#onReply?.(data);
      else siege.#fault = data.fault, ready.reject(new Error(data.fault));
    };
    ready.promise.catch(() => {});
    const names = Array.from({ length: HONEST_USERS }, (_, i) => `honest${i}`);
    const users = await Promise.all(names.map(async (name) => {
      const url = new URL(siege.#target.socketUrl());
      if (options.isOpen) url.searchParams.set("username", name);
      const protocols = options.isOpen
        ? ["userwire.v1"]
        : protocolsFor(await tokenFor(name, { lifeS: 3_600 }));
      return [name, url.href, protocols] as const;
    }));
    worker.postMessage({ url: siege.#target.url, key: KEY.key, users });
    try {
      await withDeadline(ready.promise, 30_000, "the honest users to connect");
      // The first messages find nothing warmed up.
      await siege.#windows(windows);
      siege.#calm = await siege.#windows(windows);
      return siege;
    } catch (error) {
      await siege[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** @throws when an honest user is not served, or the service ends. */
  async endure(attack: Attack): Promise<Findings> {
    const memoryBefore = await this.service.memory();
    const before = this.#calm;
    const startMs = performance.now();
    let isOver = false;
    this.#longest = { message: 0, health: 0 };
    const attacking = attack(this.#target).finally(() => isOver = true);
    attacking.catch(() => {});
    const during: number[] = [];
    do during.push(...await this.#windows(1)); while (!isOver);
    await attacking;
    const seconds = (performance.now() - startMs) / 1_000;
    const longestMs = this.#longest;
    await until(
      async () => await this.connections() === HONEST_USERS,
      "only the honest sockets to be left",
      60_000,
    );
    // Garbage is collected while there is work.
    const after = this.#calm = await this.#windows(this.#calmWindows);
    const memory = [memoryBefore, await this.service.memory()].map((bytes) => Math.round(bytes / 2 ** 20));
    return {
      withoutMs: Math.max(median(before), median(after)),
      duringMs: median(during),
      worstMs: Math.max(...during),
      longestMs,
      memory: memory as [number, number],
      seconds,
    };
  }

  async connections(): Promise<number> {
    return (await (await fetch(`${this.service.url}readyz`)).json()).connections;
  }

  /** The p99 of so many windows, one after the other. A window in which nobody was served lasts until somebody is. */
  async #windows(count: number): Promise<number[]> {
    const found: number[] = [];
    while (found.length < count) {
      const times: number[] = [];
      const endMs = performance.now() + WINDOW_MS;
      do {
        await new Promise((resolve) => setTimeout(resolve, Math.max(20, endMs - performance.now())));
        times.push(...await this.#report());
      } while (times.length === 0);
      found.push(times.sort((a, b) => a - b)[Math.ceil(times.length * 0.99) - 1]!);
    }
    return found;
  }

  async #report(): Promise<number[]> {
    if (this.#fault !== undefined) throw new Error(this.#fault);
    if (this.service.hasEnded) throw new Error("The service has ended");
    const reply = new Promise<Report>((resolve) => this.#onReply = resolve);
    this.#worker.postMessage("report");
    const { messages, health } = await withDeadline(reply, 30_000, "the report of the honest users");
    const { message: longest, health: longestHealth } = this.#longest;
    this.#longest = {
      message: Math.max(longest, ...messages),
      health: Math.max(longestHealth, ...health),
    };
    return [...messages];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#worker.terminate();
    try {
      await this.#proxy?.[Symbol.asyncDispose]();
    } finally {
      await this.service[Symbol.asyncDispose]();
    }
  }
}

async function proxyOf(service: ProcessService): Promise<Proxy> {
  try {
    return await startHaProxy([service.url]);
  } catch (error) {
    await service[Symbol.asyncDispose]();
    throw error;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** How much longer messages may take during an attack. */
const MAX_RATIO = 3;

/**
 * Whether messages took no more than three times as long.
 * @param floorMs What is too short to tell, in milliseconds. More than the default where others use the machine.
 */
export function isEndured({ withoutMs, duringMs }: Findings, floorMs = 50): boolean {
  return duringMs <= stretched(Math.max(withoutMs * MAX_RATIO, floorMs));
}
