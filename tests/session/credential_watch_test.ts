/**
 * The credential of a live session in the orders of events that real sockets meet only by chance: here the test says when
 * a token is verified, when an order to close arrives and when a second has passed.
 */
import { assertEquals } from "@std/assert";
import type { Identity } from "../../src/auth/auth.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { CLOSE, type CloseReason } from "../../src/protocol/close_codes.ts";
import type { ReplyFrame } from "../../src/protocol/frames.ts";
import type { SessionContext } from "../../src/session/context.ts";
import { CredentialWatch, type WatchedSession } from "../../src/session/credential_watch.ts";

const REVOKED = { ...CLOSE.revoked, revoked: { jti: "fresh" } };

/** A live session of alice's with a token "old", in a process whose answers the test gives. */
class Stage implements WatchedSession, Pick<SessionContext, "log" | "auth"> {
  readonly id = "1";
  readonly username = "alice";
  readonly log = memoryLog();
  readonly sent: ReplyFrame[] = [];
  readonly asked: (string | undefined)[] = [];
  readonly verified = Promise.withResolvers<Identity>();
  /** What the keeper of revocations answers, one after the other; then that it is revoked. */
  readonly answers: Promise<boolean>[] = [];
  readonly auth = {
    authenticate: () => this.verified.promise,
    isRevoked: ({ jti }: Identity) => {
      this.asked.push(jti);
      return this.answers.shift() ?? Promise.resolve(true);
    },
  };
  closedBy: CloseReason | undefined;
  readonly watch = new CredentialWatch(this, identity("old"), this);

  get state(): WatchedSession["state"] {
    return this.closedBy ? "closing" : "live";
  }

  send(frame: ReplyFrame): void {
    this.sent.push(frame);
  }

  close(reason: CloseReason): void {
    this.closedBy ??= reason;
  }

  /** A second passes, and all that was asked is answered. */
  async tick(): Promise<void> {
    this.watch.tick();
    // The next turn of the event loop: by then every promise that could go on has.
    await new Promise((resolve) => setTimeout(resolve));
  }
}

function identity(jti: string, lifeS = 60): Identity {
  const nowS = Math.floor(Date.now() / 1_000);
  return { username: "alice", jti, iat: nowS, exp: nowS + lifeS, takenUntil: nowS + lifeS };
}

Deno.test("A token that is revoked while it is being verified ends the session", async () => {
  for (const isKnown of [false, true]) {
    const stage = new Stage();
    const lookedUp = Promise.withResolvers<boolean>();
    stage.answers.push(lookedUp.promise);
    const refreshed = stage.watch.refresh("fresh", "7");
    if (isKnown) stage.verified.resolve(identity("fresh"));
    await stage.tick();
    const asked = isKnown ? ["fresh"] : [];
    assertEquals(stage.asked, asked);
    // It has been looked up and found good; then it is revoked, and the order overtakes the answer.
    stage.watch.onCloseOrder(REVOKED);
    await stage.tick();
    assertEquals([stage.asked, stage.closedBy], [asked, undefined], "nothing is known of the old token");
    stage.verified.resolve(identity("fresh"));
    lookedUp.resolve(false);
    await refreshed;
    assertEquals(stage.sent.map(({ id, ok }) => [id, ok]), [["7", true]]);
    await stage.tick();
    assertEquals([stage.asked, stage.closedBy], [["fresh", "fresh"], CLOSE.revoked]);
  }
});

Deno.test("A fresh token that has been revoked already is refused, and the old one holds", async () => {
  const stage = new Stage();
  stage.verified.resolve(identity("fresh"));
  await stage.watch.refresh("fresh", "7");
  const err = "The token has been revoked: get a new one";
  assertEquals(stage.sent, [{ t: "re", id: "7", ok: false, err }]);
  stage.watch.onCloseOrder({ ...REVOKED, revoked: { jti: "old" } });
  assertEquals(stage.closedBy, { code: 4401, reason: "revoked" });
});

Deno.test("An order for another token costs a session nothing while none is being verified", async () => {
  const stage = new Stage();
  stage.watch.onCloseOrder(REVOKED);
  await stage.tick();
  assertEquals([stage.asked, stage.closedBy], [[], undefined]);
  stage.watch.onCloseOrder({ ...REVOKED, revoked: { jti: "old" } });
  assertEquals(stage.closedBy, { code: 4401, reason: "revoked" });
});

Deno.test("Who keeps revocations is asked once, and again while there is no answer", async () => {
  const stage = new Stage();
  stage.answers.push(Promise.reject(new BrokerUnavailableError("away")), Promise.resolve(false));
  stage.watch.recheck();
  for (const count of [1, 2, 2]) {
    await stage.tick();
    assertEquals([stage.asked.length, stage.closedBy], [count, undefined]);
  }
});

Deno.test("A second token is not verified beside the first, and none is answered after the end", async () => {
  const stage = new Stage();
  const first = stage.watch.refresh("fresh", "1");
  await stage.watch.refresh("fresh", "2");
  assertEquals(stage.sent.map(({ id, ok }) => [id, ok]), [["2", false]]);
  stage.watch.onCloseOrder(CLOSE.kicked);
  stage.verified.resolve(identity("fresh"));
  await first;
  assertEquals([stage.sent.length, stage.closedBy], [1, { code: 4403, reason: "kicked" }]);
});

Deno.test("What goes wrong in a verification is told to the log, not to the client, who may try again", async () => {
  const stage = new Stage();
  stage.verified.reject(new TypeError("disk of the login service is full"));
  for (const id of ["1", "2"]) await stage.watch.refresh("fresh", id);
  const refused = { t: "re", ok: false, err: "The token could not be verified" } as const;
  assertEquals(stage.sent, [{ ...refused, id: "1" }, { ...refused, id: "2" }]);
  const [said] = stage.log.records;
  assertEquals([said?.level, said?.fields.reason], ["error", "disk of the login service is full"]);
  assertEquals([stage.closedBy, stage.log.records.length], [undefined, 2]);
});
