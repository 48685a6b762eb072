/** How a client asks the backend, which it may also do without. */
import type { Case } from "../case.ts";
import type { Peer } from "../peer.ts";
import type { Stage } from "../stage.ts";

const COMMON = { section: "requests", part: "requests" } as const;
const ID = /^[\w-]{1,64}$/;
/** So many may be unanswered. */
const MAX_UNANSWERED = 16;
/** As many as a client that does not hold back would send in less than a second. */
const MANY = 130;
/** What a service lets a client send in a second, if not told else. */
const MAX_FRAMES_PER_SECOND = 100;
/** Within which what must not come would come. */
const LOOK_MS = 500;

interface Request {
  readonly t?: unknown;
  readonly id?: unknown;
  readonly op?: unknown;
  readonly data?: unknown;
}

export const REQUESTS: readonly Case[] = [
  {
    ...COMMON,
    name: "request",
    rule: "asks with an id, an op and data, and takes the answer that has the id",
    async play(stage) {
      const peer = await asks(stage, [{ op: "orders.get", data: { id: 7 } }]);
      const [{ id, op, data }] = await arrived(stage, peer, 1) as [Request];
      stage.expect(ID.test(String(id)), `its id is ${JSON.stringify(id)}`);
      const said = JSON.stringify([op, data]);
      stage.expect(said === '["orders.get",{"id":7}]', `it asks for ${said}`);
      peer.send({ t: "re", id: "another", ok: true, data: "for another" });
      peer.send({ t: "re", id, ok: true, data: { total: 42 } });
      await stage.wrote({ answer: 0, data: { total: 42 } });
    },
  },
  {
    ...COMMON,
    name: "request-refused",
    rule: "tells the application the code and the outcome of what was not done",
    async play(stage) {
      const peer = await asks(stage, [{ op: "a" }, { op: "b" }]);
      const [first, second] = await arrived(stage, peer, 2) as [Request, Request];
      peer.send({ t: "re", id: first.id, ok: false, code: "sold_out", err: "None is left" });
      await stage.wrote({ refused: 0, code: "sold_out", outcome: "refused" });
      peer.send({ t: "re", id: second.id, ok: false, code: "timeout", err: "No answer", outcome: "unknown" });
      await stage.wrote(
        { refused: 0, code: "sold_out", outcome: "refused" },
        { refused: 1, code: "timeout", outcome: "unknown" },
      );
    },
  },
  {
    ...COMMON,
    name: "request-unsupported",
    rule: "asks nothing of a service whose hi has no req",
    async play(stage) {
      const peer = await asks(stage, [{ op: "a" }], {});
      await stage.stays(LOOK_MS);
      stage.expect(requestsOf(peer).length === 0, "it asks all the same");
      await stage.wrote({ refused: 0, code: "unsupported", outcome: "refused" });
    },
  },
  {
    ...COMMON,
    name: "request-lost",
    rule:
      "takes what was under way for unknown when the connection ends, and does not ask it again by itself",
    async play(stage) {
      const peer = await asks(stage, [{ op: "a" }]);
      await arrived(stage, peer, 1);
      peer.cut();
      const back = await stage.reopen({ pos: "e.0", req: 1 });
      await stage.stays(LOOK_MS);
      stage.expect(requestsOf(back).length === 0, "it asks again");
      await stage.wrote({ refused: 0, code: "lost", outcome: "unknown" });
    },
  },
  {
    ...COMMON,
    name: "request-sixteen",
    rule: `has no more than ${MAX_UNANSWERED} unanswered, and asks in order, each with an id of its own`,
    async play(stage) {
      const ops = Array.from({ length: MAX_UNANSWERED + 4 }, (_, i) => ({ op: `op${i}` }));
      const peer = await asks(stage, ops);
      await arrived(stage, peer, MAX_UNANSWERED);
      await stage.stays(LOOK_MS);
      const unanswered = requestsOf(peer).length;
      stage.expect(unanswered === MAX_UNANSWERED, `it has ${unanswered} unanswered`);
      for (const { id } of requestsOf(peer)) peer.send({ t: "re", id, ok: true });
      const all = await arrived(stage, peer, ops.length);
      const inOrder = all.every(({ op }, i) => op === ops[i]!.op);
      stage.expect(inOrder, `it asks for ${all.map(({ op }) => op).join(", ")}`);
      stage.expect(new Set(all.map(({ id }) => id)).size === all.length, "it has an id twice");
    },
  },
  {
    ...COMMON,
    name: "request-few-frames",
    rule:
      `sends no more than ${MAX_FRAMES_PER_SECOND} frames a second, however fast its requests are answered`,
    async play(stage) {
      const peer = await asks(stage, Array.from({ length: MANY }, () => ({ op: "a" })));
      let answered = 0;
      const answerAll = () => {
        for (const { id } of requestsOf(peer).slice(answered)) {
          peer.send({ t: "re", id, ok: true });
          answered++;
        }
        return answered === MANY;
      };
      await stage.until(answerAll, `to ask ${MANY} times`, MANY * 40 + stage.patienceMs);
      const most = peer.mostInOneSecond();
      stage.expect(most <= MAX_FRAMES_PER_SECOND, `it has sent ${most} in one second`);
    },
  },
];

/** Starts a program that asks for these, and lets it in. */
async function asks(
  stage: Stage,
  requests: readonly { op: string; data?: unknown }[],
  hi: Record<string, unknown> = { req: 1 },
): Promise<Peer> {
  stage.requests = requests;
  return await stage.open({ pos: "e.0", ...hi });
}

async function arrived(stage: Stage, peer: Peer, count: number): Promise<Request[]> {
  await stage.until(() => requestsOf(peer).length >= count, `to ask ${count} times`);
  return requestsOf(peer);
}

function requestsOf(peer: Peer): Request[] {
  return peer.frames.filter((frame) => (frame as Request).t === "req") as Request[];
}
