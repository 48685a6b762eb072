/**
 * `userwire listen`: connects to a running service as one user, with our own client, and prints what that user is sent,
 * one line a message. A connection that breaks is made again by the client, from where it was; one that never came about
 * is a failure. Standard output carries messages only, all else goes to standard error.
 */
import { type Command, InvalidArgumentError } from "commander";
import {
  type BroadcastGapFrame,
  type Client,
  connect,
  type GapFrame,
  type Identity,
  type Lost,
  shouldReconnect,
  type SocketConstructor,
} from "../client/mod.ts";
import { InvalidFrameError } from "../protocol/errors.ts";
import { type MessageFrame, SUBPROTOCOL } from "../protocol/frames.ts";
import { parseUsername } from "../protocol/username.ts";
import { addServiceOptions, RefusalError, Service, type ServiceFlags } from "./service.ts";
import { interruption, type Io, type Shell } from "./shell.ts";

interface ListenOptions extends ServiceFlags {
  json?: true;
  count?: number;
  once?: true;
}

/** The client's code of a connection that broke, or never came about. */
const BROKEN = 1006;

/** Adds the command. It runs until Ctrl+C, `io.stop`, or the end of its connection if that is final. */
export function addListen(program: Command, shell: Shell): void {
  addServiceOptions(program.command("listen"), { token: true })
    .description("Print the messages a user of a running service gets, until Ctrl+C")
    .argument("<user>", "whose messages")
    .option("--json", "print whole frames, of messages and of gaps, instead of payloads")
    .option("--count <n>", "stop after this many messages", parseCount)
    .option("--once", "stop when the connection ends, instead of connecting again")
    .addHelpText(
      "after",
      `
A service that is not open wants a token of the user, or a key with the scope tickets, which gets a ticket for each
connection; with both the token is used.

Example:
  $ userwire listen alice
  {"hello": "world"}`,
    )
    .action(async (user: string, options: ListenOptions) => {
      const username = parseUsername(user);
      const service = new Service(options, shell);
      using interrupt = interruption(shell.io);
      await new Listening(username, service, shell.io, options).run(interrupt.signal);
    });
}

/** One run of the command: the client's events become lines, and its end success or one error. */
class Listening {
  readonly #username: string;
  readonly #service: Service;
  readonly #io: Io;
  readonly #options: ListenOptions;
  readonly #client: Client<string>;
  /** Messages still wanted. */
  #left: number;
  #wasOpen = false;
  /** Why there was no ticket for this connection. */
  #ticketError: Error | undefined;
  #failure: Error | Promise<Error> | undefined;

  constructor(username: string, service: Service, io: Io, options: ListenOptions) {
    this.#username = username;
    this.#service = service;
    this.#io = io;
    this.#options = options;
    this.#left = options.count ?? Infinity;
    this.#client = connect<string>(service.socketUrl(username), {
      ...this.#identity(),
      timeoutMs: service.patienceMs,
      parse: (text) => readFrame(text, options),
      WebSocket: this.#socketClass(),
    });
    this.#listen();
  }

  /**
   * Resolves at the signal, after the last message wanted, or when the service closes in good order.
   * @throws why else it ended.
   */
  async run(stop: AbortSignal): Promise<void> {
    const close = () => void this.#client.close();
    stop.addEventListener("abort", close);
    if (stop.aborted) close();
    await this.#client.closed;
    stop.removeEventListener("abort", close);
    if (this.#failure) throw await this.#failure;
  }

  #identity(): Identity {
    const identity = this.#service.identity(this.#username);
    if ("user" in identity) return identity;
    return {
      token: async () => {
        this.#ticketError = undefined;
        try {
          return await identity.token();
        } catch (error) {
          throw this.#ticketError = error as Error;
        }
      },
    };
  }

  /** Deno opens a socket also when the server has chosen none of the subprotocols offered. */
  #socketClass(): SocketConstructor {
    const check = (socket: WebSocket) => {
      if (socket.protocol === SUBPROTOCOL) return;
      this.#fail(new InvalidFrameError(`${this.#service.address} does not speak ${SUBPROTOCOL}`));
    };
    return class extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        this.addEventListener("open", () => check(this));
      }
    };
  }

  #listen(): void {
    // The client reports what a listener throws as uncaught, which would end the process.
    const guarded = <Detail>(listener: (detail: Detail) => void) => (detail: Detail) => {
      try {
        listener(detail);
      } catch (error) {
        this.#fail(error as Error);
      }
    };
    const client = this.#client;
    client.on("open", guarded((hi) => this.#io.err(`Listening as ${hi.user} on node ${hi.node}\n`)));
    for (const event of ["message", "broadcast"] as const) {
      client.on(event, guarded(({ data }) => this.#print(data)));
    }
    for (const event of ["gap", "broadcastGap"] as const) {
      client.on(event, guarded((gap: GapFrame | BroadcastGapFrame) => this.#printGap(gap)));
    }
    client.on("lost", guarded((lost) => this.#onLost(lost)));
    client.on("error", (error) => {
      // All others come to `lost` too, or change nothing in the lines that are printed.
      if (error instanceof InvalidFrameError) this.#fail(error);
    });
  }

  #print(line: string): void {
    if (this.#left <= 0) return;
    this.#io.out(`${line}\n`);
    // Not within the last message: it is still to be acknowledged.
    if (--this.#left === 0) queueMicrotask(() => void this.#client.close());
  }

  #printGap(gap: GapFrame | BroadcastGapFrame): void {
    if (this.#options.json) return this.#io.out(`${JSON.stringify(gap)}\n`);
    const which = gap.to === null ? `from ${gap.from} on may be` : `${gap.from} to ${gap.to} are`;
    const what = gap.t === "gap" ? "Messages" : "Broadcasts";
    this.#io.err(`${what} ${which} lost: ${gap.why}\n`);
  }

  #onLost(lost: Lost): void {
    const { code, opened, retryMs = 0 } = lost;
    if (code === 1000) return;
    // A close code comes over a socket that was open, whether the service has said hi or not.
    this.#wasOpen ||= opened || code !== BROKEN;
    if (!this.#wasOpen) return this.#fail(this.#ticketError ?? this.#neverOpened(lost));
    if (this.#ticketError instanceof RefusalError) return this.#fail(this.#ticketError);
    const text = `The connection ended: ${this.#reasonOf(lost)}`;
    if (this.#options.once || !shouldReconnect(code)) return this.#fail(new Error(text));
    this.#io.err(`${text}; connecting again in ${(retryMs / 1000).toFixed(1)} s\n`);
  }

  /** Ends the command with this error, unless another came first. */
  #fail(failure: Error | Promise<Error>): void {
    this.#failure ??= failure;
    void this.#client.close();
  }

  #neverOpened(lost: Lost): Error | Promise<Error> {
    return isUnanswered(lost)
      ? this.#service.unreachable(this.#reasonOf(lost))
      : this.#service.refusal(this.#username);
  }

  #reasonOf(lost: Lost): string {
    if (this.#ticketError) return this.#ticketError.message;
    if (isUnanswered(lost)) return `no answer in ${this.#service.patienceMs / 1000} s`;
    const { code, reason } = lost;
    return code === BROKEN ? reason || "it broke" : `${code} ${reason}`.trim();
  }
}

/** Whether the client has given up waiting for `hi`, by its words for that. */
function isUnanswered({ opened, reason }: Lost): boolean {
  return !opened && reason.startsWith("The server did not answer");
}

/** Reads a frame. The data of a message become the line to print, which is cut out of the text: a parser rounds. */
function readFrame(text: string, { json }: ListenOptions): unknown {
  const frame = JSON.parse(text);
  if (frame?.t !== "m" && frame?.t !== "b") return frame;
  return { ...frame, enc: undefined, data: json ? onOneLine(text) : payloadLine(frame, text) };
}

// deno-lint-ignore no-control-regex -- looks for what could break the line or steer the terminal
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/;

/** A payload on one line: text as it is if that is one line, everything else as JSON. */
function payloadLine(frame: MessageFrame, text: string): string {
  if (typeof frame.data === "string" && !CONTROL.test(frame.data)) return frame.data;
  // `data` is the last field of every `m` and `b`.
  return onOneLine(text.slice(text.indexOf(DATA_FIELD) + DATA_FIELD.length, -1));
}

const DATA_FIELD = ',"data":';

/** The same JSON on one line that steers no terminal. */
function onOneLine(json: string): string {
  return json
    // Below U+0020 JSON has only white space, and only between its parts; the others stand in its strings.
    .replace(/[\r\n\t]+/g, " ")
    .replace(/[\u007f-\u009f]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`);
}

function parseCount(text: string): number {
  const count = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (count === 0) throw new InvalidArgumentError("It must be a whole number from 1 on.");
  return count;
}
