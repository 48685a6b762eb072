/**
 * The sign-in of a live session in the orders of events that real sockets meet only by chance: here the test says when
 * a token is verified, when an order to close arrives and when a second has passed.
 */
import { assertEquals } from "@std/assert";
import type { Identity } from "../../src/auth/auth.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../src/log/log.ts";
import { CLOSE, type CloseReason } from "../../src/protocol/close_codes.ts";
import type { ReplyFrame } from "../../src/protocol/frames.ts";
import { type SignedIn, SignIn, type SignInHost } from "../../src/session/credential_watch.ts";

const REVOKED = { ...CLOSE.revoked, revoked: { jti: "fresh" } };

/** A live session of alice's with a token "old", and a house whose answers the test gives. */
class Stage implements SignedIn, SignInHost {
  readonly id = "1";
  readonly username = "alice";
  readonly log = memoryLog();
  readonly sent: ReplyFrame[] = [];
  readonly asked: (string | undefined)[] = [];
  readonly verified = Promise.withResolvers<Identity>();
  /** What the keeper of revocations answers. */
  isRevoked: SignInHost["isRevoked"] = ({ jti }) => {
    this.asked.push(jti);
    return Promise.resolve(true);
  };
  closedBy: CloseReason | undefined;
  readonly signIn = new SignIn(this, this);

  constructor() {
    this.signIn.begin(identity("old"));
  }

  get state(): SignedIn["state"] {
    return this.closedBy ? "closing" : "live";
  }

  authenticate(): Promise<Identity> {
    return this.verified.promise;
  }

  send(frame: ReplyFrame): void {
    this.sent.push(frame);
  }

  close(reason: CloseReason): void {
    this.closedBy ??= reason;
  }

  /** A second passes, and all that was asked is answered. */
  async tick(): Promise<void> {
    this.signIn.tick();
    // The next turn of the event loop: by then every promise that could go on has.
    await new Promise((resolve) => setTimeout(resolve));
  }
}

function identity(jti: string, lifeS = 60): Identity {
  const nowS = Math.floor(Date.now() / 1_000);
  return { username: "alice", jti, iat: nowS, exp: nowS + lifeS, takenUntil: nowS + lifeS };
}

Deno.test("A token that is revoked while it is being verified ends the session", async () => {
  const stage = new Stage();
  const refreshed = stage.signIn.refresh("fresh", "7");
  // It has been looked up and found good; then it is revoked, and the order overtakes the answer.
  stage.signIn.obey(REVOKED);
  await stage.tick();
  assertEquals([stage.asked, stage.closedBy], [[], undefined], "nothing is known of the old token");
  stage.verified.resolve(identity("fresh"));
  await refreshed;
  assertEquals(stage.sent.map(({ id, ok }) => [id, ok]), [["7", true]]);
  await stage.tick();
  assertEquals([stage.asked, stage.closedBy], [["fresh"], CLOSE.revoked]);
});

Deno.test("An order for another token costs a session nothing while none is being verified", async () => {
  const stage = new Stage();
  stage.signIn.obey(REVOKED);
  await stage.tick();
  assertEquals([stage.asked, stage.closedBy], [[], undefined]);
  stage.signIn.obey({ ...REVOKED, revoked: { jti: "old" } });
  assertEquals(stage.closedBy, { code: 4401, why: "revoked" });
});

Deno.test("Who keeps revocations is asked once, and again while there is no answer", async () => {
  const stage = new Stage();
  const answers = [Promise.reject(new BrokerUnavailableError("away")), Promise.resolve(false)];
  let asked = 0;
  stage.isRevoked = () => answers[asked++]!;
  stage.signIn.verify();
  for (const count of [1, 2, 2]) {
    await stage.tick();
    assertEquals([asked, stage.closedBy], [count, undefined]);
  }
});

Deno.test("A second token is not verified beside the first, and none is answered after the end", async () => {
  const stage = new Stage();
  const first = stage.signIn.refresh("fresh", "1");
  await stage.signIn.refresh("fresh", "2");
  assertEquals(stage.sent.map(({ id, ok }) => [id, ok]), [["2", false]]);
  stage.signIn.obey(CLOSE.kicked);
  stage.verified.resolve(identity("fresh"));
  await first;
  assertEquals([stage.sent.length, stage.closedBy], [1, { code: 4403, why: "kicked" }]);
});

Deno.test("What goes wrong in a verification is told to the log, not to the client, who may try again", async () => {
  const stage = new Stage();
  stage.verified.reject(new TypeError("disk of the login service is full"));
  for (const id of ["1", "2"]) await stage.signIn.refresh("fresh", id);
  const refused = { t: "re", ok: false, err: "The token could not be verified" } as const;
  assertEquals(stage.sent, [{ ...refused, id: "1" }, { ...refused, id: "2" }]);
  const [said] = stage.log.records;
  assertEquals([said?.level, said?.fields.reason], ["error", "disk of the login service is full"]);
  assertEquals([stage.closedBy, stage.log.records.length], [undefined, 2]);
});
