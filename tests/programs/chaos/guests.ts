/**
 * Users who come and go all the time, and a backend that hears of them. Its table of who is online is kept by the receiver's
 * rules alone; it answers late, so that webhooks come out of order, and says at times that it can't. When everybody has
 * stopped, and all is quiet, the table must be what is true.
 */
import { DeadlineError, until } from "../../../testkit/deadline.ts";
import { WebhookReceiver } from "../../../testkit/webhook_receiver.ts";
import { pause } from "./world.ts";

/** How long one stays, and is away: at times for less than it takes to be told. */
const STAY_MS = 2_000;
const AWAY_MS = 4_000;
const RETRY_MS = 300;
/** The backend takes up to so long for an answer; one in so many is that it can't now. */
const ANSWER_MS = 150;
const CANT_ONE_IN = 150;
/** The table may take so long to be right: who was on a node that died is found by a round, of which one begins each 30 s. */
const RIGHT_MS = 70_000;
/** And it must stay so, for longer than a round. */
const QUIET_MS = 32_000;

/** What came of it. */
export interface GuestResult {
  /** Changes that the backend took. */
  readonly changes: number;
  /** How often it heard that something is unknown. */
  readonly unknown: number;
  /** Users about whom it was wrong at the end, each with what it had. */
  readonly wrong: readonly string[];
}

export class Guests implements AsyncDisposable {
  readonly receiver = new WebhookReceiver();
  readonly #sockets = new Map<string, WebSocket>();
  #running: Promise<void>[] = [];
  readonly #count: number;
  /** Who is here stays, who is not comes no more. */
  #isOver = false;
  #isClosed = false;

  /** @param count How many users come and go. */
  constructor(count: number) {
    this.#count = count;
    this.receiver.answer = async () => {
      await pause(ANSWER_MS * Math.random() ** 4);
      return new Response(null, { status: Math.random() * CANT_ONE_IN < 1 ? 500 : 204 });
    };
  }

  /** Settings of the nodes. */
  get settings(): Record<string, string> {
    return { ...this.receiver.env, USERWIRE_OFFLINE_AFTER_S: "1", USERWIRE_WEBHOOK_TIMEOUT_MS: "2000" };
  }

  /** @param port Of the proxy before the nodes. */
  start(port: number): void {
    this.#running = Array.from({ length: this.#count }, async (_, i) => {
      const user = `guest-${i}`;
      while (!this.#isClosed) await this.#visit(user, `ws://127.0.0.1:${port}/ws?username=${user}`);
    });
  }

  /**
   * Has them stop, and waits for the table to be right and to stay so.
   * @param others Users who are online for good.
   */
  async settle(others: readonly string[]): Promise<GuestResult> {
    this.#isOver = true;
    try {
      await until(() => this.#wrong(others).length === 0, "the table to be right", RIGHT_MS);
      await pause(QUIET_MS);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
    }
    const { changes, unknown } = this.receiver;
    return { changes, unknown, wrong: this.#wrong(others) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = this.#isClosed = true;
    for (const socket of this.#sockets.values()) socket.close();
    await Promise.all(this.#running);
    await this.receiver[Symbol.asyncDispose]();
  }

  /** Comes, stays for a while, and is away for a while. */
  async #visit(user: string, url: string): Promise<void> {
    if (this.#isOver && Math.random() < 0.5) {
      while (!this.#isClosed) await pause(RETRY_MS);
      return;
    }
    const leaveMs = performance.now() + STAY_MS * Math.random();
    // Whose socket ends comes again, as any client does.
    while (!this.#isClosed && (this.#isOver || performance.now() < leaveMs)) {
      const socket = new WebSocket(url);
      const ended = new Promise<void>((resolve) => socket.addEventListener("close", () => resolve()));
      socket.addEventListener("error", () => {}); // its end comes after it
      socket.addEventListener("open", () => this.#sockets.set(user, socket));
      const leaves = async () => {
        while (this.#isOver ? !this.#isClosed : performance.now() < leaveMs) await pause(RETRY_MS);
        socket.close();
      };
      await Promise.race([ended, leaves()]);
      await ended;
      this.#sockets.delete(user);
      await pause(RETRY_MS * Math.random());
    }
    if (!this.#isOver) await pause(AWAY_MS * Math.random());
  }

  #wrong(others: readonly string[]): string[] {
    const { table } = this.receiver;
    const here = new Set([...others, ...this.#sockets.keys()]);
    return [...here.union(new Set(table.keys()))].sort().filter((user) =>
      here.has(user) !== (table.get(user)?.online ?? false)
    ).map((user) => {
      const last = table.get(user);
      const had = last ? `${last.online ? "online" : "offline"} (n ${last.n})` : "never told";
      return `${user} is ${here.has(user) ? "online" : "offline"}, and the backend has: ${had}`;
    });
  }
}
