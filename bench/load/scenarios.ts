/**
 * What is done to a system, and what of it is measured on the client's side. Memory and CPU of servers are read by
 * whoever runs the generator, before and after.
 */
import { Beat } from "../../src/load/beat.ts";
import { Crowd, type Opened } from "../../src/load/crowd.ts";
import { formatMarked } from "../../src/load/mark.ts";
import { HttpSender, type SendCounts, type Sender } from "../../src/load/sender.ts";
import { loopback } from "../../src/load/stream.ts";
import { type Faults, Tally } from "../../src/load/tally.ts";
import { PublishSender } from "./publish_sender.ts";

/** How to reach the system that is measured, and what is sent. */
export interface Setup {
  /** Ports of the nodes on 127.0.0.1. */
  readonly ports: readonly number[];
  /** Subprotocol to offer, for framed sockets. */
  readonly subprotocol?: string;
  /** Addresses that sockets come from, in turns; for more sockets than one address has ports. */
  readonly sources?: readonly string[];
  /** How messages are sent: by bare `PUBLISH` or by HTTP. */
  readonly by: "publish" | "http";
  readonly redisPort: number;
  /** Size of a payload. */
  readonly bytes: number;
}

/** Deliveries of a run, with all that was wrong. */
export interface Delivered extends SendCounts, Faults {
  sent: number;
  delivered: number;
  /** Sockets that the server ended meanwhile. */
  dropped: number;
}

const HTTP_LANES = 64;
/** How late a message may leave that is to leave at a certain time. */
const BEAT_MS = 0.4;
/** Nothing has arrived for so long: nothing will. */
const GRACE_MS = 1_000;
/** Undelivered messages in a flood. */
const FLOOD_WINDOW = 1_000;
/** Sends that leave together in a flood, so that a write carries more than one. */
const FLOOD_BATCH = 50;
/** Undelivered messages that have not moved for so long are taken as lost, and the flood goes on. */
const STALL_MS = 500;
/** How long sockets of one user get to be subscribed. */
const SUBSCRIBE_MS = 500;
/** Guests get no messages. */
const NOBODYS = new Tally(0);
/** How long the first message may take to a socket that has just opened. */
const FIRST_MS = 500;

export class Scenarios {
  readonly #setup: Setup;
  readonly #crowd: Crowd;
  readonly #sender: Sender;
  #tally = new Tally(0);
  #users = 0;
  #firstUser = 0;
  /** Users that come and go: beyond those of the crowd, none twice. */
  #nextGuest = 1_000_000;

  private constructor(setup: Setup, sender: Sender) {
    this.#setup = setup;
    this.#sender = sender;
    const { ports, ...target } = setup;
    const pathOf = (user: number) => `/?username=${usernameOf(user)}`;
    this.#crowd = new Crowd({ ...target, places: ports.map(loopback), pathOf });
  }

  static async open(setup: Setup): Promise<Scenarios> {
    return new Scenarios(
      setup,
      setup.by === "http"
        ? await HttpSender.open(setup.ports.map(loopback), HTTP_LANES)
        : await PublishSender.open(setup.redisPort),
    );
  }

  close(): void {
    this.#sender.close();
  }

  /** Opens a socket for each of so many users, and keeps them. */
  async openUsers(options: { users: number; firstUser?: number; atOnce: number }): Promise<Opened> {
    this.#users = options.users;
    this.#firstUser = options.firstUser ?? 0;
    this.#tally = new Tally(options.users);
    return await this.#crowd.open(
      { from: this.#firstUser, to: this.#firstUser + options.users },
      { tally: this.#tally, atOnce: options.atOnce },
    );
  }

  /** Closes them; how many the server did not let go in time. */
  async closeUsers(_options: Record<never, never>): Promise<{ late: number; dropped: number }> {
    return { late: await this.#crowd.close(), dropped: this.#crowd.dropped };
  }

  /** So many messages to each user; nothing is timed but the whole. */
  async each(options: { messages: number }): Promise<Delivered & { seconds: number }> {
    const before = this.#state();
    const startMs = performance.now();
    for (let i = 0; i < options.messages * this.#users; i++) {
      this.#send(i % this.#users, performance.now());
      if (i % FLOOD_WINDOW > 0) continue;
      // Some room between: what is asked for is that all arrive, not how a burst of any size is taken.
      this.#sender.flush();
      await this.#tally.drain(GRACE_MS);
    }
    const result = await this.#since(before);
    return { ...result, seconds: (this.#tally.lastDeliveryMs - startMs) / 1_000 };
  }

  /**
   * Messages to the users in turns, at fixed times whether or not earlier ones were answered, and their latencies
   * from when they were due. Beside that, so many guests come and go each second.
   */
  async steady(
    options: { perSecond: number; seconds: number; isTimed: boolean; guestsPerSecond?: number },
  ): Promise<Delivered & { p50Ms: number; p99Ms: number; p999Ms: number; failedGuests: number }> {
    const { perSecond, seconds, isTimed, guestsPerSecond = 0 } = options;
    const tally = this.#tally;
    const before = this.#state();
    if (isTimed) tally.beginTiming();
    const guests: Promise<boolean>[] = [];
    const count = perSecond * seconds;
    using beat = new Beat(BEAT_MS);
    await beat.next(); // the thread is up
    const startMs = performance.now();
    for (let i = 0; i < count;) {
      await beat.next();
      const nowMs = performance.now();
      for (; i < count; i++) {
        const dueMs = startMs + i * 1_000 / perSecond;
        if (dueMs > nowMs) break;
        this.#send(i % this.#users, dueMs);
      }
      this.#sender.flush();
      while (guests.length * 1_000 < (nowMs - startMs) * guestsPerSecond) guests.push(this.#visit());
    }
    const result = await this.#since(before);
    tally.isTiming = false;
    return {
      ...result,
      p50Ms: tally.latency.quantileMs(0.5),
      p99Ms: tally.latency.quantileMs(0.99),
      p999Ms: tally.latency.quantileMs(0.999),
      failedGuests: (await Promise.all(guests)).filter((isWell) => !isWell).length,
    };
  }

  /** As many messages as the system delivers, with never too many on their way. */
  async flood(options: { seconds: number }): Promise<Delivered & { perSecond: number }> {
    const tally = this.#tally;
    const sender = this.#sender;
    const before = this.#state();
    const startMs = performance.now();
    const endMs = startMs + options.seconds * 1_000;
    let turn = 0, writtenOff = 0;
    const pump = () => {
      const room = FLOOD_WINDOW - (tally.outstanding - writtenOff);
      if (room < FLOOD_BATCH || performance.now() >= endMs) return;
      for (let left = Math.min(room, sender.width - sender.pending); left > 0; left--) {
        this.#send(turn++ % this.#users, performance.now());
      }
      sender.flush();
    };
    tally.onDelivered = sender.onAnswer = pump;
    pump();
    while (performance.now() < endMs) {
      const { delivered } = tally;
      await pause(Math.min(STALL_MS, endMs - performance.now()));
      if (tally.delivered > delivered) continue;
      writtenOff = tally.outstanding;
      pump();
    }
    tally.onDelivered = sender.onAnswer = () => {};
    const result = await this.#since(before);
    return { ...result, perSecond: result.delivered * 1_000 / (tally.lastDeliveryMs - startMs) };
  }

  /** Messages to one user with many sockets, one after the other; the median time until the last socket had it. */
  async fanOut(
    options: { sockets: number; messages: number; atOnce: number },
  ): Promise<Opened & Delivered & { toLastMs: number }> {
    const { sockets, messages, atOnce } = options;
    const user = this.#nextGuest++;
    const tally = this.#tally = new Tally(sockets);
    const opened = await this.#crowd.open({ from: 0, to: sockets }, { tally, atOnce, soleUser: user });
    // Peers that subscribe after the handshake get the time for it.
    await pause(SUBSCRIBE_MS);
    const before = this.#state();
    const timesMs: number[] = [];
    for (let sequence = 1; sequence <= messages; sequence++) {
      for (let listener = 0; listener < sockets; listener++) tally.send(listener);
      const startMs = performance.now();
      this.#sender.send(user, usernameOf(user), this.#payload(user, sequence, startMs));
      this.#sender.flush();
      await tally.drain(GRACE_MS);
      timesMs.push(tally.lastDeliveryMs - startMs);
    }
    const result = await this.#since(before);
    await this.#crowd.close();
    return { ...opened, ...result, toLastMs: timesMs.sort((a, b) => a - b)[messages >> 1]! };
  }

  /** Sockets that open and close at once, each of a new user. */
  async churn(
    options: { seconds: number; atOnce: number },
  ): Promise<{ perSecond: number; failed: number }> {
    const startMs = performance.now();
    const endMs = startMs + options.seconds * 1_000;
    let cycles = 0, failed = 0;
    const work = async () => {
      while (performance.now() < endMs) {
        if (await this.#visit()) cycles++;
        else failed++;
      }
    };
    await Promise.all(Array.from({ length: options.atOnce }, work));
    return { perSecond: cycles * 1_000 / (performance.now() - startMs), failed };
  }

  /** A message to each of so many new users the moment the handshake is answered; how many arrive. */
  async first(
    options: { tries: number; atOnce: number },
  ): Promise<{ tries: number; arrived: number; failed: number }> {
    let left = options.tries, arrived = 0, failed = 0;
    const work = async () => {
      while (left-- > 0) {
        const guest = this.#nextGuest++;
        const tally = new Tally(1);
        try {
          const socket = await this.#crowd.openOne(guest, guest, { tally, listener: 0 });
          this.#sender.send(
            guest,
            usernameOf(guest),
            this.#payload(guest, tally.send(0), performance.now()),
          );
          this.#sender.flush();
          await tally.drain(FIRST_MS);
          arrived += tally.delivered;
          await socket.close();
        } catch {
          failed++;
        }
      }
    };
    await Promise.all(Array.from({ length: options.atOnce }, work));
    return { tries: options.tries, arrived, failed };
  }

  // ------------------------------------------------------------------------------------------------------

  /** A new user's socket, opened and closed at once; whether both went well. */
  async #visit(): Promise<boolean> {
    const guest = this.#nextGuest++;
    try {
      const socket = await this.#crowd.openOne(guest, guest, { tally: NOBODYS, listener: 0 });
      return await socket.close();
    } catch {
      return false;
    }
  }

  #send(listener: number, dueMs: number): void {
    const user = this.#firstUser + listener;
    const payload = this.#payload(user, this.#tally.send(listener), dueMs);
    this.#sender.send(user, usernameOf(user), payload);
  }

  #payload(user: number, sequence: number, dueMs: number): string {
    return formatMarked(user, sequence, { dueUs: Math.round(dueMs * 1_000), bytes: this.#setup.bytes });
  }

  #state(): Delivered {
    const { sent, delivered, faults } = this.#tally;
    return { sent, delivered, dropped: this.#crowd.dropped, ...this.#sender.counts, ...faults };
  }

  /** Waits for what is on its way, and says what has come since. */
  async #since(before: Delivered): Promise<Delivered> {
    this.#sender.flush();
    await this.#tally.drain(GRACE_MS);
    await this.#sender.settle();
    const now = this.#state();
    for (const name of Object.keys(now) as (keyof Delivered)[]) now[name] -= before[name];
    return now;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function usernameOf(user: number): string {
  return `u${user}`;
}
