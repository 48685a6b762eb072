/** The books of the chaos know when a message that came twice is the sender's doing, and when it is a fault. */
import { assertEquals } from "@std/assert";
import { Ledger } from "./chaos/ledger.ts";

/** What a ledger makes of a send that its client got so often, each time in another epoch. */
function verdictOn(send: { tries: number; copies: number; losses: number }) {
  const ledger = new Ledger();
  const triedMs = performance.now();
  for (let i = 0; i < send.losses; i++) ledger.redisLost();
  ledger.opened("alice", "e1.0");
  for (let copy = 1; copy <= send.copies; copy++) {
    if (copy > 1) {
      ledger.missed("alice", { t: "gap", from: 2, to: null, count: null, why: "epoch", pos: `e${copy}.0` });
    }
    ledger.received("alice", 1, 7);
  }
  const place = { epoch: `e${send.copies}`, seq: 1 };
  ledger.accept({ user: "alice", n: 7, ...place, triedMs, answeredMs: performance.now(), tries: send.tries });
  const { received, sentAgainAfterLoss, violations } = ledger.close();
  return [received, sentAgainAfterLoss, violations.length];
}

Deno.test("A message that came twice is excused when its sender tried again across a loss, and only then", () => {
  assertEquals(verdictOn({ copies: 1, tries: 1, losses: 1 }), [1, 0, 0]);
  assertEquals(verdictOn({ copies: 2, tries: 2, losses: 1 }), [1, 1, 0]);
  assertEquals(verdictOn({ copies: 3, tries: 3, losses: 2 }), [1, 1, 0]);
  assertEquals(verdictOn({ copies: 2, tries: 1, losses: 1 }), [1, 0, 1], "tried once");
  assertEquals(verdictOn({ copies: 2, tries: 2, losses: 0 }), [1, 0, 1], "nothing was lost");
  assertEquals(verdictOn({ copies: 3, tries: 3, losses: 1 }), [1, 0, 1], "lost once, came three times");
});
