/**
 * What a client of the SDK tells, written down, with a way to wait for more. `Watch` takes no messages, so that they
 * go where the test wants them; `Inbox` is a listener for them too.
 */
import {
  type Client,
  type CommonOptions,
  connect,
  type GapFrame,
  type Lost,
  type Message,
  type State,
} from "../src/client/mod.ts";
import { Bell, withDeadline } from "./deadline.ts";
import type { ScriptedSocket } from "./scripted_server.ts";

/** A back-off that keeps nobody waiting. */
export const QUICK = { baseMs: 1, maxMs: 20, steadyMs: 60_000 };

/** A client of alice's, which comes back quickly. */
export function connectAlice(url: string, options: CommonOptions = {}): Client {
  return connect(url, { user: "alice", backoff: QUICK, ...options });
}

/** The same, watched. */
export function watchAlice(url: string, options: CommonOptions = {}): { client: Client; watch: Watch } {
  const client = connectAlice(url, options);
  return { client, watch: new Watch(client) };
}

export class Watch {
  readonly client: Client;
  /** The states it entered. */
  readonly states: State[] = [];
  readonly lost: Lost[] = [];
  /** The texts of its errors. */
  readonly errors: string[] = [];
  readonly #bell = new Bell();

  constructor(client: Client) {
    this.client = client;
    client.on("state", (state) => this.note(this.states, state));
    client.on("lost", (lost) => this.note(this.lost, lost));
    client.on("error", ({ message }) => this.note(this.errors, message));
  }

  protected note<Entry>(list: Entry[], entry: Entry): void {
    list.push(entry);
    this.#bell.ring();
  }

  /** What it has told, for an error. */
  protected seen(): unknown {
    return { state: this.client.state, states: this.states, lost: this.lost, errors: this.errors };
  }

  /** Resolves when the condition holds; asked whenever the client has told something. */
  until(condition: () => boolean, what: string, ms?: number): Promise<void> {
    return this.#bell.until(condition, what, ms, () => this.seen());
  }

  /** Resolves when the client is in this state. */
  async state(state: State, ms?: number): Promise<void> {
    await this.until(() => this.client.state === state, `state "${state}"`, ms);
  }

  /** Resolves when it has lost so many connections, failed attempts included. */
  async losses(count: number, ms?: number): Promise<void> {
    await this.until(() => this.lost.length >= count, `${count} losses`, ms);
  }

  async failures(count: number): Promise<void> {
    await this.until(() => this.errors.length >= count, `${count} errors`);
  }

  /** How it ended, when it has. */
  closed(): Promise<{ code: number; reason: string }> {
    return withDeadline(this.client.closed, 20_000, "the client to be closed", () => this.seen());
  }
}

export class Inbox extends Watch {
  readonly messages: Message[] = [];
  readonly gaps: GapFrame[] = [];
  /** Messages as their numbers, or their data where they have none, and gaps as text, in one order. */
  readonly list: unknown[] = [];

  constructor(client: Client) {
    super(client);
    client.on("gap", (gap) => {
      this.gaps.push(gap);
      this.note(this.list, `${gap.why} ${gap.from}-${gap.to}`);
    });
    client.on("message", (message) => {
      this.messages.push(message);
      this.note(this.list, message.seq ?? message.data);
    });
  }

  protected override seen(): unknown {
    return { received: this.list.length, last: this.list.slice(-5), ...super.seen() as object };
  }

  get data(): unknown[] {
    return this.messages.map(({ data }) => data);
  }

  /** Resolves when it has got so many messages and gaps. */
  async received(count: number, ms?: number): Promise<void> {
    await this.until(() => this.list.length >= count, `${count} messages or gaps`, ms);
  }
}

/**
 * Resolves when the client has read everything that the socket has sent so far: a `bye`, which is told at once, whoever
 * takes messages, and which ends nothing by itself.
 */
export async function flush(client: Client, socket: ScriptedSocket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const off = client.on("bye", () => resolve());
  socket.send({ t: "bye", code: 1012, why: "flush" });
  await withDeadline(
    promise,
    20_000,
    "the client to read what was sent",
    () => `its state is "${client.state}"`,
  );
  off();
}

/** The next message of a loop that the test runs by hand. */
export function take(iterator: AsyncIterator<Message, undefined>): Promise<Message | undefined> {
  return withDeadline(
    iterator.next().then(({ value }) => value),
    20_000,
    "the next message",
    () => "none came",
  );
}
