/**
 * Hostile clients in full strength, against one service on this machine: `deno task hostile`. Prints what honest users
 * noticed of each attack. The exit code is 1 when an attack was not endured, three times in a row, or when the memory
 * grows with every round. Takes some seven minutes, and needs `ulimit -n` above 11,000 and 4 GiB of memory. Single attacks:
 * `deno task hostile slowloris fragments floods descriptors`. At the end there is a table of what others waited.
 *
 * The smaller version that the tests run is in `hostile_test.ts`.
 */
import { attacksOf } from "./hostile/attacks.ts";
import { exhaust } from "./hostile/descriptors.ts";
import { flood, floodOf, triosOf, UNSEEN_FLOODS, type Who } from "./hostile/floods.ts";
import { type Attack, type Findings, isEndured, Siege } from "./hostile/siege.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer } from "../../testkit/redis_server.ts";

const ROUNDS = 2;
const TRIES = 3;
/** Growth from one round to the next that is no leak, in MiB. The first one fills heaps and allocators. */
const MAX_GROWTH_MIB = 100;

/** Floods: how long each takes, by when each of its sockets must be cut, and what others may wait, in milliseconds. */
const WHOS: readonly Who[] = ["nameless", "refused", "raw", "v1"];
const FLOOD_MS = 10_000;
const MAX_CUT_MS = 1_000;
const MAX_HEALTH_MS = 300;
const MAX_MESSAGE_MS = 500;
/** The attack on file descriptors: how long, how many there are, and how many in a hundred resets may cost one. */
const EXHAUST_MS = 60_000;
const MAX_FILES = 1_024;
const MAX_LOST_PERCENT = 5;

/** What others waited, in milliseconds. */
const table: [attack: string, without: number, during: number, message: number, health: number][] = [];

/** Whether the command line asks for it. */
function isAsked(name: string): boolean {
  return Deno.args.length === 0 || Deno.args.some((word) => name.includes(word));
}

const attacks = Object.entries(attacksOf({
  halfOpen: 10_000,
  halfOpenPerSecond: 2_500,
  fromOneAddress: 5_000,
  fromOneAddressPerSecond: 1_000,
  maxPerAddress: 2_000,
  fragmentsMib: 1_024,
  fragmentsMibPerSecond: 64,
  silent: 500,
  rounds: 20,
  guesses: 5_000,
})).filter(([name]) => isAsked(name));

async function endure(siege: Siege, name: string, attack: Attack): Promise<boolean> {
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const findings = await siege.endure(attack);
    console.log(`${name}: ${inWords(findings)}${isEndured(findings) ? "" : "; TOO SLOW"}`);
    note(name, findings);
    if (isEndured(findings)) return true;
  }
  return false;
}

function inWords({ withoutMs, duringMs, worstMs, memory, seconds }: Findings): string {
  const [without, during, worst] = [withoutMs, duringMs, worstMs].map((ms) => `${ms.toFixed(1)} ms`);
  return `${
    seconds.toFixed(1)
  } s; p99 ${without} without, ${during} during, ${worst} in the worst half second; ` +
    `memory ${memory.join(" → ")} MiB`;
}

function note(name: string, { withoutMs, duringMs, longestMs }: Findings): void {
  table.push([name, withoutMs, duringMs, longestMs.message, longestMs.health]);
}

/** Three floods at once, each again and again; how many were cut, and the latest. */
async function endureFloods(siege: Siege, where: string, isOpen: boolean): Promise<boolean> {
  let isFine = true;
  for (const trio of triosOf(WHOS)) {
    const name = `floods, ${where}: ${trio[0]![1]}, ${trio.map(([kind]) => kind).join(" + ")}`;
    let isEndured = false;
    for (let attempt = 1; attempt <= TRIES && !isEndured; attempt++) {
      const { findings, cuts } = await floodAt(siege, trio, isOpen);
      const { message, health } = findings.longestMs;
      const latestMs = Math.max(0, ...cuts);
      isEndured = cuts.length >= trio.length && latestMs <= MAX_CUT_MS && health <= MAX_HEALTH_MS &&
        message <= MAX_MESSAGE_MS;
      console.log(
        `${name}: ${cuts.length} sockets cut, the latest after ${
          latestMs.toFixed(0)
        } ms; /healthz took at most ` +
          `${health.toFixed(0)} ms, a message ${message.toFixed(0)} ms${isEndured ? "" : "; NOT ENDURED"}`,
      );
      note(name, findings);
    }
    isFine = isFine && isEndured;
  }
  return isFine;
}

async function floodAt(
  siege: Siege,
  kinds: readonly (readonly [name: string, who: Who])[],
  isOpen: boolean,
): Promise<{ findings: Findings; cuts: number[] }> {
  let cuts: number[] = [];
  const findings = await siege.endure(async (target) => {
    const options = { socketUrl: target.socketUrl(), closed: !isOpen, ms: FLOOD_MS, again: true };
    cuts = await flood(await Promise.all(kinds.map(([name, who]) => floodOf(name, who, options))));
  });
  return { findings, cuts };
}

let isFine = true;
if (attacks.length > 0) {
  await using siege = await Siege.begin();
  const memory: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    console.log(`round ${round}`);
    for (const [name, attack] of attacks) isFine = await endure(siege, name, attack) && isFine;
    memory.push(Math.round(await siege.service.memory() / 2 ** 20));
  }
  const hasGrown = memory[1]! > memory[0]! + MAX_GROWTH_MIB;
  console.log(`memory after each round: ${memory.join(", ")} MiB${hasGrown ? "; IT GROWS" : ""}`);
  isFine = isFine && !hasGrown && !siege.service.records.some(({ event }) => event === "unexpected error");
}
if (isAsked("floods")) {
  await using redis = await RedisServer.start();
  for (const [broker, env] of [["memory", {}], ["Redis", { REDIS_URL: redis.url }]] as const) {
    for (const isOpen of [false, true]) {
      await using siege = await Siege.begin(env, { isOpen });
      const where = `${isOpen ? "open" : "closed"} mode, ${broker}`;
      isFine = await endureFloods(siege, where, isOpen) && isFine;
      if (broker === "Redis") continue;
      // Measured only: what Deno keeps to itself nobody can cut.
      for (const name of UNSEEN_FLOODS) {
        const { findings } = await floodAt(siege, [[name, "v1"]], isOpen);
        note(`one flood of ${name}, ${where}: for a proxy`, findings);
      }
    }
  }
}

if (isAsked("descriptors: resets and EMFILE")) {
  for (const [mode, env] of [["open", {}], ["closed", CLOSED]] as const) {
    await using service = await ProcessService.start(env, { openFiles: MAX_FILES });
    const { resets, left, stops, answeredMs } = await exhaust(service, MAX_FILES, EXHAUST_MS);
    const isEndured = left <= resets * MAX_LOST_PERCENT / 100;
    console.log(
      `descriptors, ${mode} mode: ${resets} handshakes reset, ${left} descriptors left; stopped listening ${stops} times, ` +
        `ready ${answeredMs.toFixed(0)} ms after the attack${isEndured ? "" : "; NOT ENDURED"}`,
    );
    isFine = isFine && isEndured;
  }
}

console.log("\n| attack | p99 without | during | longest message | longest /healthz |");
console.log("| --- | --- | --- | --- | --- |");
for (const [name, ...times] of table) {
  console.log(`| ${name} | ${times.map((ms) => `${ms.toFixed(0)} ms`).join(" | ")} |`);
}
console.log(isFine ? "endured" : "NOT endured");
Deno.exit(isFine ? 0 : 1);
