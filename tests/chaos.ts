/**
 * Two real instances, one real Redis, a proxy in front, 200 clients, a sender that never gives up, and one fault after
 * the other. At the end the books must balance: what each client received, together with what it was told is missing, is
 * what was accepted; nothing twice, everything in order.
 *
 *     deno task chaos [--seconds 120] [--seed N] [--users 200] [--rate 500]
 *
 * Prints a table of faults and the balance; exit code 1 when the books don't balance. Talks to loopback only, and ends only
 * processes that it started.
 */
import { parseArgs } from "node:util";
import { type Client, connect } from "../src/client/mod.ts";
import { aim, FAULTS, pause, type World } from "./chaos/faults.ts";
import { Ledger } from "./chaos/ledger.ts";
import { Proxy } from "./chaos/proxy.ts";
import { until, withDeadline } from "./support/deadline.ts";
import { ProcessService } from "./support/process_service.ts";
import { Chance } from "./support/random.ts";
import { RedisServer } from "./support/redis_server.ts";

/** Rest between two faults, in milliseconds. */
const REST_MS = 400;
/** A sender waits before it tries again, twice as long each time. */
const RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;
/** Sends under way at one time, in seconds of the rate: a sender without a limit would drown in its own retries. */
const MAX_OPEN_S = 3;
const SEND_TIMEOUT_MS = 8_000;
/** How long things may take to be well again at the end. */
const SETTLE_MS = 30_000;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "120" },
    seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
    users: { type: "string", default: "200" },
    rate: { type: "string", default: "500" },
  },
});
const seconds = Math.min(Number(values.seconds), 120);
const users = Array.from({ length: Number(values.users) }, (_, i) => `user-${i}`);
const rate = Number(values.rate);

/** Sends as fast as asked, each message until it is accepted. */
class Sender {
  readonly #world: World;
  readonly #open = new Set<Promise<void>>();
  #count = 0;
  retries = 0;
  isStopped = false;

  constructor(world: World) {
    this.#world = world;
  }

  async run(): Promise<void> {
    let sentMs = performance.now();
    while (!this.isStopped) {
      // What is due is sent, however long the answers take; what does not fit under the limit is not made up for.
      const nowMs = performance.now();
      for (; sentMs < nowMs; sentMs += 1_000 / rate) {
        if (this.#open.size < MAX_OPEN_S * rate) this.send(users[this.#world.chance.below(users.length)]!);
      }
      await pause(10);
    }
    await Promise.all(this.#open);
  }

  /** @returns The number of the send. */
  send(user: string): number {
    const n = ++this.#count;
    const sending = this.#deliver(user, n).finally(() => this.#open.delete(sending));
    this.#open.add(sending);
    return n;
  }

  async #deliver(user: string, n: number): Promise<void> {
    const triedMs = performance.now();
    for (let tries = 1, waitMs = RETRY_MS;; tries++, waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
      const { instances } = this.#world;
      const instance = instances[n % Math.max(1, instances.length)];
      try {
        const response = await fetch(new URL(`v1/users/${user}/messages`, instance?.url), {
          method: "POST",
          body: String(n),
          headers: { "content-type": "application/json", "idempotency-key": `send-${n}` },
          signal: AbortSignal.timeout(SEND_TIMEOUT_MS),
        });
        const answer = await response.json();
        if (response.ok) {
          this.#world.ledger.accept({ user, n, triedMs, answeredMs: performance.now(), tries, ...answer });
          return;
        }
        if (response.status !== 503) {
          throw new Error(`A send was answered ${response.status}: ${answer.detail}`);
        }
      } catch (error) {
        // The instance is gone, or was killed while it answered; anything else is a fault of the program.
        if (error instanceof Error && error.message.startsWith("A send was")) throw error;
      }
      this.retries++;
      await pause(waitMs * (0.5 + Math.random()));
    }
  }
}

function watch(user: string, port: number, ledger: Ledger): Client<number> {
  const client = connect<number>(`ws://127.0.0.1:${port}/ws`, {
    user,
    backoff: { baseMs: 100, maxMs: 2_000 },
  });
  client.on("open", (hi) => ledger.opened(user, hi.pos!));
  client.on("message", ({ seq, data }) => ledger.received(user, seq!, data));
  client.on("gap", (gap) => ledger.missed(user, gap));
  return client;
}

console.log(`chaos: ${seconds} s, ${users.length} users, ${rate} messages/s, --seed ${values.seed}`);
Deno.env.set("TEST_SEED", values.seed);
let isBalanced = false;
await Chance.run(async (chance) => {
  await using redis = await RedisServer.start();
  await using proxy = new Proxy(chance);
  const settings = {
    REDIS_URL: redis.url,
    // All clients have one address.
    USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
    USERWIRE_UPGRADES_PER_SECOND: "0",
    USERWIRE_PING_S: "2",
    USERWIRE_REDIS_TIMEOUT_MS: "2000",
    USERWIRE_HISTORY_TTL_S: "120",
  };
  const instances = [await ProcessService.start(settings), await ProcessService.start(settings)];
  const ledger = new Ledger();
  const world: World = { chance, redis, proxy, ledger, settings, instances };
  aim(world);
  const clients = users.map((user) => watch(user, proxy.port, ledger));
  await until(() => clients.every(({ state }) => state === "open"), "all clients to be open", SETTLE_MS);

  const sender = new Sender(world);
  const sending = sender.run();
  const times = new Map(Object.keys(FAULTS).map((name) => [name, 0]));
  /** What happened when: printed only when somebody has to find out why. */
  const story: string[] = [];
  const endMs = performance.now() + seconds * 1_000;
  let names: string[] = [];
  while (performance.now() < endMs) {
    // All of them in turn before one comes again, each round in another order.
    if (names.length === 0) names = Object.keys(FAULTS);
    const [name] = names.splice(chance.below(names.length), 1);
    const beginMs = performance.now();
    await FAULTS[name!]!(world);
    story.push(`${Math.round(beginMs)} to ${Math.round(performance.now())} ms: ${name}`);
    times.set(name!, times.get(name!)! + 1);
    await pause(REST_MS + chance.below(REST_MS));
  }

  sender.isStopped = true;
  await withDeadline(sending, SETTLE_MS, "every send to be accepted");
  // One last message each shows that everybody is back, and that nothing is on its way any more.
  const last = new Map(users.map((user) => [user, sender.send(user)]));
  await until(
    () => users.every((user) => ledger.hasReceived(user, last.get(user)!)),
    "every client to get its last message",
    SETTLE_MS,
  );

  const verdict = ledger.close();
  await Promise.all(clients.map((client) => client.close()));
  for (const instance of instances) await instance[Symbol.asyncDispose]();

  console.log(`\n| fault | times |\n| --- | ---: |`);
  for (const [name, count] of times) console.log(`| ${name} | ${count} |`);
  console.log(`\n| balance | |\n| --- | ---: |`);
  console.log(`| accepted | ${verdict.accepted} |`);
  console.log(`| received | ${verdict.received} |`);
  console.log(`| announced as missing | ${verdict.missingButAnnounced} |`);
  console.log(`| gaps: trimmed / epoch | ${verdict.gaps} / ${verdict.epochGaps} |`);
  console.log(`| retries of the sender | ${sender.retries} |`);
  console.log(`| sent again because Redis lost the idempotency key | ${verdict.sentAgainAfterLoss} |`);
  console.log(`| **violations** | **${verdict.violations.length}** |`);
  for (const violation of verdict.violations.slice(0, 20)) console.log(`- ${violation}`);
  if (verdict.violations.length > 0) console.log(`\n${story.join("\n")}`);
  isBalanced = verdict.violations.length === 0;
});
Deno.exit(isBalanced ? 0 : 1);
