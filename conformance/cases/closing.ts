/** When a client comes back, how soon, and when it stays away. */
import type { Case } from "../case.ts";
import type { Peer } from "../peer.ts";
import { BrokenRule, type Stage } from "../stage.ts";

const SECTION = "close-codes";
const FROM_SERVER = "from-the-server";
/** 1006 is a connection that breaks; the last three are codes that the protocol does not name. */
const COME_BACK = [1001, 1009, 1012, 1013, 4508, 1006, 1011, 3000, 4600];
const STOP = [1000, 4400, 4403, 4408, 4409, 4429, 4477];
/** After so many failures at once a client has waited 7.75 s on average. That it is less than a 15th of that comes about by chance once in 100,000 runs. */
const FAILURES = 5;
const LEAST_MS = 500;
/**
 * After so many connections that broke at once one wait was longer than the first can be. Where each may be as long as it
 * is to be, none was by chance once in 30,000 runs.
 */
const BREAKS = 6;
/**
 * What a program may take to connect, in milliseconds. Whose waits less that can all be the same part of their longest has no
 * chance in it; by chance it comes about less than once in 100,000 runs.
 */
const CONNECTING_MS = 50;
/**
 * Waits after a steady connection: those of who began anew come to 7.5 s at most. Of who counts on, where each is a random
 * part of 30 s, they come to so little, with 5 s of patience, once in a thousand runs.
 */
const ANEW = 4;
const STEADY_MS = 10_000;
const SILENCE_MS = 10_000;
/** How often the kit may be late itself. */
const TRIES = 5;

export const CLOSING: readonly Case[] = [
  {
    name: "comes-back",
    rule: `comes back after ${COME_BACK.join(", ")}`,
    section: SECTION,
    async play(stage) {
      let peer = await stage.open();
      for (const code of COME_BACK) {
        if (code === 1006) {
          peer.send({ t: "bye", code: 1012, why: "restart", retry_ms: 0 });
          peer.cut();
        } else {
          peer.bye(code, "", 0);
        }
        try {
          peer = await stage.reopen();
        } catch (error) {
          throw new BrokenRule(`After ${code} ${error instanceof Error ? error.message : error}`);
        }
      }
    },
  },
  {
    name: "comes-back-unasked",
    rule: "comes back when the connection breaks without a bye, within half a second",
    section: SECTION,
    async play(stage) {
      (await stage.open()).cut();
      await stage.handshake();
    },
  },
  ...STOP.map((code): Case => ({
    name: `stops-${code}`,
    rule: `stops after ${code}`,
    section: SECTION,
    async play(stage) {
      (await stage.open()).bye(code, "because");
      await stage.ends();
    },
  })),
  {
    name: "stops-by-bye",
    rule: "takes the code of a bye when the connection then breaks",
    section: FROM_SERVER,
    async play(stage) {
      const peer = await stage.open();
      peer.send({ t: "bye", code: 4403, why: "kicked" });
      peer.cut();
      await stage.ends();
    },
  },
  {
    name: "stops-revoked",
    rule: "stops after 4401, unless the reason is token_expired",
    section: SECTION,
    async play(stage) {
      (await stage.open({ pos: "e.0" }, "token")).bye(4401, "revoked");
      await stage.ends();
    },
  },
  {
    name: "token-expired",
    rule: "comes back once after 4401 token_expired, with a new token, and resumes",
    section: SECTION,
    async play(stage) {
      const first = await stage.open({ pos: "e.0" }, "token");
      first.message(1);
      await stage.wrote({ seq: 1, data: 1 });
      first.bye(4401, "token_expired");
      const second = await stage.handshake();
      stage.expect(second.token !== first.token, "it shows the same token again");
      stage.expect(
        second.token === stage.tokens.at(-1),
        `it shows "${second.token}", which it was not given`,
      );
      stage.expect(second.resume === "e.1", `it resumes from "${second.resume}"`);
    },
  },
  {
    name: "token-expired-twice",
    rule: "stops after a second 4401 token_expired right after the first",
    section: SECTION,
    async play(stage) {
      (await stage.open({ pos: "e.0" }, "token")).bye(4401, "token_expired");
      (await stage.reopen()).bye(4401, "token_expired");
      await stage.ends();
    },
  },
  {
    name: "retry-ms",
    rule: "comes back after the retry_ms of a bye, and not before",
    section: SECTION,
    async play(stage) {
      const peer = await stage.open();
      peer.bye(1012, "restart", 800);
      const back = await stage.handshake(800 + stage.patienceMs);
      const ms = back.at - peer.closedAt!;
      stage.expect(ms >= 790, `it was told to wait 800 ms, and came after ${Math.round(ms)} ms`);
    },
  },
  {
    name: "backs-off",
    rule: "waits longer with each failed attempt",
    section: SECTION,
    async play(stage) {
      const waits = await fails(stage, await stage.start());
      const waitedMs = Math.round(waits.reduce((sum, ms) => sum + ms));
      const leastMs = LEAST_MS * stage.pace;
      stage.expect(
        waitedMs >= leastMs,
        `after ${FAILURES} failures it waited ${waitedMs} ms in all: less than ${leastMs} is no accident`,
      );
    },
  },
  {
    name: "backs-off-at-random",
    rule: "waits a random part of the longest time, lest all come back at once",
    section: SECTION,
    async play(stage) {
      const waits = await fails(stage, await stage.start());
      const parts = waits.map((ms, i) => ms / stage.longestWaitMs(i));
      const leastParts = waits.map((ms, i) => (ms - CONNECTING_MS * stage.pace) / stage.longestWaitMs(i));
      stage.expect(
        Math.max(...leastParts) > Math.min(...parts),
        `its waits are ${
          parts.map((part) => part.toFixed(2)).join(", ")
        } of the longest, each time about the same`,
      );
    },
  },
  {
    name: "backs-off-when-let-in",
    rule: "waits longer each time, too, when it is let in and the connection breaks at once",
    section: SECTION,
    async play(stage) {
      const waits = await fails(stage, await stage.start(), BREAKS, (peer) => {
        peer.accept();
        peer.hi({ pos: "e.0" });
        peer.cut();
      });
      const longestMs = Math.max(...waits);
      stage.expect(
        longestMs > stage.longestWaitMs(0) + CONNECTING_MS * stage.pace,
        `none of ${BREAKS} waits was longer than ${Math.round(longestMs)} ms, as if each were the first`,
      );
    },
  },
  {
    name: "backs-off-anew",
    rule: "starts again with short waits after a connection has lasted 10 s",
    section: SECTION,
    async play(stage) {
      await fails(stage, await stage.start());
      const peer = await stage.handshake(stage.longestWaitMs(FAILURES) + stage.patienceMs);
      peer.accept();
      peer.hi({ pos: "e.0" });
      await stage.stays(STEADY_MS * stage.pace + 500);
      peer.cut();
      let mayWaitMs = 0, waitedMs = 0, before: Pick<Peer, "closedAt"> = peer;
      for (let failures = 0; failures < ANEW; failures++) {
        const next = await stage.handshake(stage.longestWaitMs(failures) + stage.patienceMs);
        mayWaitMs += stage.longestWaitMs(failures);
        waitedMs += next.at - before.closedAt!;
        next.refuse(503);
        before = next;
      }
      stage.expect(
        waitedMs <= mayWaitMs + stage.patienceMs,
        `its first ${ANEW} waits then took ${Math.round(waitedMs)} ms in place of ${mayWaitMs} at most`,
      );
    },
  },
  {
    name: "silence",
    rule: "gives up a server that was silent for hi.ping and 10 seconds, and comes back",
    section: SECTION,
    async play(stage) {
      const ping = stage.pace;
      await stage.open({ pos: "e.0", ping });
      const from = performance.now();
      const limitMs = (ping * 1_000) + SILENCE_MS * stage.pace;
      const back = await stage.handshake(limitMs + stage.longestWaitMs(0) + stage.patienceMs);
      const ms = back.at - from;
      stage.expect(ms >= limitMs * 0.95, `it gave up after ${Math.round(ms)} ms of at least ${limitMs}`);
    },
  },
  {
    name: "quiet",
    rule: "does not give up a server that sends p",
    section: FROM_SERVER,
    async play(stage) {
      const hi = { pos: "e.0", ping: stage.pace };
      let peer = await stage.open(hi);
      for (let tries = 1; !await givesSignsOfLife(stage, peer); tries++) {
        stage.expect(
          tries < TRIES,
          "it can't be told: this machine is too busy to give signs of life in time",
        );
        peer = await stage.reopen(hi);
      }
      peer.message(1);
      await stage.wrote({ seq: 1, data: 1 });
    },
  },
];

/**
 * Is quiet but for signs of life, for longer than a client bears silence.
 * @returns False when one of them was so late that the client had to leave, as on a machine that did not let this process run.
 * @throws {BrokenRule} when it has left and none was.
 */
async function givesSignsOfLife(stage: Stage, peer: Peer): Promise<boolean> {
  const limitMs = (1_000 + SILENCE_MS) * stage.pace;
  let longestMs = 0, saidMs = performance.now();
  const silentMs = () => Math.max(longestMs, performance.now() - saidMs);
  for (let signs = 0; signs < 6; signs++) {
    try {
      await stage.stays(2_500 * stage.pace);
    } catch (error) {
      if (silentMs() < limitMs * 0.95) throw error;
      return false;
    }
    longestMs = silentMs();
    saidMs = performance.now();
    peer.send({ t: "p" });
  }
  return true;
}

/**
 * Lets the client fail so many times.
 * @param fail What it meets each time; a refusal if not given.
 * @returns How long it waited each time, in milliseconds.
 */
async function fails(
  stage: Stage,
  first: Peer,
  count = FAILURES,
  fail: (peer: Peer) => void = (peer) => peer.refuse(503),
): Promise<number[]> {
  const waits: number[] = [];
  let peer = first;
  for (let failures = 0; failures < count; failures++) {
    fail(peer);
    const next = await stage.handshake(stage.longestWaitMs(failures) + stage.patienceMs);
    waits.push(next.at - peer.closedAt!);
    peer = next;
  }
  peer.refuse(503);
  return waits;
}
