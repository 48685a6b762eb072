/** The payload of a command: its argument, or standard input. */
import { type Command, Option } from "commander";
import { InvalidMessageError } from "../protocol/errors.ts";
import { isJson } from "../protocol/json.ts";
import type { Payload } from "./service.ts";
import type { Io } from "./shell.ts";

/** What kind of payload it is. */
export interface PayloadFlags {
  text?: true;
  binary?: true;
}

/** Adds the argument and its options. Without an argument the command reads standard input. */
export function addPayload(command: Command): Command {
  return command
    .argument("[payload]", "what to send; - or nothing reads standard input, less a line break at its end")
    .addOption(new Option("--text", "send the payload as text even if it is JSON").conflicts("binary"))
    .option("--binary", "send the bytes of standard input as they are");
}

/** The payload that a command is given. What can't be one ends the command. @throws {InvalidMessageError} */
export async function payloadOf(
  command: Command,
  io: Io,
  given: string | undefined,
  { binary, text: isText }: PayloadFlags,
): Promise<Payload> {
  if (binary && given !== undefined && given !== "-") {
    command.error("error: --binary reads standard input: leave the payload out");
  }
  if (given === undefined && io.isInteractive) {
    command.error("error: there is no payload: give one, or - to type it and end with Ctrl+D");
  }
  if (binary) return { type: "application/octet-stream", body: await io.input() };
  const text = given === undefined || given === "-" ? await textFrom(io) : given;
  return { type: !isText && isJson(text) ? "application/json" : "text/plain; charset=utf-8", body: text };
}

async function textFrom(io: Io): Promise<string> {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await io.input());
    return text.replace(/\r?\n$/, "");
  } catch (error) {
    throw error instanceof TypeError
      ? new InvalidMessageError("Standard input is not UTF-8 text: send it with --binary", { cause: error })
      : error;
  }
}
