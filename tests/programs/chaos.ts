/**
 * Two real nodes, real Redis servers, a proxy in front of each, 200 clients, a sender that never gives up, and one fault
 * after the other. At the end the books must balance: what each client received, together with what it was told
 * is missing, is what was accepted; nothing twice, everything in order; and what senders were told of `sockets` is what
 * there was (`chaos/ledger.ts` says what exactly).
 *
 * `--help` lists the options.
 *
 * Prints a table of faults and the balance; exit code 1 when the books don't balance. Talks to loopback only, and ends only
 * processes that it started.
 */
import { parseArgs } from "node:util";
import type { Kind, Verdict, Violation } from "./chaos/ledger.ts";
import { runStage, type Stage, type StageResult, type Tally } from "./chaos/stage.ts";
import { STAGES, stagesOf } from "./chaos/stages.ts";
import { copyWithout, CREDULITIES } from "./chaos/without_proof.ts";
import { Chance } from "../../testkit/random.ts";

const HELP = `deno task chaos [options]

  --messages N      go on until so many are accepted; without this and --seconds each fault happens once
  --changes N       users also come and go, and a backend is told; go on until it took so many changes. At the end its
                    table of who is online must be right
  --guests N        how many users come and go, with --changes (300)
  --seconds N       end then, whatever has happened
  --minutes N       end then in any case (15)
  --seed N          for the same faults in the same order; printed at the start
  --users N         users, each with a client (200)
  --rate N          messages a second (500)
  --redis KIND      "one", "sentinel" or "cluster" (one)
  --faults TEXT     only faults whose names have one of these in them, separated by commas
  --shared          the nodes share their subscriptions; answers then count nodes, of which each user has one
  --without-proof   copies of the product that believe what they should not, each of which must lose messages:
                    it shows that the books can find that
`;

/** So many violations are printed, of each kind. */
const SHOWN = 8;

const { values } = parseArgs({
  options: {
    messages: { type: "string" },
    changes: { type: "string" },
    guests: { type: "string", default: "300" },
    seconds: { type: "string" },
    minutes: { type: "string", default: "15" },
    seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
    users: { type: "string", default: "200" },
    rate: { type: "string", default: "500" },
    faults: { type: "string", default: "" },
    redis: { type: "string", default: "one" },
    shared: { type: "boolean", default: false },
    "without-proof": { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(HELP);
  Deno.exit();
}
const users = Number(values.users);
const rate = Number(values.rate);
const limitMs = Math.min(Number(values.seconds ?? Infinity), 60 * Number(values.minutes)) * 1_000;
const messages = Number(values.messages ?? (values.seconds === undefined ? 0 : Infinity));
const changes = values.changes === undefined ? undefined : Number(values.changes);
const redis = values.redis as keyof typeof STAGES;
if (!(redis in STAGES)) throw new Error(`--redis must be one of ${Object.keys(STAGES).join(", ")}`);
const isWithoutProof = values["without-proof"];
const names = values.faults.split(",").map((name) => name.trim()).filter((name) => name !== "");
const ask = `${users} users, ${rate} messages/s, --seed ${values.seed}`;
Deno.env.set("TEST_SEED", values.seed);
const beginMs = performance.now();

if (isWithoutProof) {
  let lossless = 0;
  for (const { name, patch, faults } of CREDULITIES) {
    console.log(`\nchaos ${name}: ${ask}`);
    await using copy = await copyWithout(patch);
    const { violations } = await play(stagesOf(redis, names.length === 0 ? faults : names), copy.root);
    const lost = count(violations, "lost");
    console.log(lost > 0 ? `\n${lost} were lost ${name}, and that was found` : `\nNo loss was found ${name}`);
    if (lost === 0) lossless++;
  }
  Deno.exitCode = lossless === 0 ? 0 : 1;
} else {
  console.log(`chaos: ${ask}`);
  const { violations } = await play(stagesOf(redis, names));
  Deno.exitCode = violations.length > 0 ? 1 : 0;
}

/** Runs the stages one after the other, and prints what came of them. */
async function play(stages: readonly Stage[], root?: URL): Promise<{ violations: readonly Violation[] }> {
  const results: StageResult[] = [];
  await Chance.run(async (chance) => {
    const startMs = performance.now();
    const leftMs = beginMs + limitMs - startMs;
    const faultCount = stages.reduce((sum, { faults }) => sum + Object.keys(faults).length, 0);
    let faultsBefore = 0;
    for (const stage of stages) {
      // Each gets its share of the time and of the messages, and what those before it left over.
      faultsBefore += Object.keys(stage.faults).length;
      const share = faultsBefore / faultCount;
      const accepted = results.reduce((sum, result) => sum + result.accepted, 0);
      const taken = results.reduce((sum, { guests }) => sum + (guests?.changes ?? 0), 0);
      console.log(`${stage.name} …`);
      results.push(
        await runStage(stage, {
          ...{ chance, users, rate, root, isShared: values.shared },
          messages: messages * share - accepted,
          changes: changes === undefined ? undefined : changes * share - taken,
          guests: Number(values.guests),
          endMs: startMs + leftMs * share,
        }),
      );
    }
  });
  const tallies = new Map(results.flatMap((result) => [...result.tallies]));
  const violations = results.flatMap(({ verdict }) => verdict.violations);
  const never = [...tallies].filter(([, { times }]) => times === 0).map(([name]) => name);
  if (never.length > 0 && values.seconds === undefined) {
    violations.push({ kind: "other", text: `There was no time for: ${never.join("; ")}` });
  }
  printFaults(tallies);
  printBalance(results, violations);
  printViolations(results, violations);
  return { violations };
}

function printFaults(tallies: ReadonlyMap<string, Tally>): void {
  console.log(`\n| fault | times | gaps: trimmed | gaps: epoch | all well after |`);
  console.log(`| --- | ---: | ---: | ---: | ---: |`);
  for (const [name, { times, gaps, wellMs }] of tallies) {
    console.log(
      `| ${name} | ${times} | ${gaps.trimmed} | ${gaps.epoch} | ${(wellMs / 1_000).toFixed(1)} s |`,
    );
  }
}

function printBalance(results: readonly StageResult[], violations: readonly Violation[]): void {
  const sum = (pick: (verdict: Verdict) => number) =>
    results.reduce((total, { verdict }) => total + pick(verdict), 0);
  const rows: [string, number | string][] = [
    ["accepted", results.reduce((total, { accepted }) => total + accepted, 0)],
    ["of these to users with a client", sum(({ accepted }) => accepted)],
    ["received", sum(({ received }) => received)],
    ["told to be missing", sum(({ told }) => told)],
    ["of these under way when that was told", sum(({ toldUnderWay }) => toldUnderWay)],
    ["lost in silence", count(violations, "lost")],
    ["doubled", count(violations, "doubled")],
    ["disordered", count(violations, "disordered")],
    ["at another place than the sender was told", count(violations, "misplaced")],
    ["wrong counts", `${count(violations, "miscounted")} of ${sum(({ compared }) => compared)} compared`],
    ["counts not compared, for the client was disturbed", sum(({ excused }) => excused)],
    ["counted, and told to be missing", sum(({ countedButTold }) => countedButTold)],
    ["other violations", count(violations, "other")],
    [
      "came again after a gap that led back within an epoch",
      sum(({ againAfterSetBack }) => againAfterSetBack),
    ],
    ["places given out twice", sum(({ placesGivenTwice }) => placesGivenTwice)],
    ...(changes === undefined ? [] : [
      ["changes that the backend took", results.reduce((total, { guests }) => total + guests!.changes, 0)],
      ["told that something is unknown", results.reduce((total, { guests }) => total + guests!.unknown, 0)],
      [
        "users about whom it was wrong",
        results.reduce((total, { guests }) => total + guests!.wrong.length, 0),
      ],
    ] satisfies [string, number][]),
    ["retries of the sender", results.reduce((total, { retries }) => total + retries, 0)],
    [
      "sent again because Redis lost the idempotency key",
      sum(({ sentAgainAfterLoss }) => sentAgainAfterLoss),
    ],
    ...crowdRows(sum),
    ["seconds", Math.round((performance.now() - beginMs) / 1_000)],
  ];
  console.log(`\n| balance | |\n| --- | ---: |`);
  for (const [name, value] of rows) console.log(`| ${name} | ${value} |`);
  console.log(`| **violations** | **${violations.length}** |`);
}

function crowdRows(sum: (pick: (verdict: Verdict) => number) => number): [string, number | string][] {
  const compared = sum(({ groups }) => groups.compared);
  const bounded = sum(({ groups }) => groups.bounded);
  const excused = sum(({ groups }) => groups.excused);
  return [
    ["sends to groups, to members with a client", of(sum, ({ groups }) => [groups.sends, groups.members])],
    ["… received, told to be missing", of(sum, ({ groups }) => [groups.received, groups.told])],
    ["… came again, and may", sum(({ groups }) => groups.again)],
    ["… answers compared, with bounds, not", `${compared}, ${bounded}, ${excused}`],
    ["broadcasts, to clients", of(sum, ({ broadcasts }) => [broadcasts.sends, broadcasts.clients])],
    [
      "… received, told to be missing",
      of(sum, ({ broadcasts }) => [broadcasts.received, broadcasts.told]),
    ],
    ["… came again, and may", sum(({ broadcasts }) => broadcasts.again)],
    [
      "… answers compared, not",
      of(sum, ({ broadcasts }) => [broadcasts.compared, broadcasts.excused]),
    ],
  ];
}

/** Two sums as one cell. */
function of(
  sum: (pick: (verdict: Verdict) => number) => number,
  pick: (verdict: Verdict) => readonly [number, number],
): string {
  return `${sum((verdict) => pick(verdict)[0])}, ${sum((verdict) => pick(verdict)[1])}`;
}

function printViolations(results: readonly StageResult[], violations: readonly Violation[]): void {
  if (violations.length === 0) return;
  for (const [kind, ones] of Map.groupBy(violations, ({ kind }) => kind)) {
    console.log(`\n${kind}: ${ones.length}`);
    for (const { text } of ones.slice(0, SHOWN)) console.log(`- ${text}`);
  }
  for (const { story } of results) console.log(`\n${story.join("\n")}`);
}

function count(violations: readonly Violation[], kind: Kind): number {
  return violations.filter((violation) => violation.kind === kind).length;
}
