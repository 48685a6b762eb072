/**
 * A load on running nodes, from the first handshake to the last message: so many users, so many sends a second, for
 * so long. The room `load/` plays clients and backend over the network, and knows of the service only what these see;
 * it is loaded by `userwire bench` and by the programs in `bench/` alone.
 *
 * One way through it: users come (`arrivals.ts`), messages leave (`sending.ts`, `sender.ts`, `lane.ts`) and arrive
 * (`crowd.ts`, `socket.ts`), and each is accounted for by its mark (`mark.ts`, `tally.ts`).
 */
import process from "node:process";
import { Deadlines } from "../async/deadlines.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { Arrivals, type NodeAt } from "./arrivals.ts";
import { Crowd } from "./crowd.ts";
import type { Figures } from "./figures.ts";
import { Histogram } from "./histogram.ts";
import type { Refusal } from "./http_answer.ts";
import { Refusals } from "./refusals.ts";
import { HttpSender } from "./sender.ts";
import { Present, Sending } from "./sending.ts";
import { placeOf } from "./stream.ts";
import { Tally } from "./tally.ts";

/** What is asked for. */
export interface Plan {
  readonly users: number;
  /** Sends a second; undefined for as many as are answered. */
  readonly perSecond: number | undefined;
  readonly seconds: number;
  /** Size of a payload. */
  readonly bytes: number;
  /** Whether sockets speak userwire.v1, or are raw. */
  readonly isFramed: boolean;
  /** Sends on their way at one time. */
  readonly inFlight: number;
  readonly connectsPerSecond: number;
  /** What the name of each user begins with. */
  readonly prefix: string;
}

/** Nothing has arrived for so long: nothing will. */
const GRACE_MS = 2_000;
/** Nobody waits longer than that for what is on its way. */
const DRAIN_MS = 30_000;
/** How long the nodes have to take leave of all. */
const CLOSE_MS = 5_000;

export class Load {
  readonly plan: Plan;
  readonly #nodes: readonly NodeAt[];
  /** Stands in the names of this run's users, so that no run meets another. */
  readonly #run = crypto.randomUUID().slice(0, 8);
  readonly #tally: Tally;
  readonly #present = new Present();
  readonly #refusals = new Refusals();
  readonly #dropped = new Map<number, number>();
  readonly #droppedUsers: number[] = [];
  readonly #answerTimes = new Histogram();
  #arrivals: Arrivals | undefined;
  #sender: HttpSender | undefined;
  #sendingSinceMs: number | undefined;
  /** Ends the sending: the first answers say that none will be accepted. */
  readonly #fatal = new AbortController();

  constructor(nodes: readonly NodeAt[], plan: Plan) {
    this.#nodes = nodes;
    this.plan = plan;
    this.#tally = new Tally(plan.users);
  }

  /** How far it is, for whoever shows that. */
  get progress(): { connected: number; sentS: number | undefined; delivered: number; p99Ms: number } {
    const since = this.#sendingSinceMs;
    return {
      connected: this.#arrivals?.connected ?? 0,
      sentS: since === undefined ? undefined : (performance.now() - since) / 1_000,
      delivered: this.#tally.delivered,
      p99Ms: this.#tally.latency.quantileMs(0.99),
    };
  }

  /**
   * Runs it once. At the signal it ends early, with what was measured until then.
   * @throws why nothing can be measured.
   */
  async run(signal: AbortSignal): Promise<Figures> {
    const deadlines = new Deadlines(this.#nodes[0]!.patienceMs);
    const failed = new AbortController();
    const stop = AbortSignal.any([signal, failed.signal, this.#fatal.signal]);
    const crowd = this.#crowd(deadlines, stop);
    const { users, connectsPerSecond } = this.plan;
    const arrivals = this.#arrivals = new Arrivals(crowd, {
      nodes: this.#nodes,
      users,
      perSecond: connectsPerSecond,
      tally: this.#tally,
      giveUp: (reason) => failed.abort(reason),
    });
    try {
      await arrivals.run(stop);
      failed.signal.throwIfAborted();
      const sending = signal.aborted ? undefined : await this.#send(stop);
      return { ...this.#figures(arrivals), ...sending, isInterrupted: signal.aborted };
    } finally {
      this.#sender?.close();
      await crowd.close(CLOSE_MS);
      deadlines.close();
    }
  }

  #crowd(deadlines: Deadlines, signal: AbortSignal): Crowd {
    const crowd = new Crowd({
      places: this.#nodes.map((node) => placeOf(node.callUrl(""))),
      pathOf: (user) => this.#pathOf(user),
      subprotocol: this.plan.isFramed ? SUBPROTOCOL : undefined,
      deadlines,
      signal,
    });
    crowd.onDropped = (user, code) => {
      this.#present.remove(user);
      this.#droppedUsers.push(user);
      this.#dropped.set(code, (this.#dropped.get(code) ?? 0) + 1);
    };
    return crowd;
  }

  #nameOf(user: number): string {
    return `${this.plan.prefix}${this.#run}-${user}`;
  }

  async #pathOf(user: number): Promise<string> {
    const node = this.#nodes[user % this.#nodes.length]!;
    const username = this.#nameOf(user);
    const identity = node.identity(username);
    const url = node.socketUrl(username);
    // A raw socket has no other way to show it.
    if ("token" in identity) url.search = `?${new URLSearchParams({ ticket: await identity.token() })}`;
    return url.pathname + url.search;
  }

  async #send(stop: AbortSignal) {
    const { users, perSecond, seconds, bytes } = this.plan;
    const dropped = new Set(this.#droppedUsers);
    for (let user = 0; user < users; user++) if (!dropped.has(user)) this.#present.add(user);
    const sender = this.#sender = await this.#openSender();
    const sending = new Sending({
      sender,
      tally: this.#tally,
      present: this.#present,
      nameOf: (user) => this.#nameOf(user),
      perSecond,
      seconds,
      bytes,
    });
    this.#tally.beginTiming();
    this.#sendingSinceMs = performance.now();
    const before = process.cpuUsage();
    await sending.run(stop);
    const { user, system } = process.cpuUsage(before);
    const busy = (user + system) / 1_000_000 / sending.seconds;
    await this.#settle(sender, stop);
    this.#fatal.signal.throwIfAborted();
    return { seconds: sending.seconds, unsent: sending.unsent, lag: sending.lag, busy };
  }

  async #openSender(): Promise<HttpSender> {
    const [node] = this.#nodes as [NodeAt];
    try {
      return await HttpSender.open(this.#nodes.map((node) => placeOf(node.callUrl(""))), this.plan.inFlight, {
        authorization: node.authorization,
        patienceMs: node.patienceMs,
        times: this.#answerTimes,
        onRefused: (user, sequence, refusal) => this.#onRefused(user, sequence, refusal),
      });
    } catch (error) {
      throw node.unreachable((error as Error).message);
    }
  }

  #onRefused(user: number, sequence: number, refusal: Refusal): void {
    this.#tally.refuse(user, sequence);
    this.#refusals.add(refusal);
    const { status } = refusal;
    const isForGood = status >= 400 && status < 500 && status !== 408 && status !== 429;
    if (isForGood && this.#sender?.counts.answered === 0) this.#fatal.abort(refusedForGood(refusal));
  }

  /** Waits for what is on its way: answers first, then messages. Who has interrupted it does not wait for long. */
  async #settle(sender: HttpSender, signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    const mostMs = () => GRACE_MS + (signal.aborted ? 0 : this.#nodes[0]!.patienceMs);
    while (sender.pending > 0 && performance.now() - startMs < mostMs()) await sender.settle();
    sender.close();
    await this.#tally.drain(GRACE_MS, signal.aborted ? GRACE_MS : DRAIN_MS);
  }

  #figures(arrivals: Arrivals): Figures {
    const { users, perSecond } = this.plan;
    const { sent, delivered, latency, faults } = this.#tally;
    const { counts } = this.#sender ?? { counts: { answered: 0, unheard: 0, failed: 0 } };
    const lostWithConnection = this.#droppedUsers.map((user) => this.#tally.outstandingOf(user))
      .reduce((sum, count) => sum + count, 0);
    return {
      ...{ users, nodes: this.#nodes.length, connected: arrivals.connected },
      ...{ connectSeconds: arrivals.seconds, connectTimes: arrivals.times, connectRetries: arrivals.retries },
      ...{ askedPerSecond: perSecond, seconds: 0, unsent: 0, busy: 0, lag: new Histogram() },
      ...{ sent, accepted: counts.answered, unheard: counts.unheard, refused: this.#refusals.list },
      ...{ delivered, ...faults, lostWithConnection, dropped: this.#dropped },
      ...{ latency, answerTimes: this.#answerTimes, inFlight: this.plan.inFlight, isInterrupted: false },
    };
  }
}

function refusedForGood({ status, reason }: Refusal): Error {
  const advice = status === 401 || status === 403
    ? " (sends need a key of the scope send, for these users: give one with --key, or other names with --prefix)"
    : status === 413
    ? " (take a smaller --payload)"
    : status === 404
    ? " (check --url)"
    : "";
  return new Error(`Sends were answered with ${status}: ${reason}${advice}`);
}
