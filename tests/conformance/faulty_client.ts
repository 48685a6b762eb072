/**
 * A client that keeps every rule of the protocol but one, whose name it is given: that of the case which must find it out.
 * It is made of a bare socket, so that it sees statuses, and can break the rules that WebSocket classes keep.
 */
import { Buffer } from "node:buffer";
import type { Program, StartProgram } from "../../conformance/program.ts";
import { Broadcasts } from "./faulty_broadcasts.ts";
import { Requests } from "./faulty_requests.ts";
import { type Frame, OPCODE, RawSocket } from "../../testkit/raw_socket.ts";

type Fields = Record<string, unknown>;

/** How a connection ended. */
interface Ending {
  readonly code: number;
  readonly reason?: string;
  readonly retryMs?: number | undefined;
  readonly status?: number;
}

/** How long a client with that fault waits for what it should wait longer for, in milliseconds. */
const HASTY_MS = 50;
/** How long the one holds an acknowledgement back that should forget it, in milliseconds. */
const HELD_BACK_MS = 800;
/** Of who looks every 5 ms. */
const LATE_MS = 100;

export function startFaulty(fault?: string): StartProgram {
  return (env, onChange) => new FaultyClient(env, onChange, fault);
}

class FaultyClient implements Program {
  readonly lines: Fields[] = [];
  readonly trouble = "";
  hasEnded = false;
  readonly #env: Fields;
  readonly #onChange: () => void;
  readonly #fault: string | undefined;
  readonly #pace: number;
  readonly #over = Promise.withResolvers<void>();
  readonly #running: Promise<void>;
  #isOver = false;
  #socket: RawSocket | undefined;
  #token: string | undefined;
  #position: { epoch: string; seq: number; tag: string | undefined } | undefined;
  #parts = "";
  #heardAt = 0;
  #silenceMs = Infinity;
  #bye: Fields = {};
  #ackTimer: ReturnType<typeof setTimeout> | undefined;
  #hasAcked = false;
  #wasIn = false;
  readonly #broadcasts: Broadcasts;
  readonly #asking: Requests;

  constructor(env: Fields, onChange: () => void, fault: string | undefined) {
    this.#env = env;
    this.#onChange = onChange;
    this.#fault = fault;
    this.#pace = Number(env.USERWIRE_PACE);
    const host = { has: (fault: string) => this.#has(fault), write: (line: Fields) => this.#write(line) };
    this.#broadcasts = new Broadcasts(host);
    this.#asking = new Requests(JSON.parse(String(env.USERWIRE_REQUESTS ?? "[]")), host);
    this.#running = this.#run();
  }

  async end(): Promise<void> {
    this.#isOver = true;
    this.#over.resolve();
    await this.#socket?.closeAbruptly();
    await this.#running;
  }

  #has(fault: string): boolean {
    return this.#fault === fault;
  }

  async #run(): Promise<void> {
    let failures = 0, isRefreshing = false;
    while (!this.#isOver) {
      const openedAt = performance.now();
      const end = await this.#attempt().catch((): Ending => ({ code: 1006 }));
      clearTimeout(this.#ackTimer);
      this.#asking.lost();
      await this.#socket?.closeAbruptly();
      const wasSteady = performance.now() - openedAt >= 10_000 * this.#pace;
      if (wasSteady && !this.#has("backs-off-anew")) failures = 0;
      if (this.#wasIn && this.#has("backs-off-when-let-in")) failures = 0;
      this.#wasIn = false;
      if (this.#isFinal(end, isRefreshing)) break;
      if (end.code === 4401) isRefreshing = true;
      // Waits that chance makes short would hide that they should be.
      const isFixed = this.#has("backs-off-at-random") || (wasSteady && this.#has("backs-off-anew"));
      const part = isFixed ? 1 : Math.random();
      const waitMs = part * Math.min(30_000, 500 * 2 ** failures++) * this.#pace;
      const isPatient = !this.#has("backs-off") && !this.#has(`refused-${end.status}`);
      await this.#pause(this.#has("retry-ms") ? 0 : end.retryMs ?? (isPatient ? waitMs : 0));
    }
    this.hasEnded = true;
    this.#onChange();
  }

  #isFinal({ code, reason, status }: Ending, isRefreshing: boolean): boolean {
    if (status !== undefined) {
      if (this.#has(`refused-${status}`)) return false;
      return status < 500 && status !== 429 && (status !== 401 || this.#token === undefined);
    }
    if (this.#has("no-answer") || this.#has("comes-back-unasked")) return code === 1006;
    if (this.#has("comes-back")) return code === 4508;
    if (this.#has(`stops-${code}`)) return false;
    if (code === 4401 && this.#has("stops-revoked")) return false;
    if (code === 4401 && reason === "token_expired" && !this.#has("token-expired")) {
      return isRefreshing && !this.#has("token-expired-twice");
    }
    return code === 1000 || (code >= 4400 && code <= 4499);
  }

  async #pause(ms: number): Promise<void> {
    let timer;
    await Promise.race([new Promise((resolve) => timer = setTimeout(resolve, ms)), this.#over.promise]);
    clearTimeout(timer);
  }

  async #attempt(): Promise<Ending> {
    this.#bye = {};
    this.#parts = "";
    this.#silenceMs = (this.#has("late-hi") ? HASTY_MS : 10_000) * this.#pace;
    const { url, headers } = await this.#address();
    const socket = this.#socket = await RawSocket.dial(url);
    if (this.#isOver) return { code: 1000 };
    socket.sendHandshake({ headers });
    const { status, headers: answer } = await socket.readAnswer(this.#has("late-answer") ? HASTY_MS : 20_000);
    if (status !== 101) {
      if (this.#has("resume-after-refusals")) this.#position = undefined;
      const after = answer.get("retry-after");
      const ignores = after === null || this.#has(`refused-${status}`);
      return { code: 1006, status, ...(!ignores && { retryMs: Number(after) * 1_000 }) };
    }
    if (this.#has("legal-frames")) socket.sendText("hello");
    return await this.#read(socket);
  }

  async #address(): Promise<{ url: URL; headers: Record<string, string> }> {
    const url = new URL(this.#has("handshake") ? "/socket" : "/ws", String(this.#env.USERWIRE_URL));
    const protocols = this.#has("subprotocol") ? [] : ["userwire.v1"];
    if (this.#env.USERWIRE_USER !== undefined) {
      const name = String(this.#env.USERWIRE_USER);
      url.search = `?username=${this.#has("username") ? encodeURI(name) : encodeURIComponent(name)}`;
    } else {
      const keeps = ["ticket-once", "refused-401", "stops-revoked"].some((fault) => this.#has(fault));
      if (!keeps || this.#token === undefined) {
        this.#token = await (await fetch(String(this.#env.USERWIRE_TOKEN_URL))).text();
      }
      const encoding = this.#has("token") ? { omitPadding: false } : { omitPadding: true };
      const alphabet = "base64url" as const;
      protocols.push(
        `userwire.bearer.${new TextEncoder().encode(this.#token).toBase64({ ...encoding, alphabet })}`,
      );
    }
    const resume = this.#resume();
    if (resume !== undefined) url.searchParams.set("resume", resume);
    const { all } = this.#broadcasts;
    if (all !== undefined) url.searchParams.set("all", all);
    return { url, headers: protocols.length === 0 ? {} : { "Sec-WebSocket-Protocol": protocols.join(", ") } };
  }

  #resume(): string | undefined {
    if (this.#position === undefined) return this.#has("no-history") ? "e.0" : undefined;
    const { epoch, seq, tag } = this.#position;
    return tag === undefined ? `${epoch}.${seq}` : `${epoch}.${seq}.${tag}`;
  }

  async #read(socket: RawSocket): Promise<Ending> {
    let lookedAt = performance.now();
    const watch = setInterval(() => {
      const now = performance.now();
      // Of a process that did not run for a while the timers come first, and then what had come in time.
      const isLate = now - lookedAt > LATE_MS;
      lookedAt = now;
      if (isLate || this.#has("silence") || now - this.#heardAt < this.#silenceMs) return;
      void socket.closeAbruptly();
    }, 5);
    this.#heardAt = performance.now();
    try {
      while (true) {
        const frame = await socket.readFrame(3_600_000);
        if (frame === undefined) break;
        const end = this.#onFrame(socket, frame);
        if (end !== undefined) return end;
      }
    } catch {
      // It broke.
    } finally {
      clearInterval(watch);
    }
    if (this.#has("resume-after-cut")) this.#position = undefined;
    const { code = 1006, retry_ms } = this.#has("stops-by-bye") ? {} : this.#bye;
    return { code: Number(code), retryMs: retry_ms as number | undefined };
  }

  #onFrame(socket: RawSocket, { opcode, payload, fin }: Frame): Ending | undefined {
    if (opcode === OPCODE.ping && !this.#has("pongs")) socket.send({ opcode: OPCODE.pong, payload });
    if (opcode === OPCODE.close) {
      const bytes = new DataView(payload.buffer, payload.byteOffset, payload.length);
      const reason = new TextDecoder().decode(payload.subarray(2));
      return { code: bytes.getUint16(0), reason, retryMs: this.#bye.retry_ms as number | undefined };
    }
    if (opcode !== OPCODE.text && opcode !== OPCODE.continuation) return undefined;
    if (payload.length > 65_536 && this.#has("big-frame")) return { code: 1009 };
    // Text that is cut within a character would be spoilt: the parts are put together as bytes.
    this.#parts += Buffer.from(payload).toString("latin1");
    if (!fin && !this.#has("fragments")) return undefined;
    const text = Buffer.from(this.#parts, "latin1").toString();
    this.#parts = "";
    return this.#onText(socket, text);
  }

  #onText(socket: RawSocket, text: string): Ending | undefined {
    let frame: Fields;
    try {
      frame = JSON.parse(text);
    } catch {
      return undefined;
    }
    if (frame.t !== "p" || !this.#has("quiet")) this.#heardAt = performance.now();
    if (this.#has("unknown-fields") && ("x" in frame || "g" in frame)) return undefined;
    if (frame.t === "hi") this.#onHi(frame, socket);
    else if (frame.t === "m") this.#onMessage(socket, frame);
    else if (frame.t === "gap") this.#onGap(frame);
    else if (frame.t === "bye") this.#bye = frame;
    else if (frame.t === "b") this.#broadcasts.onMessage(frame);
    else if (frame.t === "bgap") this.#broadcasts.onGap(frame);
    else if (frame.t === "re" && this.#asking.onReply(frame)) return undefined;
    else if (frame.t === "re" && this.#has("unasked-answers")) this.#write({ data: frame.data });
    else if (frame.t === "p" && this.#has("signs-of-life")) this.#write({ data: null });
    else if (frame.t !== "p" && this.#has("unknown-frames")) return { code: 4400 };
    return undefined;
  }

  #onHi({ pos, tag, ping, all, req }: Fields, socket: RawSocket): void {
    this.#wasIn = true;
    this.#broadcasts.startAt(all);
    this.#asking.opened(req === 1, (frame) => socket.sendText(JSON.stringify(frame)));
    if (!this.#has("late-hi")) this.#silenceMs = Number(ping) * 1_000 + 10_000 * this.#pace;
    if (pos === undefined || this.#position !== undefined || this.#has("resume-from-hi")) return;
    this.#moveTo(String(pos), tag);
  }

  #onMessage(socket: RawSocket, { seq, tag, data, enc, r, ack }: Fields): void {
    const at = this.#position;
    if (typeof seq === "number") {
      if (at !== undefined && seq <= at.seq && !this.#has("duplicates")) return;
      if (at !== undefined && seq > at.seq + 1 && this.#has("hole")) return;
      if (r === 1 && this.#has("replay")) return;
      const moves = at !== undefined && !this.#has("resume-from-message");
      const kept = this.#has("resume-without-tag") ? at?.tag : undefined;
      if (moves) this.#position = { epoch: at.epoch, seq, tag: (tag ?? kept) as string | undefined };
    } else {
      if (this.#has("no-number")) return;
      if (at !== undefined && this.#has("resume-past-no-number")) {
        this.#position = { ...at, seq: at.seq + 1 };
      }
    }
    if (enc === "base64" && !this.#has("bytes")) this.#write({ seq, base64: data });
    else this.#write({ seq, data: this.#has("payloads") ? data || null : data });
    if (this.#has("ack-before-epoch")) {
      clearTimeout(this.#ackTimer);
      this.#ackTimer = setTimeout(() => socket.sendText(JSON.stringify({ t: "ack", seq })), HELD_BACK_MS);
    } else if (typeof seq === "number" && ack === 1 && !this.#has("ack-at-once")) {
      this.#acknowledge(socket, seq);
    }
  }

  #acknowledge(socket: RawSocket, seq: number): void {
    if (this.#has("ack-the-last") && this.#hasAcked) return;
    this.#hasAcked = true;
    const send = () =>
      socket.sendText(JSON.stringify({ t: "ack", seq: this.#has("ack-what-it-has") ? seq + 1 : seq }));
    if (this.#has("few-frames")) return send();
    clearTimeout(this.#ackTimer);
    this.#ackTimer = setTimeout(send, 20);
  }

  #onGap({ from, to, count, why, pos, tag }: Fields): void {
    if (!this.#has("gap")) this.#write({ gap: why, from, to, count });
    if (this.#has("resume-after-gap") || (why === "epoch" && this.#has("epoch"))) return;
    if (this.#has("epoch-again") && String(pos).startsWith(`${this.#position?.epoch}.`)) return;
    this.#moveTo(String(pos), this.#has("resume-after-gap-without-tag") ? this.#position?.tag : tag);
  }

  #moveTo(pos: string, tag: unknown): void {
    const [epoch, seq] = pos.split(".");
    this.#position = { epoch: epoch!, seq: Number(seq), tag: tag as string | undefined };
  }

  #write(line: Fields): void {
    this.lines.push(line);
    this.#onChange();
  }
}
