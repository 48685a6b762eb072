/** A stream of server-sent events as a transport: what waits for a client that does not read, its time, and its end. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { formatFrame, PING_FRAME } from "../../src/protocol/frames.ts";
import { SseTransport } from "../../src/session/sse_transport.ts";

const MARK = 1_000;

/** A transport whose answer is read when the test asks for it, as Deno does when a client takes bytes. */
function stream() {
  const transport = new SseTransport(MARK);
  const told: string[] = [];
  transport.events = {
    opened: () => told.push("opened"),
    frame: () => told.push("frame"),
    flooded: () => told.push("flooded"),
    expired: () => told.push("expired"),
    gone: (code) => told.push(`gone ${code}`),
  };
  const completed = Promise.withResolvers<void>();
  const decoder = new TextDecoder();
  let reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
  return {
    transport,
    told,
    completed,
    /** Answers the client. */
    begin: () => reader = transport.answer(completed.promise).getReader(),
    /** What comes next; undefined at the end. */
    async read(): Promise<string | undefined> {
      const { value } = await reader!.read();
      return value && decoder.decode(value);
    },
    cancel: () => reader!.cancel(),
  };
}

/** An opened one, whose client has had the greeting. */
async function opened() {
  const one = stream();
  one.begin();
  const reading = one.read();
  one.transport.send('{"t":"hi","pos":"Ep.4","tag":"EpAAAAAA","all":"Al.2"}');
  return { ...one, first: await reading };
}

function message(seq: number, text = "x"): string {
  return `{"t":"m","seq":${seq},"tag":"EpBBBBBB","id":"i","ts":1,"data":"${text}"}`;
}

Deno.test("Stream opens when its answer is read, and not before", async () => {
  const { transport, told, begin, read } = stream();
  assertEquals(transport.state, "unanswered");
  begin();
  assertEquals([transport.state, told], ["opening", []]);
  const reading = read();
  transport.send(formatFrame({ t: "re", id: "1", ok: true }));
  const text = await reading;
  assertEquals([transport.state, told], ["open", ["opened"]]);
  const [, retryMs] = /^retry: (\d+)\n\nevent: re\ndata: /.exec(text!)!;
  assert(Number(retryMs) >= 1_000 && Number(retryMs) <= 2_000, retryMs);
});

Deno.test("Stream's ids are the places of both sequences, of what has a number", async () => {
  const { transport, first, read } = await opened();
  assertEquals(first!.split("\n")[3], "id: Ep.4.EpAAAAAA,Al.2");
  const frames: [frame: string, id: string | undefined][] = [
    [message(5), "Ep.5.EpBBBBBB,Al.2"],
    ['{"t":"m","r":1,"ack":1,"seq":6,"id":"i","ts":1,"data":1}', "Ep.6,Al.2"],
    ['{"t":"m","id":"i","ts":1,"data":{"t":"m","seq":9}}', undefined],
    ['{"t":"b","seq":3,"tag":"AlCCCCCC","id":"i","ts":1,"data":1}', "Ep.6,Al.3.AlCCCCCC"],
    ['{"t":"gap","from":7,"to":null,"count":null,"why":"epoch","pos":"New.0"}', "New.0,Al.3.AlCCCCCC"],
    ['{"t":"m","seq":1,"tag":"NewDDDDD","id":"i","ts":1,"data":1}', "New.1.NewDDDDD,Al.3.AlCCCCCC"],
    [
      '{"t":"bgap","from":4,"to":8,"count":5,"why":"trimmed","pos":"Al.8","tag":"AlEEEEEE"}',
      "New.1.NewDDDDD,Al.8.AlEEEEEE",
    ],
    ['{"t":"re","id":"1","ok":true}', undefined],
  ];
  for (const [frame, id] of frames) {
    transport.send(frame);
    const lines = (await read())!.split("\n");
    assertEquals(lines.slice(1), [...(id === undefined ? [] : [`id: ${id}`]), `data: ${frame}`, "", ""]);
  }
  transport.send(PING_FRAME);
  assertEquals(await read(), ": p\n\n");
});

Deno.test("Stream without a history has no ids", async () => {
  const { transport, begin, read } = stream();
  begin();
  const reading = read();
  transport.send('{"t":"hi","conn":"c"}');
  assertEquals((await reading)!.includes("\nid"), false);
  transport.send('{"t":"m","id":"i","ts":1,"data":1}');
  assertEquals((await read())!.includes("\nid"), false);
});

Deno.test("Stream keeps no more for a client that does not read than it may", async () => {
  const { transport, read } = await opened();
  const asked = read();
  // The first goes to whoever asks; what follows waits.
  assertEquals(transport.write(message(5, "y".repeat(2 * MARK))), true);
  assertEquals(transport.write(message(6, "z".repeat(2 * MARK))), true, "A larger one goes alone");
  assertEquals([transport.write(message(7)), transport.hasRoom], [false, false]);
  assertEquals(transport.tick(false), 0, "It has taken the greeting since the last look");
  assertEquals([transport.tick(false), transport.tick(false)], [1, 2]);
  assertEquals(transport.tick(true), 2, "A process that was stopped says nothing of its clients");
  assert((await asked)!.includes("yyy"));
  assert((await read())!.includes("zzz"));
  assertEquals([transport.tick(false), transport.hasRoom, transport.write(message(7))], [0, true, true]);
});

Deno.test("Stream hands over many events at once, whole ones, and not all of them", async () => {
  const one = stream();
  const large = new SseTransport(1_000_000);
  const reader = large.answer(one.completed.promise).getReader();
  const reading = reader.read();
  large.send('{"t":"hi"}');
  await reading;
  for (let seq = 1; seq <= 1_000; seq++) large.write(message(seq, "x".repeat(100)));
  const chunks: number[] = [];
  while (chunks.reduce((sum, count) => sum + count, 0) < 1_000) {
    const { value } = await reader.read();
    const text = new TextDecoder().decode(value);
    assert(text.startsWith("event: m\n") && text.endsWith("\n\n"));
    chunks.push(text.split("\n\n").length - 1);
  }
  assert(chunks.length > 5 && chunks.every((count) => count < 200), `${chunks}`);
});

Deno.test("Stream lasts five minutes at most, and not all end together", async () => {
  const lives = new Set<number>();
  for (let i = 0; i < 20; i++) {
    const { transport, told } = await opened();
    let ticks = 0;
    for (; told.at(-1) !== "expired"; ticks++) transport.tick(false);
    assert(ticks > 250 && ticks <= 300, `${ticks} seconds`);
    lives.add(ticks);
  }
  assert(lives.size > 3, `All last ${[...lives]} s`);
});

Deno.test("Stream says why it ends, and when to come back", async () => {
  const ends: [reason: { code: number; reason: string }, retryMs: number | undefined, tail: string][] = [
    [CLOSE.restart, 250, "retry: 250\n\n"],
    [CLOSE.kicked, undefined, "retry: 86400000\n\n"],
    [CLOSE.overloaded, undefined, ""],
  ];
  for (const [reason, retryMs, tail] of ends) {
    const { transport, told, read, completed } = await opened();
    transport.close(reason, retryMs === undefined ? {} : { retryMs });
    const text = (await read())!;
    const retry = retryMs === undefined ? "" : `,"retry_ms":${retryMs}`;
    assertEquals(
      text,
      `event: bye\ndata: {"t":"bye","code":${reason.code},"why":"${reason.reason}"${retry}}\n\n${tail}`,
    );
    assertEquals([await read(), told], [undefined, ["opened"]], "It is not gone before it has taken that");
    completed.resolve();
    await completed.promise;
    assertEquals(told, ["opened", `gone ${reason.code}`]);
  }
});

Deno.test("Stream of a client that reads no more drops what waits, and waits for its end", async () => {
  const { transport, told, read, completed } = await opened();
  const asked = read();
  transport.write(message(5));
  transport.write(message(6));
  transport.tick(false);
  transport.tick(false);
  transport.close(CLOSE.slow);
  assertEquals(told, ["opened"]);
  assert((await asked)!.includes('"seq":5'), "What Deno has is not taken back");
  assert((await read())!.startsWith("event: bye"));
  completed.reject(new Error("it left"));
  await completed.promise.catch(() => {});
  assertEquals(told, ["opened", "gone 4508"]);
});

Deno.test("Stream whose client leaves is gone once, whoever says so first", async () => {
  const { transport, told, cancel, completed } = await opened();
  await cancel();
  completed.resolve();
  await completed.promise;
  transport.close(CLOSE.restart);
  transport.send(PING_FRAME);
  assertEquals([told, transport.state], [["opened", "gone 0"], "closed"]);
});

Deno.test("Stream of which nothing is read is given up, and says so to a client that comes after all", async () => {
  const { transport, told, begin, read } = stream();
  begin();
  for (let tick = 0; tick < 3; tick++) transport.tick(false);
  assertEquals([transport.state, told], ["closed", ["gone undefined"]]);
  assertMatch((await read())!, /^event: bye\n/);
  assertEquals(await read(), undefined);
});

Deno.test("Stream that was never answered is gone at once when it is closed", () => {
  const { transport, told } = stream();
  transport.close(CLOSE.restart);
  assertEquals([transport.state, told], ["closed", ["gone undefined"]]);
});

Deno.test("Stream bears a client that is found to have left while it is given something", () => {
  const { transport, told, completed } = stream();
  transport.answer(completed.promise);
  // As Deno's own reader does, which writes at once, and cancels when it can't.
  const controller = {
    enqueue: () => transport.cancel(),
    close() {
      throw new TypeError("The stream controller cannot close or enqueue");
    },
  };
  transport.pull(controller as unknown as ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>);
  transport.send(PING_FRAME);
  assertEquals([told, transport.state], [["opened", "gone 0"], "closed"]);
});
