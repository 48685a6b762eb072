/**
 * A user's device: it connects, stays a while, leaves in one of the ways devices leave, and comes back, until it is
 * told to stop. What it sees goes into the ledger.
 *
 * Those that close as they should are the WebSocket class; those that do not are bare TCP sockets.
 */
import { withDeadline } from "../../../testkit/deadline.ts";
import { OPCODE, RawSocket } from "../../../testkit/raw_socket.ts";
import type { Ledger, Session } from "./ledger.ts";
import type { Random } from "./random.ts";

/** `close`: with a Close frame. `reset`, `cut`: TCP reset, end of stream. `early`: reset during the handshake. */
export type Leaving = "close" | "reset" | "cut" | "early";

export interface DeviceOptions {
  readonly user: string;
  /** Base URLs of the nodes. */
  readonly urls: readonly string[];
  readonly random: Random;
  readonly ledger: Ledger;
  /** How often each way of leaving was taken. */
  readonly left: Record<Leaving, number>;
  /** Ends it: it leaves in the way it would have, only now. */
  readonly stop: AbortSignal;
}

const LEAVINGS: readonly Leaving[] = [
  ...Array(12).fill("close"),
  ...Array(5).fill("reset"),
  "cut",
  "cut",
  "early",
];
const STAY_MS = [500, 15_000] as const;
const AWAY_MS = [0, 5_000] as const;
const WAIT_MS = 15_000;

/** Resolves when it has stopped and holds no socket. */
export async function runDevice(options: DeviceOptions): Promise<void> {
  const { random, ledger, stop, left } = options;
  while (!stop.aborted) {
    await sleep(random.between(...AWAY_MS), stop);
    if (stop.aborted) return;
    const leaving = random.pick(LEAVINGS);
    try {
      await visit(options, leaving);
      left[leaving]++;
    } catch (error) {
      ledger.violation(
        `A socket of ${options.user} that was to leave by ${leaving}: ${(error as Error).message}`,
      );
    }
  }
}

async function visit({ user, urls, random, ledger, stop }: DeviceOptions, leaving: Leaving): Promise<void> {
  const url = new URL(`ws?username=${encodeURIComponent(user)}`, random.pick(urls).replace("http:", "ws:"));
  const isFramed = random.next() < 0.5;
  const stayMs = random.between(...STAY_MS);
  const session = ledger.begin(user, isFramed, performance.now());
  const onText = (text: string) => {
    const message = numberIn(text, isFramed);
    if (message !== undefined) ledger.arrived(session, message);
  };
  const visitor = { url, isFramed, session, onText };
  if (leaving === "close") return await visitPolitely(visitor, () => sleep(stayMs, stop));
  if (leaving === "early") return await visitBriefly(visitor, random.between(0, 4));
  await visitRudely(visitor, { leaving, stay: () => sleep(stayMs, stop) });
}

interface Visitor {
  readonly url: URL;
  readonly isFramed: boolean;
  readonly session: Session;
  onText(text: string): void;
}

async function visitPolitely(visitor: Visitor, stay: () => Promise<void>): Promise<void> {
  const { url, isFramed, session, onText } = visitor;
  const opened = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<number>();
  const socket = new WebSocket(url, isFramed ? "userwire.v1" : []);
  socket.onopen = () => {
    session.openMs = performance.now();
    opened.resolve();
  };
  socket.onmessage = ({ data }) => onText(data);
  socket.onerror = (event) => opened.reject(new Error((event as ErrorEvent).message));
  socket.onclose = ({ code }) => closed.resolve(code);
  try {
    await withDeadline(opened.promise, WAIT_MS, "the socket to open");
    const code = await Promise.race([stay(), closed.promise]);
    if (code !== undefined) throw new Error(`it was closed with ${code}`);
  } finally {
    session.leaveMs = performance.now();
    socket.close(1000);
  }
  const code = await withDeadline(closed.promise, WAIT_MS, "the answer to a Close frame");
  // 1005: a frame of the server was on its way, and Deno's client then drops the connection after its own Close.
  if (code !== 1000 && code !== 1005) throw new Error(`its Close frame was answered with ${code}`);
}

async function visitRudely(
  visitor: Visitor,
  options: { leaving: "reset" | "cut"; stay: () => Promise<void> },
): Promise<void> {
  const { url, isFramed, session, onText } = visitor;
  await using socket = await RawSocket.open(url, {
    headers: isFramed ? { "Sec-WebSocket-Protocol": "userwire.v1" } : {},
  });
  if (socket.answer.status !== 101) throw new Error(`it was refused: ${socket.answer.body}`);
  session.openMs = performance.now();
  const reading = read(socket, onText);
  const isCutOff = await Promise.race([options.stay().then(() => false), reading.then(() => true)]);
  if (isCutOff) throw new Error("it was cut off");
  session.leaveMs = performance.now();
  await (options.leaving === "reset" ? socket.reset() : socket.closeAbruptly());
  await reading;
}

async function visitBriefly({ url, session }: Visitor, stayMs: number): Promise<void> {
  await using socket = await RawSocket.dial(url);
  socket.sendHandshake();
  await sleep(stayMs);
  session.leaveMs = performance.now();
  await socket.reset();
}

/** Takes frames until the socket ends, and answers pings as a living peer must. */
async function read(socket: RawSocket, onText: (text: string) => void): Promise<void> {
  for (;;) {
    const frame = await socket.readFrame(WAIT_MS * 10);
    if (frame === undefined || frame.opcode === OPCODE.close) return;
    if (frame.opcode === OPCODE.text) onText(new TextDecoder().decode(frame.payload));
    if (frame.opcode === OPCODE.ping) socket.send({ opcode: OPCODE.pong, payload: frame.payload });
  }
}

/** The number of the message in a frame; undefined for frames that are none. */
function numberIn(text: string, isFramed: boolean): number | undefined {
  const value = JSON.parse(text);
  if (!isFramed) return value.message;
  return value.t === "m" || value.t === "b" ? value.data.message : undefined;
}

/** Resolves after the time, or as soon as the signal is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const wake = () => resolve();
  signal?.addEventListener("abort", wake);
  await promise;
  clearTimeout(timer);
  signal?.removeEventListener("abort", wake);
}
