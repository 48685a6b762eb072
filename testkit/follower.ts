/**
 * A framed client that keeps the books: what it was handed, what it was told is missing, and where it stands. It
 * resumes where it stood, as `docs/protocol.md` says a client does, and writes down whatever contradicts the promise:
 * a number out of turn, a message twice, a gap that does not begin where it stands.
 *
 * It uses nothing of the product but the types of the frames.
 */
import { assertEquals } from "@std/assert";
import type { ClientFrame, GapFrame, HiFrame, MessageFrame, ServerFrame } from "../src/protocol/frames.ts";
import type { Position } from "../src/protocol/position.ts";
import { Bell, endOf, type Seen, until, withDeadline } from "./deadline.ts";

/** A message that a backend was told is sent. */
export interface Accepted {
  readonly id: string;
  readonly epoch: string;
  readonly seq: number;
}

const WAIT_MS = 20_000;
const RETRY_MS = 20;
const RETURN_MS = 30_000;

export class Follower implements AsyncDisposable {
  readonly messages: MessageFrame[] = [];
  readonly gaps: GapFrame[] = [];
  readonly greetings: HiFrame[] = [];
  /** What was wrong; empty if all is well. */
  readonly faults: string[] = [];
  /** Whether it resumes by tags, too; clients of before there were any don't. */
  usesTags = false;
  #tag: string | undefined;
  /** Told of each message, after it was written down. */
  onMessage: (message: MessageFrame) => void = () => {};
  readonly #bell = new Bell();
  readonly #ids = new Set<string>();
  /** The epochs it was in, and the places it left by a gap of an epoch. */
  readonly #epochs = new Set<string>();
  readonly #breaks: Position[] = [];
  #position: Position | undefined;
  #socket: WebSocket | undefined;
  #closed: Promise<number> = Promise.resolve(0);
  #following: Promise<void> = Promise.resolve();
  #isLeaving = false;

  /** Connects once; the position says where it resumes. */
  static async open(url: string, position?: string): Promise<Follower> {
    const follower = new Follower();
    if (position !== undefined) follower.#position = parse(position);
    await follower.connect(url);
    return follower;
  }

  /** Where it stands, as it would resume. */
  get position(): string | undefined {
    return this.#position && `${this.#position.epoch}.${this.#position.seq}`;
  }

  get data(): unknown[] {
    return this.messages.map(({ data }) => data);
  }

  /** Resolves with the close code when the connection has ended. */
  get closed(): PromiseLike<number> {
    return endOf(this.#closed, "the follower's connection to end", () => this.#standing());
  }

  send(frame: ClientFrame): void {
    this.#socket!.send(JSON.stringify(frame));
  }

  /**
   * Connects, resumes where it stands, and resolves when it was greeted. What comes then is read as it comes.
   * @throws {Error} when the handshake is refused.
   */
  async connect(url: string): Promise<void> {
    const target = new URL(url);
    if (this.position !== undefined) {
      const tag = this.usesTags && this.#tag !== undefined ? `.${this.#tag}` : "";
      target.searchParams.set("resume", this.position + tag);
    }
    const socket = new WebSocket(target, ["userwire.v1"]);
    this.#socket = socket;
    const greeted = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<number>();
    this.#closed = closed.promise;
    socket.onmessage = ({ data }) => {
      this.#onFrame(JSON.parse(data));
      greeted.resolve(); // the greeting is the first
    };
    socket.onerror = () => {}; // closes too
    socket.onclose = ({ code }) => {
      closed.resolve(code);
      greeted.reject(new Error(`${url} did not open, or closed with ${code}`));
    };
    await withDeadline(greeted.promise, WAIT_MS, `${url} to greet`, () => this.#socketState());
  }

  /** Connects again as any client does: also when the handshake is refused at first. */
  async returnsTo(url: string): Promise<void> {
    await until(
      () => this.connect(url).then(() => true, () => false),
      `${url} to let it in again`,
      RETURN_MS,
    );
  }

  /** Closes, and resolves when nothing more can come. */
  async disconnect(): Promise<void> {
    this.#socket?.close();
    await withDeadline(
      this.#closed,
      WAIT_MS,
      "the server to answer the Close frame",
      () => this.#socketState(),
    );
  }

  /** Connects again whenever the connection ends, at once and wherever the function says, until it is left. */
  follow(url: () => string): void {
    this.#following = (async () => {
      for (;;) {
        await this.#closed;
        if (this.#isLeaving) return;
        await this.connect(url()).catch(() => new Promise((resolve) => setTimeout(resolve, RETRY_MS)));
      }
    })();
  }

  until(
    condition: () => boolean,
    what: string,
    ms = WAIT_MS,
    seen: Seen = () => this.#standing(),
  ): Promise<void> {
    return this.#bell.until(condition, what, ms, seen);
  }

  /** Resolves when it stands there, or further. */
  async reaches(seq: number, ms = WAIT_MS): Promise<void> {
    await this.until(() => (this.#position?.seq ?? -1) >= seq, `message ${seq}`, ms);
  }

  /** Resolves when every message was received or is stated to be missing. */
  async accountsFor(accepted: readonly Accepted[], ms = WAIT_MS): Promise<void> {
    await this.until(() => this.#unaccounted(accepted).length === 0, "every message", ms, () => {
      const missing = this.#unaccounted(accepted).map(({ epoch, seq }) => `${epoch}.${seq}`);
      return `of ${accepted.length} messages ${missing.length} are missing: ${
        missing.slice(0, 10)
      }; ${this.#standing()}`;
    });
  }

  /** @throws {AssertionError} when anything contradicted the promise. */
  assertNoFault(): void {
    assertEquals(this.faults, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isLeaving = true;
    const leave = async () => {
      // Whichever connection there is now, or was being made meanwhile.
      await this.disconnect();
      await this.#following;
    };
    await withDeadline(leave(), WAIT_MS, "the follower to leave", () => this.#socketState());
  }

  /** For an error. */
  #standing(): string {
    const faults = this.faults.join("; ") || "none";
    return `it stands at ${this.position}, with ${this.messages.length} messages, ${this.gaps.length} gaps and faults: ${faults}`;
  }

  #socketState(): string {
    return `the socket is in state ${this.#socket?.readyState}`;
  }

  #unaccounted(accepted: readonly Accepted[]): Accepted[] {
    return accepted.filter(({ id, epoch, seq }) => !this.#ids.has(id) && !this.#isStated(epoch, seq));
  }

  /** Whether a gap covers this message. */
  #isStated(epoch: string, seq: number): boolean {
    if (this.#breaks.length > 0 && !this.#epochs.has(epoch)) return true; // that one came and went in between
    return this.#breaks.some((at) => at.epoch === epoch && seq > at.seq) ||
      this.gaps.some((gap) =>
        gap.why === "trimmed" && parse(gap.pos).epoch === epoch && seq >= gap.from && seq <= gap.to
      );
  }

  #onFrame(frame: ServerFrame): void {
    if (frame.t === "hi") this.#onHi(frame);
    else if (frame.t === "m") this.#onMessageFrame(frame);
    else if (frame.t === "gap") this.#onGap(frame);
    this.#bell.ring();
  }

  #onHi(hi: HiFrame): void {
    const pos = parse(hi.pos!);
    const before = this.#position;
    if (before === undefined) this.#stand(pos);
    else if (hi.resumed && hi.pos !== this.position) {
      this.faults.push(`Resumed at ${hi.pos}, not ${this.position}`);
    }
    this.#tag = hi.tag;
    this.greetings.push(hi);
  }

  #onMessageFrame(message: MessageFrame): void {
    const { id, seq } = message;
    if (seq !== undefined) {
      const { epoch, seq: last } = this.#position!;
      if (seq !== last + 1) this.faults.push(`Message ${epoch}.${seq} came after ${last}`);
      this.#stand({ epoch, seq });
      this.#tag = message.tag;
    }
    if (id !== undefined && this.#ids.has(id)) this.faults.push(`Message ${id} came twice, now as ${seq}`);
    if (id !== undefined) this.#ids.add(id);
    this.messages.push(message);
    this.onMessage(message);
  }

  #onGap(gap: GapFrame): void {
    const { epoch, seq } = this.#position!;
    if (gap.from !== seq + 1) this.faults.push(`A gap from ${gap.from} came at ${epoch}.${seq}`);
    if (gap.why === "epoch") this.#breaks.push({ epoch, seq });
    else if (gap.count !== gap.to - gap.from + 1) {
      this.faults.push(`A gap counts wrongly: ${JSON.stringify(gap)}`);
    }
    this.#stand(parse(gap.pos));
    this.#tag = gap.tag;
    this.gaps.push(gap);
  }

  #stand(position: Position): void {
    this.#position = position;
    this.#epochs.add(position.epoch);
  }
}

function parse(position: string): Position {
  const at = position.lastIndexOf(".");
  return { epoch: position.slice(0, at), seq: Number(position.slice(at + 1)) };
}
