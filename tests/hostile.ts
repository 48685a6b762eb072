/**
 * Hostile clients in full strength, against one service on this machine: `deno task hostile`. Prints what honest users
 * noticed of each attack. The exit code is 1 when an attack was not endured, three times in a row, or when the memory
 * grows with every round. Takes some three minutes, and needs `ulimit -n` above 11,000 and 4 GiB of memory. Single attacks:
 * `deno task hostile slowloris fragments`.
 *
 * The smaller version that the tests run is in `hostile_test.ts`.
 */
import { attacksOf } from "./hostile/attacks.ts";
import { type Attack, type Findings, isEndured, Siege } from "./hostile/siege.ts";

const ROUNDS = 2;
const TRIES = 3;
/** Growth from one round to the next that is no leak, in MiB. The first one fills heaps and allocators. */
const MAX_GROWTH_MIB = 100;

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
})).filter(([name]) => Deno.args.length === 0 || Deno.args.some((word) => name.includes(word)));

async function endure(siege: Siege, name: string, attack: Attack): Promise<boolean> {
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const findings = await siege.endure(attack);
    console.log(`${name}: ${inWords(findings)}${isEndured(findings) ? "" : "; TOO SLOW"}`);
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

let isFine = attacks.length > 0;
{
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
console.log(isFine ? "endured" : "NOT endured");
Deno.exit(isFine ? 0 : 1);
