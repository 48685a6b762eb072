/**
 * The users of a load come: so many a second, so that no node takes them for a flood, and some at a time. What a
 * service refuses for now is tried again; what it refuses for good ends the run, with what to do about it.
 */
import { sleep } from "../async/sleep.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Crowd } from "./crowd.ts";
import { Histogram } from "./histogram.ts";
import { RefusedError } from "./socket.ts";
import type { Tally } from "./tally.ts";

/** A node at an address, with what it is shown. The commands have one. */
export interface NodeAt {
  readonly address: string;
  /** How long an answer may take, in milliseconds. */
  readonly patienceMs: number;
  /** What calls show in the header of this name, if anything. */
  readonly authorization: string | undefined;
  callUrl(path: string): URL;
  socketUrl(username: string): URL;
  identity(username: string): { readonly user: string } | { readonly token: () => Promise<string> };
  /** The error of something that got no answer. */
  unreachable(reason: string): Error;
}

export interface ArrivalOptions {
  readonly nodes: readonly NodeAt[];
  readonly users: number;
  /** New connections a second. */
  readonly perSecond: number;
  readonly tally: Tally;
  /** Told why somebody can't come: has the signal stop all the others. */
  giveUp(reason: unknown): void;
}

const AT_ONCE = 50;
const RETRY_MS = 250;
/** Problems that pass by themselves; all others of ours that refuse a handshake do not. */
const PASSING = new Set(["too_many_requests", "broker_unavailable", "keys_unavailable"]);
/** Problems that are a limit of the service. */
const LIMITS = new Set(["full", "too_many_connections", "out_of_files"]);

export class Arrivals {
  /** How long each took, with its ticket if it needs one. */
  readonly times = new Histogram();
  connected = 0;
  /** Handshakes that were made again. */
  retries = 0;
  /** From the first handshake to the last. */
  seconds = 0;
  readonly #crowd: Crowd;
  readonly #options: ArrivalOptions;

  constructor(crowd: Crowd, options: ArrivalOptions) {
    this.#crowd = crowd;
    this.#options = options;
  }

  /**
   * Resolves when all are there, or at the signal, with no handshake under way.
   * @throws why they can't be.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { users, nodes, perSecond, giveUp } = this.#options;
    const stopped = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    const startMs = performance.now();
    let next = 0;
    const work = async () => {
      while (next < users && !signal.aborted) {
        const user = next++;
        const waitMs = startMs + user * 1_000 / perSecond - performance.now();
        if (waitMs > 0) await sleep(waitMs, stopped);
        await this.#arrive(user, signal, stopped);
      }
    };
    // One by one on each node at first: what is wrong in general is said once, and at once.
    while (next < Math.min(nodes.length, users)) await this.#arrive(next++, signal, stopped);
    const workers = Array.from({ length: AT_ONCE }, () => work().catch((error) => giveUp(error)));
    await Promise.all(workers);
    this.seconds = (performance.now() - startMs) / 1_000;
  }

  async #arrive(user: number, stop: AbortSignal, stopped: Promise<void>): Promise<void> {
    const { nodes, tally } = this.#options;
    const node = nodes[user % nodes.length]!;
    const endMs = performance.now() + node.patienceMs;
    const isFirst = user < nodes.length;
    while (!stop.aborted) {
      const startMs = performance.now();
      try {
        await this.#crowd.add(user, user, { tally, listener: user });
        this.times.add(performance.now() - startMs);
        this.connected++;
        return;
      } catch (error) {
        if (stop.aborted) return;
        if (isFirst || !isPassing(error) || performance.now() > endMs) throw this.#inWords(error, node);
        this.retries++;
        await sleep(RETRY_MS, stopped);
      }
    }
  }

  #inWords(error: unknown, node: NodeAt): Error {
    const { users } = this.#options;
    const far = `${this.connected} of ${users} users were connected`;
    const reason = messageOf(error);
    if (error instanceof RefusedError) {
      const { status, code, reason } = error.refusal;
      const advice = LIMITS.has(code)
        ? `${far}: take fewer --users, or raise that limit for the run`
        : status === 401
        ? "give a key of the scopes tickets and send with --key"
        : status === 404
        ? "check --url"
        : far;
      return new Error(`${node.address} answered ${status}: ${reason} (${advice})`, { cause: error });
    }
    if (/too many open files|os error 24\b/i.test(reason)) {
      const files = `raise its limit with "ulimit -n ${users + 1_000}"`;
      return new Error(
        `This bench has run out of file descriptors (${far}): ${files}, or take fewer --users`,
      );
    }
    if (/os error (?:49|99)\b/.test(reason)) {
      const advice = "give another --url too, or run a part of them on another machine";
      return new Error(`This machine has run out of ports to ${node.address} (${far}): ${advice}`);
    }
    // What came of asking for a ticket says all there is to say.
    if (!(error instanceof Error) || reason.includes(new URL(node.address).host)) return error as Error;
    return node.unreachable(reason.replace(/ \(os error \d+\)$/, ""));
  }
}

function isPassing(error: unknown): boolean {
  if (error instanceof RefusedError) {
    const { status, code } = error.refusal;
    return PASSING.has(code) || (code === "" && (status === 429 || status >= 500));
  }
  // By its name, since commands lie above: a ticket that is refused for good.
  if (error instanceof Error && error.name === "RefusalError") return false;
  return !/os error (?:24|49|99)\b/.test(messageOf(error));
}
