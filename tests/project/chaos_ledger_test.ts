/**
 * The books of the chaos notice each way in which they don't balance, and nothing that is as promised. A ledger that is
 * wrong in silence would be worse than none.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { CALM_AFTER_MS, CALM_BEFORE_MS, Ledger } from "../programs/chaos/ledger.ts";
import { copyWithout, CREDULITIES } from "../programs/chaos/without_proof.ts";

/** Time that a step takes, in milliseconds: more than what must be calm around a send. */
const STEP_MS = CALM_BEFORE_MS + CALM_AFTER_MS;

/** A ledger with a clock of its own, and alice, who stands at `e1.0`. Each step takes its time. */
class Script {
  readonly #ledger: Ledger;
  #nowMs = 1_000_000;
  #count = 0;

  constructor() {
    this.#ledger = new Ledger(() => this.#nowMs);
    this.#ledger.expect("alice");
    this.#ledger.opened("alice", "e1.0");
    this.#step();
  }

  /** A send that is accepted at `<epoch>.<seq>`; returns its number. */
  send(
    place: string,
    how: { user?: string; sockets?: number; tries?: number; sentMs?: number; triedMs?: number } = {},
  ): number {
    const { user = "alice", sockets = 1, tries = 1, sentMs = this.#nowMs, triedMs = sentMs } = how;
    const [epoch, seq] = place.split(".");
    const n = ++this.#count;
    this.#ledger.accept({
      ...{ user, n, epoch: epoch!, seq: Number(seq), sockets, tries, triedMs, sentMs },
      answeredMs: this.#nowMs,
    });
    this.#step();
    return n;
  }

  /** Alice is handed a send. */
  get(seq: number, n: number): void {
    this.#ledger.received("alice", seq, n);
    this.#step();
  }

  /** She is told of a gap of kind `epoch`, or, with `to`, of a kind `trimmed`. */
  gap(from: number, pos: string, to?: number): void {
    this.#ledger.missed(
      "alice",
      to === undefined
        ? { t: "gap", from, to: null, count: null, why: "epoch", pos }
        : { t: "gap", from, to, count: to - from + 1, why: "trimmed", pos },
    );
    this.#step();
  }

  /** Something else happens. */
  also(what: (ledger: Ledger) => void): void {
    what(this.#ledger);
    this.#step();
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** The kinds of what is wrong, in the order in which it was found. */
  get faults(): string[] {
    return this.#ledger.close().violations.map(({ kind }) => kind);
  }

  close() {
    return this.#ledger.close();
  }

  #step(): void {
    this.#nowMs += STEP_MS;
  }
}

Deno.test("Books that balance are found in order: live, replayed, trimmed, and after the data was set back", () => {
  const script = new Script();
  script.get(1, script.send("e1.1"));
  const [second, third] = [script.send("e1.2"), script.send("e1.3")];
  script.get(2, second);
  script.get(3, third);
  script.send("e1.4");
  script.send("e1.5");
  script.gap(4, "e1.5", 5);
  script.send("e1.6"); // it is in data that is lost
  script.gap(6, "e2.5");
  script.get(6, script.send("e2.6"));
  const { violations, accepted, received, told, compared, countedButTold } = script.close();
  assertEquals(violations, []);
  assertEquals([accepted, received, told, compared, countedButTold], [7, 4, 3, 7, 3]);
});

Deno.test("A proof in the position is not part of the place", () => {
  const script = new Script();
  script.send("e1.1");
  script.gap(1, "e2.4.Zk3v");
  script.get(5, script.send("e2.5"));
  assertEquals(script.faults, []);
});

Deno.test("A message that did not come, and of which no gap speaks, is lost", () => {
  const script = new Script();
  script.send("e1.1", { sockets: 0 });
  assertEquals(script.faults, ["miscounted", "lost"]);
});

Deno.test("A gap of kind epoch does not cover what was sent after it was announced", () => {
  const ofOldEpoch = new Script();
  ofOldEpoch.gap(1, "e2.0");
  ofOldEpoch.send("e1.1");
  assertEquals(ofOldEpoch.faults, ["lost", "miscounted"]);

  const ofUnknownEpoch = new Script();
  ofUnknownEpoch.gap(1, "e2.0");
  ofUnknownEpoch.send("e7.1");
  assertEquals(ofUnknownEpoch.faults, ["lost", "miscounted"]);
});

Deno.test("A gap of kind epoch covers what was sent after the last message came, though that is tried again later", () => {
  const script = new Script();
  const triedMs = script.nowMs;
  const [other, last] = [1, 2];
  script.get(1, last);
  assertEquals(script.send("e7.1"), other);
  script.gap(2, "e2.1");
  // Its first try was not answered.
  assertEquals(script.send("e1.1", { triedMs, tries: 2 }), last);
  assertEquals(script.faults, []);
});

Deno.test("A gap covers what was under way when it was announced, and that is counted", () => {
  const script = new Script();
  const sentMs = script.nowMs;
  script.gap(1, "e2.0");
  script.send("e1.1", { sentMs });
  const { violations, told, toldUnderWay } = script.close();
  assertEquals([violations, told, toldUnderWay], [[], 1, 1]);
});

Deno.test("A user whose keys alone were put back may get again what a gap of kind epoch led back from", () => {
  for (const isPutBack of [true, false]) {
    const script = new Script();
    const first = script.send("e1.1");
    script.get(1, first);
    if (isPutBack) script.also((ledger) => ledger.putBack("alice"));
    script.gap(2, "e2.0");
    script.get(1, first);
    assertEquals(script.faults, isPutBack ? [] : ["doubled"]);
    assertEquals(script.close().againAfterSetBack, isPutBack ? 1 : 0);
  }
});

Deno.test("What nobody was answered may be lost: who had it gets again what an epoch that goes on from none led back from", () => {
  const NEXT = "later123formerly1"; // an epoch that goes on from e1.1
  for (
    const [mayHave, epoch, faults] of [[true, "e2", []], [false, "e2", ["doubled"]], [true, NEXT, [
      "doubled",
    ]]] as const
  ) {
    const script = new Script();
    if (mayHave) script.also((ledger) => ledger.mayHaveUnanswered());
    const first = script.send("e1.1");
    script.get(1, first);
    script.gap(2, `${epoch}.0`);
    script.get(1, first);
    assertEquals(script.faults, [...faults], epoch);
  }
});

Deno.test("Where nobody knows from where on numbers were given out again, those of the new epoch are the old ones", () => {
  /** Alice has a message as the third that the master lost, and its sender tries again; another is the third instead. */
  const lose = () => {
    const script = new Script();
    script.also((ledger) => ledger.mayHaveUnanswered());
    for (const seq of [1, 2]) script.get(seq, script.send(`e1.${seq}`));
    const triedMs = script.nowMs;
    script.also((ledger) => ledger.redisLost());
    script.get(3, script.send("e1.4", { tries: 2, triedMs }));
    script.send("e1.3");
    return script;
  };
  for (const [to, faults] of [[3, []], [2, ["lost", "miscounted"]]] as const) {
    const script = lose();
    script.gap(4, "e2.0");
    script.gap(1, `e2.${to}`, to);
    assertEquals(script.faults, [...faults]);
  }
  const silent = lose();
  silent.gap(4, "e1.9", 9);
  assertEquals(silent.faults, ["lost", "miscounted"], "she is told of what comes after it only");
});

Deno.test("A gap of kind epoch does not cover numbers up to the one at which the client stood", () => {
  const script = new Script();
  for (let seq = 1; seq <= 10; seq++) script.get(seq, script.send(`e1.${seq}`));
  script.send("e1.6"); // the data was set back, and the number is given out again
  script.gap(11, "e2.7");
  assertEquals(script.faults, ["lost", "miscounted"]);
  assertEquals(script.close().placesGivenTwice, 1);
});

Deno.test("A gap of kind epoch does not cover what comes after the position to which it leads", () => {
  const script = new Script();
  script.send("e2.8");
  script.send("e2.9");
  script.gap(1, "e2.8");
  assertEquals(script.faults, ["lost", "miscounted"]);
});

Deno.test("A gap does not cover what another epoch accepted before the client's last message was sent", () => {
  const script = new Script();
  script.send("e7.1");
  script.get(1, script.send("e1.1"));
  script.gap(2, "e2.0");
  assertEquals(script.faults, ["lost", "miscounted"]);
});

Deno.test("A gap of kind epoch covers what an epoch accepted that came and went", () => {
  const script = new Script();
  script.get(1, script.send("e1.1"));
  script.send("e7.1");
  script.gap(2, "e2.1");
  assertEquals(script.faults, []);
});

Deno.test("A gap of kind trimmed covers its own numbers in its own epoch, that were given out before", () => {
  const next = new Script();
  next.send("e1.1");
  next.gap(1, "e1.1", 1);
  next.send("e1.2");
  assertEquals(next.faults, ["lost", "miscounted"], "the number after it");

  const other = new Script();
  other.send("e7.1");
  other.gap(1, "e1.1", 1);
  assertEquals(other.faults, ["lost", "miscounted"], "the same number in another epoch");

  const later = new Script();
  later.gap(1, "e1.1", 1);
  later.send("e1.1");
  assertEquals(later.faults, ["lost", "miscounted"], "a number that is given out later");
});

Deno.test("A gap that does not begin after the last number, miscounts or leads elsewhere is out of order", () => {
  const begins = new Script();
  begins.gap(3, "e2.0");
  assertEquals(begins.faults, ["disordered"]);

  const miscounts = new Script();
  miscounts.also((ledger) =>
    ledger.missed("alice", { t: "gap", from: 1, to: 2, count: 3, why: "trimmed", pos: "e1.2" })
  );
  assertEquals(miscounts.faults, ["disordered"]);

  const elsewhere = new Script();
  elsewhere.gap(1, "e1.3", 2);
  assertEquals(elsewhere.faults, ["disordered"]);
});

Deno.test("Numbers that go back, leave some out or are missing are out of order", () => {
  const back = new Script();
  const [first, second] = [back.send("e1.1"), back.send("e1.2")];
  back.get(1, first);
  back.get(2, second);
  back.get(2, back.send("e1.2"));
  assertEquals(back.faults, ["disordered"]);

  const hole = new Script();
  hole.get(2, hole.send("e1.2"));
  assertEquals(hole.faults, ["disordered"]);

  const without = new Script();
  const n = without.send("e1.1");
  without.get(1, n);
  without.also((ledger) => ledger.received("alice", undefined, n));
  assertEquals(without.faults, ["disordered"]);
});

Deno.test("A message under another number, or in an epoch that began later, is at the wrong place", () => {
  const number = new Script();
  number.get(1, number.send("e1.2"));
  assertEquals(number.faults, ["misplaced"]);

  const unannounced = new Script();
  unannounced.get(1, unannounced.send("e2.1"));
  assertEquals(unannounced.faults, ["misplaced"]);

  const goneOn = new Script();
  const n = goneOn.send("e1.1");
  goneOn.gap(1, "e2.0");
  goneOn.get(1, n); // the new epoch goes on from the old one
  assertEquals(goneOn.faults, []);
});

Deno.test("What was handed over and never accepted is noticed", () => {
  const script = new Script();
  script.get(1, 99);
  assertEquals(script.faults, ["other"]);
});

/** What a ledger makes of a send that its client got so often, each time in another epoch. */
function verdictOn(
  send: { tries: number; copies: number; losses: number; isEvicted?: boolean; isSameEpoch?: boolean },
) {
  const script = new Script();
  const triedMs = script.nowMs;
  for (let i = 0; i < send.losses; i++) script.also((ledger) => ledger.redisLost());
  if (send.isEvicted) script.also((ledger) => ledger.redisEvicted(triedMs));
  for (let copy = 1; copy <= send.copies; copy++) {
    if (copy > 1 && !send.isSameEpoch) script.gap(2, `e${copy}.0`);
    script.get(send.isSameEpoch ? copy : 1, 1);
  }
  script.send(send.isSameEpoch ? `e1.${send.copies}` : `e${send.copies}.1`, { triedMs, tries: send.tries });
  const { received, sentAgainAfterLoss, violations } = script.close();
  return [received, sentAgainAfterLoss, ...violations.map(({ kind }) => kind)];
}

Deno.test("A message that came twice is excused when its sender tried again across a loss, and only then", () => {
  assertEquals(verdictOn({ copies: 1, tries: 1, losses: 1 }), [1, 0]);
  assertEquals(verdictOn({ copies: 2, tries: 2, losses: 1 }), [1, 1]);
  assertEquals(verdictOn({ copies: 3, tries: 3, losses: 2 }), [1, 1]);
  assertEquals(verdictOn({ copies: 2, tries: 2, losses: 0, isEvicted: true }), [1, 1]);
  const evicted = { copies: 2, tries: 2, losses: 0, isEvicted: true, isSameEpoch: true };
  assertEquals(verdictOn(evicted), [1, 1], "the key alone was thrown away");
  const whole = { copies: 2, tries: 2, losses: 1, isSameEpoch: true };
  assertEquals(verdictOn(whole), [1, 0, "doubled"], "the first one was not lost with its key");
  assertEquals(verdictOn({ copies: 2, tries: 1, losses: 1 }), [1, 0, "doubled"], "tried once");
  assertEquals(verdictOn({ copies: 2, tries: 2, losses: 0 }), [1, 0, "doubled"], "nothing was lost");
  assertEquals(
    verdictOn({ copies: 3, tries: 3, losses: 1 }),
    [1, 0, "doubled"],
    "lost once, came three times",
  );
});

Deno.test("A message that came twice is excused when a gap led back within its epoch in between, and only then", () => {
  const kinds = (gaps: readonly string[], again = 1) => {
    const script = new Script();
    const n = script.send("e1.1");
    script.get(1, n);
    for (const pos of gaps) script.gap(2, pos);
    script.get(again, n);
    const { violations, againAfterSetBack } = script.close();
    return [againAfterSetBack, ...new Set(violations.map(({ kind }) => kind))];
  };
  assertEquals(kinds(["e1.0"]), [1]);
  assertEquals(kinds(["e2.1", "e2.0"]), [1], "in an epoch that went on from the first");
  assertEquals(kinds(["e2.0"]), [0, "doubled"], "in another epoch");
  assertEquals(kinds([]), [0, "doubled", "disordered"], "without a gap");
  assertEquals(kinds(["e1.1"], 2), [0, "doubled"], "a gap that leads nowhere, and at another place");
});

Deno.test("A message that came twice, and may, comes as often again when a gap leads back", () => {
  for (const tries of [1, 2]) {
    const script = new Script();
    const triedMs = script.nowMs;
    script.also((ledger) => ledger.redisEvicted(triedMs));
    script.get(1, 1);
    script.get(2, 1);
    script.send("e1.2", { triedMs, tries });
    script.also((ledger) => ledger.putBack("alice"));
    script.gap(3, "e2.0");
    script.get(1, 1);
    script.get(2, 1);
    assertEquals(script.faults, tries === 1 ? ["doubled"] : []);
  }
});

Deno.test("A count other than one, while the client was there all the time, is wrong", () => {
  for (const sockets of [0, 2, undefined]) {
    const script = new Script();
    // Given as it is, for a default would take the place of what is missing.
    const n = script.send("e1.1", { sockets: 1 });
    script.get(1, n);
    script.also((ledger) =>
      ledger.accept({
        ...{ user: "alice", n: 2, epoch: "e1", seq: 2, sockets, tries: 1 },
        ...{ triedMs: script.nowMs, sentMs: script.nowMs, answeredMs: script.nowMs },
      })
    );
    script.get(2, 2);
    assertEquals(script.faults, ["miscounted"], `sockets ${sockets}`);
  }
});

Deno.test("A count is not compared when the client was away, or something cut subscriptions, around the send", () => {
  const disturbances: ((script: Script, whileDisturbed: () => void) => void)[] = [
    (script, whileDisturbed) => {
      script.also((ledger) => ledger.broke("alice"));
      whileDisturbed();
      script.also((ledger) => ledger.opened("alice", "e1.0"));
    },
    (script, whileDisturbed) => {
      script.also((ledger) => ledger.disturb());
      whileDisturbed();
      script.also((ledger) => ledger.calm());
    },
  ];
  for (const disturb of disturbances) {
    const script = new Script();
    const sends: number[] = [];
    sends.push(script.send("e1.1"));
    disturb(script, () => {
      sends.push(script.send("e1.2", { sockets: 0 }));
      sends.push(script.send("e1.3", { sockets: 2 }));
    });
    sends.push(script.send("e1.4", { sockets: 0 }));
    for (const [i, n] of sends.entries()) script.get(i + 1, n);
    const { violations, compared, excused } = script.close();
    assertEquals([violations.map(({ kind }) => kind), compared, excused], [["miscounted"], 2, 2]);
  }
});

Deno.test("A send that was under way for long is compared only if all that time was calm", () => {
  const script = new Script();
  const triedMs = script.nowMs;
  script.also((ledger) => ledger.broke("alice"));
  script.also((ledger) => ledger.opened("alice", "e1.0"));
  script.get(1, script.send("e1.1", { triedMs, tries: 2, sockets: 0 }));
  const { violations, compared, excused } = script.close();
  assertEquals([violations, compared, excused], [[], 0, 1]);
});

Deno.test("A count other than none is wrong for a user without a client, whatever happens meanwhile", () => {
  const script = new Script();
  script.send("a1.1", { user: "absent", sockets: 0 });
  script.also((ledger) => ledger.disturb());
  script.send("a1.2", { user: "absent", sockets: 1 });
  const { violations, compared, accepted } = script.close();
  assertEquals([violations.map(({ kind }) => kind), compared, accepted], [["miscounted"], 2, 0]);
});

Deno.test("A copy of the product is patched as told, and a patch that does not fit stops everything", async () => {
  const file = "src/log/log.ts";
  const text = await Deno.readTextFile(new URL(`../../${file}`, import.meta.url));
  {
    await using copy = await copyWithout([{ file, find: text, replace: "// $& is taken as it is\n" }]);
    assertEquals(await Deno.readTextFile(new URL(file, copy.root)), "// $& is taken as it is\n");
    assertEquals((await Deno.stat(new URL("main.ts", copy.root))).isFile, true);
  }
  for (const { patch } of CREDULITIES) await (await copyWithout(patch))[Symbol.asyncDispose]();
  await assertRejects(() => copyWithout([{ file, find: "no such text", replace: "" }]), Error, "0 times");
  await assertRejects(() => copyWithout([{ file, find: "\n", replace: "" }]), Error, "not once");
});
