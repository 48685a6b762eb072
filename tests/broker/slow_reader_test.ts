/**
 * Clients that do not read: what they cost, and that they lose nothing that the history still has. The figures for a
 * hundred of them are in `bench/stalled.ts`, and `slow_reader_end_test.ts` says when they are given up.
 */
import { assert, assertEquals } from "@std/assert";
import type { GapFrame, MessageFrame } from "../../src/protocol/frames.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { numbers } from "../../testkit/nodes.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { OPCODE, type RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import {
  closeOf,
  ENV,
  FLOOD,
  MANY,
  MARK,
  NO_WAY_BACK,
  openStalled,
  sendMany,
  slowReaderTest,
  TEXT,
} from "../../testkit/slow_readers.ts";

/** Reads messages and gaps up to the last message. */
async function readUpTo(raw: RawSocket, last: number): Promise<(MessageFrame | GapFrame)[]> {
  const frames: (MessageFrame | GapFrame)[] = [];
  for (;;) {
    const frame = JSON.parse(await raw.readText(OPCODE.text, 15_000));
    if (frame.t === "p") continue;
    frames.push(frame);
    if (frame.t === "m" && frame.seq === last) return frames;
  }
}

/** The ranges that frames cover, in order: `m` for live messages, `r` for replayed ones, `gap`. */
function rangesOf(frames: readonly (MessageFrame | GapFrame)[]): [kind: string, from: number, to: number][] {
  const ranges: [string, number, number][] = [];
  for (const frame of frames) {
    const kind = frame.t === "gap" ? "gap" : frame.r === 1 ? "r" : "m";
    const [from, to] = frame.t === "gap" ? [frame.from, frame.to!] : [frame.seq!, frame.seq!];
    const last = ranges.at(-1);
    if (last?.[0] === kind && last[2] + 1 === from) last[2] = to;
    else ranges.push([kind, from, to]);
  }
  return ranges;
}

function assertContiguous(ranges: [string, number, number][]): void {
  assertEquals(ranges[0]![1], 1);
  for (const [i, [, from]] of ranges.entries()) if (i > 0) assertEquals(from, ranges[i - 1]![2] + 1);
}

slowReaderTest(
  "gets all that the history has when it reads again, in order, and a gap for the rest",
  async (service) => {
    await using alice = await openStalled(service);
    await using healthy = await Follower.open(service.socketUrl("alice"));
    await sendMany(service.server.app.publisher, MANY, (n) => healthy.reaches(n));
    healthy.assertNoFault();
    assertEquals([healthy.messages.length, healthy.gaps], [MANY, []]);

    alice.resumeReading();
    const ranges = rangesOf(await readUpTo(alice, MANY));
    // What was under way when she stopped reading, then nothing that the history has no more, then all it has.
    assertContiguous(ranges);
    assertEquals(ranges.filter(([kind]) => kind === "gap").length, 1);
    assertEquals(ranges.slice(-2).map(([kind, , to]) => [kind, to]), [["gap", MANY - 50], ["r", MANY]]);

    // She is live again.
    await sendMany(service.server.app.publisher, 1);
    assertEquals(rangesOf(await readUpTo(alice, MANY + 1)), [["m", MANY + 1, MANY + 1]]);
    assertEquals(closeOf(service), undefined);
  },
  { USERWIRE_HISTORY: "50" },
);

slowReaderTest("loses nothing when the history is long enough", async (service) => {
  await using alice = await openStalled(service);
  await sendMany(service.server.app.publisher, MANY);
  alice.resumeReading();
  const ranges = rangesOf(await readUpTo(alice, MANY));
  assertEquals(ranges.filter(([kind]) => kind === "gap"), []);
  assertContiguous(ranges);
}, { USERWIRE_HISTORY: "1000", USERWIRE_MAX_REPLAY: "1000" });

/** The payload of the next message. On a busy machine there may be a sign of life before it. */
async function nextPayload(socket: RawSocket, isRaw: boolean): Promise<string> {
  for (;;) {
    const text = await socket.readText(OPCODE.text, 20_000);
    if (isRaw) return text;
    const frame = JSON.parse(text);
    if (frame.t !== "p") return frame.data;
  }
}

redisTest("A slow reader costs no more memory than its mark and the history", async () => {
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url, USERWIRE_HISTORY: "20", USERWIRE_SLOW_TIMEOUT_S: "600" };
  // What the tests themselves hold must not count.
  await using service = await ProcessService.start({ ...ENV, ...env });
  await using publisher = await Publisher.open({ redisUrl: redis.url, history: 20 });
  await using _alice = await openStalled(service);
  await using healthy = await Follower.open(service.socketUrl("alice"));
  const reaches = async (n: number) => {
    await healthy.reaches(n);
    healthy.messages.length = 0;
  };
  await sendMany(publisher, 1_200, reaches); // the kernel's buffers are full, and the heap has its shape
  const before = await service.memory();
  // Far more than what the garbage collector lets lie around.
  const count = 4_000;
  await sendMany(publisher, count, (n) => reaches(1_200 + n));
  const grown = await service.memory() - before;
  const sent = count * TEXT.length;
  assert(grown < sent / 4, `Grew by ${grown} bytes while ${sent} were sent`);
});

for (const [who, open, history] of NO_WAY_BACK) {
  redisTest(`A slow reader with a subscription of its own leaves the rest in Redis: ${who}`, async () => {
    await using redis = await RedisServer.start();
    const env = {
      REDIS_URL: redis.url,
      USERWIRE_HISTORY: history,
      USERWIRE_MAX_BUFFERED_BYTES: `${8 * MARK}`,
    };
    await using service = await Service.start({ ...ENV, ...env });
    await using alice = await open(service);
    await sendMany(service.server.app.publisher, FLOOD);
    await until(async () => {
      const clients = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub"));
      return [...clients.matchAll(/\bomem=(\d+)/g)].some(([, bytes]) => Number(bytes) > 0);
    }, "what waits to be held by Redis");
    alice.resumeReading();
    for (const n of numbers(1, FLOOD)) {
      const payload = await nextPayload(alice, who.startsWith("raw"));
      assertEquals(payload.split(" ", 1)[0], `${n}`);
    }
    assertEquals(closeOf(service), undefined);
  });
}
