/** How a session begins, in a process whose answers the test gives: who may not come in leaves nothing behind. */
import { assertEquals, assertRejects } from "@std/assert";
import type { Identity } from "../../src/auth/auth.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { UnauthorizedError } from "../../src/protocol/errors.ts";
import { BroadcastRing } from "../../src/session/broadcast_ring.ts";
import { type OpenSessionParts, RefusedError, sessionOpener } from "../../src/session/open_session.ts";
import { WebSocketTransport } from "../../src/session/websocket_transport.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

/** One session of alice's may be at one time; her token holds. */
function make(
  { here = 1, everywhere = 1, isRevoked = false, ticketError = undefined as Error | undefined } = {},
) {
  const told: string[] = [];
  const log = memoryLog();
  const registry = {
    join: () => told.push("joined"),
    countOf: () => here,
    onEnd: () => told.push("ended"),
    onGone: () => told.push("gone"),
    isPatient: () => true,
  };
  let onSubscribe = () => {};
  const open = sessionOpener({
    context: { limits: {}, log, registry, metrics: {} },
    broker: {
      subscribe: () => {
        told.push("subscribed");
        onSubscribe();
        return Promise.resolve({ close: () => void told.push("unsubscribed") });
      },
      counts: () => Promise.resolve([everywhere]),
    },
    history: { limits: { count: 0 } },
    broadcasts: {
      ring: new BroadcastRing({ entries: 1, bytes: 1, ttlMs: 1 }),
      placeOf: () => Promise.resolve({ position: { epoch: "", seq: 0 } }),
    },
    auth: {
      isRevoked: () => Promise.resolve(isRevoked),
      redeem: () => ticketError ? Promise.reject(ticketError) : Promise.resolve(void told.push("redeemed")),
    },
    limit: { isOverQuota: (_identity: Identity, sessions: number) => sessions > 1 },
    maxReplay: 1,
    channelPrefix: "",
  } as unknown as OpenSessionParts);
  const start = (identity: Partial<Identity> = {}, signal?: AbortSignal) =>
    open(new WebSocketTransport(true, 1), { username: "alice", exp: 1, ...identity } as Identity, {
      addressKey: "address",
      ...(signal && { signal }),
    });
  return { told, log, start, onSubscribe: (call: () => void) => void (onSubscribe = call) };
}

const LEFT_NOTHING = ["joined", "subscribed", "unsubscribed", "ended", "gone"];

Deno.test("Who may come in has joined, is subscribed, and has used up the ticket", async () => {
  const { told, start } = make();
  const session = await start({ ticket: "t" } as Partial<Identity>);
  assertEquals([session.state, told], ["opening", ["joined", "subscribed", "redeemed"]]);
});

Deno.test("Who is revoked meanwhile, or one too many, is refused for that reason and leaves nothing", async () => {
  for (
    const [facts, reason, left] of [
      [{ isRevoked: true }, CLOSE.revoked, LEFT_NOTHING],
      [{ everywhere: 2 }, CLOSE.tooMany, LEFT_NOTHING],
      [{ here: 2 }, CLOSE.tooMany, ["joined", "ended", "gone"]],
    ] as const
  ) {
    const { told, log, start } = make(facts);
    const error = await assertRejects(() => start(), RefusedError);
    assertEquals([error.close, told], [reason, [...left]]);
    assertEquals(log.records.at(-1)?.fields.code, reason.code);
  }
});

Deno.test("A ticket that is used up lets nobody in", async () => {
  const { told, log, start } = make({ ticketError: new UnauthorizedError("The ticket is used up") });
  await assertRejects(() => start({ ticket: "t" } as Partial<Identity>), UnauthorizedError, "used up");
  assertEquals([told, log.records.at(-1)?.fields.code], [LEFT_NOTHING, CLOSE.unauthorized.code]);
});

Deno.test("A client that leaves while it subscribes ends its session, without a close code", async () => {
  const { told, log, start, onSubscribe } = make();
  const leave = new AbortController();
  onSubscribe(() => leave.abort(new Error("left")));
  await assertRejects(() => start({}, leave.signal), Error, "left");
  assertEquals([told, log.records.at(-1)?.fields], [LEFT_NOTHING, {
    ...log.records.at(-1)?.fields,
    reason: "the client left",
  }]);
  assertEquals(log.records.at(-1)?.fields.code, undefined);
});
