/**
 * `userwire listen`: connects to a running service as one user and prints what that user is sent, one line a
 * message. A connection that breaks is made again by the rule of the close codes; one that never came about is
 * a failure. Standard output carries messages only, all else goes to standard error.
 */
import { type Command, InvalidArgumentError } from "commander";
import { messageOf } from "../protocol/errors.ts";
import { shouldReconnect } from "../protocol/close_codes.ts";
import type { MessageFrame, ServerFrame } from "../protocol/frames.ts";
import { parseUsername } from "../protocol/username.ts";
import { addServiceOptions, RefusalError, Service, type ServiceFlags } from "./service.ts";
import { interruption, type Io, type Shell } from "./shell.ts";
import { connect, type Ending } from "./socket.ts";

interface ListenOptions extends ServiceFlags {
  json?: true;
  count?: number;
  once?: true;
}

/** A connection that lasted this long, in milliseconds, starts the back-off anew. */
const STEADY_MS = 10_000;
const BACK_OFF_MS = 500;
const MAX_BACK_OFF_MS = 30_000;

/** Adds the command. It runs until Ctrl+C, `io.stop`, or the end of its connection if that is final. */
export function addListen(program: Command, shell: Shell): void {
  const { io } = shell;
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
      using interrupt = interruption(io);
      const enough = new AbortController();
      // Not within the last message: it is still to be acknowledged.
      const printer = new Printer(io, { ...options, onLast: () => queueMicrotask(() => enough.abort()) });
      const stop = AbortSignal.any([interrupt.signal, enough.signal]);

      let wasOpen = false;
      for (let failures = 0; !stop.aborted; failures++) {
        const ending = await service.socket(username).then(
          (target) =>
            connect(target, {
              stop,
              patienceMs: service.patienceMs,
              onFrame: (frame, text) => printer.print(frame, text),
            }),
          (error): Ending => {
            if (!wasOpen || error instanceof RefusalError) throw error;
            return {
              code: 0,
              why: messageOf(error),
              openMs: undefined,
              retryMs: undefined,
              isUnanswered: false,
            };
          },
        );
        if (stop.aborted || ending.code === 1000) return;
        if (!wasOpen && ending.isUnanswered) throw service.unreachable(ending.why);
        wasOpen ||= ending.openMs !== undefined;
        if (!wasOpen) throw await service.refusal(username);
        const why = `The connection ended: ${inWords(ending)}`;
        if (options.once || !shouldReconnect(ending.code)) throw new Error(why);

        if ((ending.openMs ?? 0) >= STEADY_MS) failures = 0;
        const waitMs = ending.retryMs ?? backOffMs(failures);
        io.err(`${why}; connecting again in ${(waitMs / 1000).toFixed(1)} s\n`);
        await pause(waitMs, stop);
      }
    });
}

/** Writes frames as lines, and says when the last one wanted was written. */
class Printer {
  readonly #io: Io;
  readonly #isJson: boolean;
  readonly #onLast: () => void;
  #left: number;

  constructor(io: Io, options: { json?: true; count?: number; onLast: () => void }) {
    this.#io = io;
    this.#isJson = options.json ?? false;
    this.#left = options.count ?? Infinity;
    this.#onLast = options.onLast;
  }

  print(frame: ServerFrame, text: string): void {
    switch (frame.t) {
      case "hi":
        this.#io.err(`Listening as ${frame.user} on instance ${frame.node}\n`);
        break;
      case "m":
        this.#io.out(`${this.#isJson ? onOneLine(text) : payloadLine(frame, text)}\n`);
        if (--this.#left === 0) this.#onLast();
        break;
      case "gap":
        if (this.#isJson) this.#io.out(`${onOneLine(text)}\n`);
        else this.#io.err(`Messages ${frame.from} to ${frame.to} are lost: ${frame.why}\n`);
        break;
    }
  }
}

// deno-lint-ignore no-control-regex -- looks for what could break the line or steer the terminal
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/;

/** A payload on one line: text as it is if that is one line, everything else as JSON. */
function payloadLine(frame: MessageFrame, text: string): string {
  if (typeof frame.data === "string" && !CONTROL.test(frame.data)) return frame.data;
  // Cut out rather than written anew, which would round big numbers: `data` is the last field of every `m`.
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

function inWords({ code, why }: Ending): string {
  return [code || "", why || (code ? "" : "it broke")].filter((part) => part !== "").join(" ");
}

/** Full jitter: clients that lost one server together do not come back together. */
function backOffMs(failures: number): number {
  return Math.random() * Math.min(MAX_BACK_OFF_MS, BACK_OFF_MS * 2 ** failures);
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const end = () => resolve();
  stop.addEventListener("abort", end);
  return promise.finally(() => {
    clearTimeout(timer);
    stop.removeEventListener("abort", end);
  });
}

function parseCount(text: string): number {
  const count = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (count === 0) throw new InvalidArgumentError("It must be a whole number from 1 on.");
  return count;
}
