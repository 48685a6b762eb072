/** One world from its beginning to its end, while messages flow: its faults happen, one after the other. */
import {
  type BroadcastGapFrame,
  type Client,
  connect,
  type GapFrame,
  type Lost,
  RefusedError,
} from "../../../src/client/mod.ts";
import { DeadlineError, until, withDeadline } from "../../../testkit/deadline.ts";
import type { Chance } from "../../../testkit/random.ts";
import { CrowdSender } from "./crowd_sender.ts";
import type { Fault, Faults } from "./faults.ts";
import { type GuestResult, Guests } from "./guests.ts";
import { Ledger, type Verdict } from "./ledger.ts";
import { Sender } from "./sender.ts";
import { pause, type RedisKind, World } from "./world.ts";

export interface Stage {
  readonly name: string;
  /** Whether Redis keeps an append-only file; "by chance" is one or the other in each run. */
  readonly appendOnly: boolean | "by chance";
  readonly kind: RedisKind;
  readonly faults: Faults;
}

export interface StageOptions {
  readonly chance: Chance;
  readonly users: number;
  /** Messages a second. */
  readonly rate: number;
  /** Ends when so many are accepted and each fault has happened. */
  readonly messages: number;
  /** And when the backend has taken so many changes of users who come and go; undefined: none do. */
  readonly changes: number | undefined;
  /** How many users come and go. */
  readonly guests: number;
  /** Ends at this time in any case, on the clock of `performance.now()`. */
  readonly endMs: number;
  readonly root?: URL | undefined;
  /** Whether the nodes share their subscriptions. */
  readonly isShared: boolean;
}

/** What a fault did. */
export interface Tally {
  times: number;
  /** Gaps that its clients were told of, by kind. */
  readonly gaps: { trimmed: number; epoch: number };
  /** Longest time until all was well again, in milliseconds. */
  wellMs: number;
}

export interface StageResult {
  readonly verdict: Verdict;
  readonly tallies: ReadonlyMap<string, Tally>;
  /** Sends that were accepted, to users without a client too. */
  readonly accepted: number;
  readonly retries: number;
  /** Undefined when nobody came and went. */
  readonly guests: GuestResult | undefined;
  /** What happened when: only for whoever has to find out why. */
  readonly story: readonly string[];
}

/** Users without a client. */
const ABSENT = Array.from({ length: 10 }, (_, i) => `absent-${i}`);
/** Close codes from here on are the service's own. */
const PRIVATE_CODES = 4_000;
/** How long things may take to be well again. */
const WELL_MS = 30_000;
/** Rest between two faults, in milliseconds, and a random part: calm in which answers are compared. */
const REST_MS = 1_500;
const MORE_REST_MS = 1_000;

export async function runStage(stage: Stage, options: StageOptions): Promise<StageResult> {
  const ledger = new Ledger();
  const appendOnly = stage.appendOnly === "by chance" ? options.chance.below(2) === 0 : stage.appendOnly;
  await using guests = options.changes === undefined ? undefined : new Guests(options.guests);
  const settings = guests?.settings;
  await using world = await World.start({ ...options, appendOnly, kind: stage.kind, ledger, settings });
  return await new Play(stage, world, guests, options).run();
}

class Play {
  readonly #stage: Stage;
  readonly #world: World;
  readonly #guests: Guests | undefined;
  readonly #options: StageOptions;
  readonly #users: readonly string[];
  readonly #sender: Sender;
  readonly #crowd: CrowdSender;
  readonly #tallies: Map<string, Tally>;
  readonly #story: string[] = [];
  /** The fault that happened last, and whoever is told of a gap, has it from that. */
  #current: { readonly name: string; readonly fault: Fault } | undefined;

  constructor(stage: Stage, world: World, guests: Guests | undefined, options: StageOptions) {
    this.#stage = stage;
    this.#world = world;
    this.#guests = guests;
    this.#options = options;
    this.#users = Array.from({ length: options.users }, (_, i) => `user-${i}`);
    this.#sender = new Sender(world, { users: this.#users, absent: ABSENT, rate: options.rate });
    const mayRepeatPage = stage.kind === "cluster";
    this.#crowd = new CrowdSender(world, { users: this.#users, absent: ABSENT, mayRepeatPage });
    this.#tallies = new Map(
      Object.keys(stage.faults).map((
        name,
      ) => [name, { times: 0, gaps: { trimmed: 0, epoch: 0 }, wellMs: 0 }]),
    );
  }

  async run(): Promise<StageResult> {
    const { ledger, chance } = this.#world;
    const clients = this.#users.map((user) => this.#watch(user));
    await until(() => clients.every(({ state }) => state === "open"), "all clients to be open", WELL_MS);
    this.#guests?.start(this.#world.proxy.port);
    const sending = Promise.all([this.#sender.run(), this.#crowd.run()]);
    // The first messages make the epochs.
    let isWell = await this.#isWell();
    await this.#rest();
    let names: string[] = [];
    while (isWell && !this.#isEnough(names)) {
      // All of them in turn before one comes again, each round in another order.
      if (names.length === 0) names = Object.keys(this.#stage.faults);
      const [name] = names.splice(chance.below(names.length), 1);
      isWell = await this.#happen(name!);
      await this.#rest();
    }

    this.#sender.stop();
    this.#crowd.stop();
    await this.#accepted(sending);
    if (isWell && !await this.#isWell()) ledger.violate("Not everybody got a last message");
    // Messages may have come before the answers to those who sent them.
    await this.#accepted(this.#sender.settled());
    const guests = await this.#guests?.settle(this.#users);
    for (const text of guests?.wrong ?? []) ledger.violate(text);
    const accepted = ledger.size;
    const verdict = ledger.close();
    await Promise.all(clients.map((client) => client.close()));
    return {
      verdict,
      tallies: this.#tallies,
      accepted,
      retries: this.#sender.retries + this.#crowd.retries,
      guests,
      story: this.#story,
    };
  }

  /** Waits until all of these sends are accepted; what is not in time is given up. */
  async #accepted(sends: Promise<unknown>): Promise<void> {
    try {
      await withDeadline(sends, WELL_MS, "every send to be accepted");
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      this.#world.ledger.violate("Not every send was accepted at the end");
      this.#sender.abandon();
      this.#crowd.abandon();
      await sends;
    }
  }

  /** A fault, and what follows until all is well again; false when that is not to be. */
  async #happen(name: string): Promise<boolean> {
    const { ledger, redisProxy } = this.#world;
    const fault = this.#stage.faults[name]!;
    const tally = this.#tallies.get(name)!;
    const violate = (what: string) => ledger.violate(`${name}: ${what}`);
    this.#current = { name, fault };
    tally.times++;
    const beginMs = performance.now();
    if (fault.cuts) ledger.disturb();
    if (fault.away) await this.#world.whileSomeAreAway(() => fault.run(this.#world));
    else await fault.run(this.#world);
    const overMs = performance.now();
    let isWell = await this.#isWell();
    if (!isWell) {
      violate(
        `all was not well again within ${WELL_MS / 1_000} s; now connections to Redis are cut by force`,
      );
      if (!fault.cuts) ledger.disturb();
      redisProxy?.cut();
      isWell = await this.#isWell();
      if (!isWell) violate("nor was it then: the rest of the stage is left out");
    }
    ledger.calm();
    const wellMs = performance.now();
    tally.wellMs = Math.max(tally.wellMs, wellMs - overMs);
    this.#story.push(
      `${Math.round(beginMs)} to ${Math.round(overMs)} ms, all well at ${Math.round(wellMs)} ms: ${name}`,
    );
    return isWell;
  }

  /** Whether everybody is back: each client gets a message and a broadcast that are sent now. */
  async #isWell(): Promise<boolean> {
    const { ledger } = this.#world;
    const probes = this.#users.map((user) => [user, this.#sender.send(user)] as const);
    const all = this.#crowd.broadcast();
    const isWell = () =>
      probes.every(([user, n]) => ledger.hasReceived(user, n) && ledger.hasReceivedBroadcast(user, all.n));
    try {
      await until(isWell, "a message and a broadcast each", WELL_MS);
      await withDeadline(all.accepted, WELL_MS, "the broadcast to be accepted");
      return true;
    } catch (error) {
      if (error instanceof DeadlineError) return false;
      throw error;
    }
  }

  #isEnough(left: readonly string[]): boolean {
    const { messages, changes = 0, endMs } = this.#options;
    if (performance.now() >= endMs) return true;
    const isRoundOver = left.length === 0 && this.#current !== undefined;
    const isFull = this.#world.ledger.size >= messages && (this.#guests?.receiver.changes ?? 0) >= changes;
    return isRoundOver && isFull;
  }

  async #rest(): Promise<void> {
    await pause(REST_MS + this.#world.chance.below(MORE_REST_MS));
  }

  #watch(user: string): Client<number> {
    const { ledger, proxy } = this.#world;
    const client = connect<number>(`ws://127.0.0.1:${proxy.port}/ws`, {
      user,
      backoff: { baseMs: 100, maxMs: 2_000 },
    });
    ledger.expect(user);
    client.on("state", (state) => {
      if (state !== "open") ledger.broke(user);
    });
    client.on("lost", (lost) => this.#lost(user, lost));
    client.on("open", (hi) => ledger.opened(user, hi.pos, hi.all));
    client.on("broadcast", ({ seq, data }) => ledger.receivedBroadcast(user, seq, data));
    client.on("message", ({ seq, data }) => ledger.received(user, seq, data));
    client.on("gap", (gap) => {
      ledger.missed(user, gap);
      this.#told(user, gap);
    });
    client.on("broadcastGap", (gap) => {
      ledger.missedBroadcasts(user, gap);
      this.#told(user, gap);
    });
    client.on("error", (error) => {
      // Why it is not let in while a fault lasts it is rightly told.
      if (!(error instanceof RefusedError)) ledger.violate(`The client of ${user} says: ${error.message}`);
    });
    return client;
  }

  /** No fault is a reason for a node to close a socket of its own accord. */
  #lost(user: string, { code, reason }: Lost): void {
    if (code < PRIVATE_CODES) return;
    const when = this.#current?.name ?? "before anything had happened";
    this.#world.ledger.violate(`${when}: the socket of ${user} was closed with ${code} ${reason}`);
  }

  /** A client was told of a gap: rightly only where something may be lost. */
  #told(user: string, { t, why }: GapFrame | BroadcastGapFrame): void {
    const { ledger } = this.#world;
    const current = this.#current;
    if (!current) return ledger.violate(`${user} was told of a gap before anything had happened`);
    this.#tallies.get(current.name)!.gaps[why]++;
    if (current.fault.harmless) {
      ledger.violate(`${current.name}: ${user} was told of a ${t} (${why}) where nothing was lost`);
    }
  }
}
