/** The books of the chaos about groups and broadcasts: each way in which they don't balance is noticed, and nothing else. */
import { assertEquals } from "@std/assert";
import { Ledger } from "../programs/chaos/ledger.ts";
import type { ToGroup } from "../programs/chaos/groups.ts";
import { CALM_AFTER_MS, CALM_BEFORE_MS } from "../programs/chaos/circumstances.ts";

const STEP_MS = CALM_BEFORE_MS + CALM_AFTER_MS;
const MEMBERS = ["alice", "bob"];

/** A ledger with alice and bob, who are open, and a group of both and of one user without a client. */
class Script {
  readonly ledger: Ledger;
  nowMs = 1_000_000;

  constructor() {
    this.ledger = new Ledger(() => this.nowMs);
    for (const user of MEMBERS) {
      this.ledger.expect(user);
      this.ledger.opened(user, "e1.0", "b1.0");
    }
    this.step();
  }

  /** A send to the group; what is answered is right unless it is said otherwise. */
  toGroup(answer: Partial<ToGroup["answer"]> = {}, how: Partial<ToGroup> = {}): number {
    const n = this.ledger.number();
    this.ledger.acceptToGroup({
      ...{ n, group: "team", members: MEMBERS, absent: 1, mayRepeatPage: false, tries: 1 },
      answer: { users: 3, online: 2, sockets: 2, stored: 1, unknown: 0, ...answer },
      ...{ triedMs: this.nowMs, answeredMs: this.nowMs, ...how },
    });
    this.step();
    return n;
  }

  broadcast(place: string, said: number | "nothing" = 2, tries = 1): number {
    const n = this.ledger.number();
    const sockets = said === "nothing" ? undefined : said;
    const [epoch, seq] = place.split(".");
    const at = { triedMs: this.nowMs, sentMs: this.nowMs, answeredMs: this.nowMs };
    this.ledger.acceptBroadcast({ n, epoch: epoch!, seq: Number(seq), sockets, tries, ...at });
    this.step();
    return n;
  }

  get(user: string, seq: number, n: number): void {
    this.ledger.received(user, seq, n);
    this.step();
  }

  trimmed(user: string, from: number, to: number): void {
    const gap = { from, to, count: to - from + 1, why: "trimmed", pos: `e1.${to}` } as const;
    this.ledger.missed(user, { t: "gap", ...gap });
    this.step();
  }

  step(): void {
    this.nowMs += STEP_MS;
  }

  get faults(): string[] {
    return this.ledger.close().violations.map(({ kind }) => kind);
  }
}

/** All members have it. */
function received(script: Script, n: number, seq = 1): Script {
  for (const user of MEMBERS) script.get(user, seq, n);
  return script;
}

Deno.test("Books of a group balance when each member has it, or was told that it is missing", () => {
  const script = new Script();
  received(script, script.toGroup());
  script.toGroup();
  for (const user of MEMBERS) script.trimmed(user, 2, 2);
  script.toGroup();
  const gap = { from: 3, to: null, count: null, why: "epoch", pos: "e2.0" } as const;
  for (const user of MEMBERS) script.ledger.missed(user, { t: "gap", ...gap });
  const { violations, groups } = script.ledger.close();
  assertEquals(violations, []);
  assertEquals([groups.sends, groups.members, groups.received, groups.told], [3, 6, 2, 4]);
  assertEquals([groups.compared, groups.bounded, groups.excused], [3, 0, 0]);
});

Deno.test("A member who has it not, and was told of nothing, has lost it", () => {
  const script = new Script();
  script.get("alice", 1, script.toGroup());
  assertEquals(script.faults, ["lost"]);
});

Deno.test("A gap of one number explains one message to a group, none that is sent later, and no direct message besides", () => {
  const two = new Script();
  two.toGroup();
  two.toGroup();
  for (const user of MEMBERS) two.trimmed(user, 1, 1);
  assertEquals(two.faults, ["lost", "lost"]);

  const later = new Script();
  for (const user of MEMBERS) later.trimmed(user, 1, 1);
  later.toGroup();
  assertEquals(later.faults, ["lost", "lost"]);

  const direct = new Script();
  const { nowMs } = direct;
  const at = { triedMs: nowMs, sentMs: nowMs, answeredMs: nowMs };
  const n = direct.ledger.number();
  direct.ledger.accept({ user: "alice", n, epoch: "e1", seq: 1, sockets: 1, tries: 1, ...at });
  direct.get("bob", 1, direct.toGroup());
  direct.trimmed("alice", 1, 1);
  assertEquals(direct.faults, ["lost"]);
});

Deno.test("A member who has it twice is noticed, unless a page of a cluster was sent again", () => {
  const twice = (how: Partial<ToGroup>) => {
    const script = new Script();
    const n = script.toGroup({}, how);
    received(script, n);
    script.get("alice", 2, n);
    return [script.ledger.close().groups.again, ...script.faults];
  };
  assertEquals(twice({}), [0, "doubled"]);
  assertEquals(twice({ tries: 2 }), [0, "doubled"]);
  assertEquals(twice({ mayRepeatPage: true }), [0, "doubled"]);
  assertEquals(twice({ mayRepeatPage: true, tries: 2 }), [1]);
});

Deno.test("An answer that is not the sum of its members is wrong", () => {
  const wrong: Partial<ToGroup["answer"]>[] = [
    { users: 2, stored: 0 },
    { online: 1, stored: 2, sockets: 1 },
    { online: 3, stored: 0, sockets: 3 },
    { sockets: 3 },
    { stored: 0 },
    { users: 2, stored: 0, failed: 1 },
  ];
  for (const answer of wrong) {
    const script = new Script();
    received(script, script.toGroup(answer));
    assertEquals([...new Set(script.faults)], ["miscounted"], JSON.stringify(answer));
  }
  const unknown = new Script();
  received(unknown, unknown.toGroup({ users: 2, stored: 0, unknown: 1 }));
  assertEquals(unknown.faults, []);
});

Deno.test("Who was there all the time is counted, whoever else was away", () => {
  for (const [online, faults] of [[1, []], [2, []], [0, ["miscounted"]]] as const) {
    const script = new Script();
    script.ledger.broke("bob");
    const n = script.toGroup({ online, sockets: online, stored: 3 - online });
    script.ledger.opened("bob", "e1.0");
    received(script, n);
    assertEquals([script.ledger.close().groups.bounded, script.faults], [1, [...faults]], `${online}`);
  }
  const disturbed = new Script();
  disturbed.ledger.disturb();
  received(disturbed, disturbed.toGroup({ online: 0, sockets: 0, stored: 3 }));
  assertEquals([disturbed.ledger.close().groups.excused, disturbed.faults], [1, []]);
});

Deno.test("A broadcast that did not come, came twice, out of order or elsewhere, or was counted wrong, is noticed", () => {
  const all = (script: Script, seq: number, n: number) => {
    for (const user of MEMBERS) script.ledger.receivedBroadcast(user, seq, n);
  };
  const well = new Script();
  all(well, 1, well.broadcast("b1.1"));
  all(well, 2, well.broadcast("b1.2", "nothing", 2));
  assertEquals([well.faults, well.ledger.close().broadcasts.compared], [[], 1]);

  const lost = new Script();
  lost.broadcast("b1.1");
  assertEquals(lost.faults, ["lost", "lost"]);

  const twice = new Script();
  const n = twice.broadcast("b1.1");
  all(twice, 1, n);
  all(twice, 2, n);
  assertEquals(twice.faults, ["doubled", "doubled"]);

  const elsewhere = new Script();
  all(elsewhere, 1, elsewhere.broadcast("b2.1"));
  assertEquals(elsewhere.faults, ["misplaced", "misplaced"]);

  const hole = new Script();
  all(hole, 2, hole.broadcast("b1.2"));
  assertEquals(hole.faults, ["disordered", "disordered"]);

  const counted = new Script();
  all(counted, 1, counted.broadcast("b1.1", 1));
  all(counted, 2, counted.broadcast("b1.2", "nothing"));
  assertEquals(counted.faults, ["miscounted", "miscounted"]);

  const never = new Script();
  all(never, 1, 99);
  assertEquals(never.faults, ["other", "other"]);

  const told = new Script();
  told.broadcast("b1.1");
  const gap = { from: 1, to: 1, count: 1, why: "trimmed", pos: "b1.1" } as const;
  for (const user of MEMBERS) told.ledger.missedBroadcasts(user, { t: "bgap", ...gap });
  assertEquals([told.faults, told.ledger.close().broadcasts.told], [[], 2]);
});
