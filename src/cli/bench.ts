/**
 * `userwire bench`: puts a load on nodes that are running, and says how fast they are and whether anything was lost,
 * came twice or out of order. What makes the load is in the room `load`.
 */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Plan } from "../load/load.ts";
import { CLIENT_VARIABLES } from "../config/settings.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { addServiceOptions, Service, type ServiceFlags } from "./service.ts";
import { interruption, type Shell } from "./shell.ts";

interface BenchFlags extends ServiceFlags {
  users: number;
  rate: number | "max";
  seconds: number;
  payload: number;
  mode: "framed" | "raw";
  inFlight: number;
  connectRate: number;
  prefix: string;
  json?: true;
}

/** There is nothing to report: the nodes can't be reached, or do not take what is asked of them. */
export class NotMeasuredError extends Error {
  override readonly name = "NotMeasuredError";
}

/** Adds the command. */
export function addBench(program: Command, shell: Shell): void {
  addServiceOptions(program.command("bench"), { several: true })
    .description(
      "Measure your own running nodes: latency, rates, and whether anything is lost, doubled or disordered",
    )
    .option("--users <number>", "users to connect, on the addresses in turns", whole(1, 100_000), 100)
    .option("--rate <number>", "sends a second, or max: as many as are answered", rate, 1_000)
    .option("--seconds <number>", "how long to send", whole(1, 86_400), 10)
    .option("--payload <bytes>", "size of a message, 64 or more", whole(64, 65_536), 128)
    .addOption(new Option("--mode <mode>", "of the connections").choices(["framed", "raw"]).default("framed"))
    .option("--in-flight <number>", "sends on their way at a time", whole(1, 1_024), 64)
    .option("--connect-rate <number>", "new connections a second, at most", whole(1, 100_000), 400)
    .option("--prefix <text>", "what the names of the users begin with", prefix, "bench-")
    .option("--json", "print the result as JSON")
    .addHelpText(
      "after",
      `
Users are called bench-1f0c9a3e-0 and so on, anew in each run. Ctrl+C ends a run early, with what was measured. With a
key (scopes tickets and send) each user connects with a ticket. A load like this is for an installation of your own.

Exit codes: 0 all is well; 1 something was lost, doubled or disordered, or connections ended; 2 nothing could be
measured

Examples:
  $ userwire bench --users 500 --rate 2000
  $ userwire bench --url http://10.0.0.1:8765,http://10.0.0.2:8765 --rate max --json`,
    )
    .action(async (flags: BenchFlags) => {
      const nodes = addressesIn(flags, shell).map((url) => new Service({ ...flags, ...url }, shell));
      const { Load } = await import("../load/load.ts");
      const { Progress } = await import("./bench_progress.ts");
      const { isSound, report } = await import("./bench_report.ts");
      const load = new Load(nodes, planOf(flags));
      using interrupt = interruption(shell.io);
      using _progress = new Progress(load, shell);
      const figures = await load.run(interrupt.signal).catch((error) => {
        throw new NotMeasuredError(messageOf(error), { cause: error });
      });
      _progress.end();
      shell.io.out(report(figures, flags.json));
      shell.exitCode = isSound(figures) ? 0 : 1;
    });
}

/** What is given as the address, one by one. */
function addressesIn({ url }: ServiceFlags, { env }: Shell): { url?: string }[] {
  const given = url || env[CLIENT_VARIABLES.url.env] || "";
  if (given === "") return [{}];
  const addresses = given.split(",").map((address) => address.trim());
  if (addresses.includes("")) {
    throw new ConfigError([`--url ${JSON.stringify(given)} has a comma too much: take it out`]);
  }
  return addresses.map((address) => ({ url: address }));
}

function planOf(flags: BenchFlags): Plan {
  return {
    users: flags.users,
    perSecond: flags.rate === "max" ? undefined : flags.rate,
    seconds: flags.seconds,
    bytes: flags.payload,
    isFramed: flags.mode === "framed",
    inFlight: flags.inFlight,
    connectsPerSecond: flags.connectRate,
    prefix: flags.prefix,
  };
}

function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

function rate(text: string): number | "max" {
  return text === "max" ? text : whole(1, 1_000_000)(text);
}

function prefix(text: string): string {
  if (/^[\w.-]{0,64}$/.test(text)) return text;
  throw new InvalidArgumentError("It may have letters, digits, '.', '_' and '-', and 64 of them at most.");
}
