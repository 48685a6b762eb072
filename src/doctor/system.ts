/** This machine and this process: Deno, open files, ports. */
import type { Config } from "../config/settings.ts";
import { OpenFiles } from "../metrics/open_files.ts";
import { freePort, listenUrl } from "../net/listening.ts";
import { messageOf, orFaults } from "../protocol/errors.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

/** The oldest that it runs on. */
const OLDEST_DENO = [2, 9] as const;
/** Files beside those of sockets, as a part of them. */
const SPARE_FILES = 0.1;
const TIMEOUT_MS = 2_000;

/** What this machine says of itself. Tests say other things. */
export interface Machine {
  /** Such as "2.9.6". */
  readonly deno: string;
  /** Undefined when there is no limit, or it is too high to be found. */
  readonly openFiles: number | undefined;
  /** First and last port for outgoing connections; undefined when it is not told. */
  readonly localPorts: readonly [number, number] | undefined;
}

/** @param files In a process that serves its own: to learn the limit anew may take all that there are. */
export function thisMachine(files: Pick<OpenFiles, "limit"> = new OpenFiles()): Machine {
  return { deno: Deno.version.deno, openFiles: files.limit, localPorts: localPorts() };
}

function localPorts(): [number, number] | undefined {
  try {
    const text = Deno.readTextFileSync("/proc/sys/net/ipv4/ip_local_port_range");
    const [first, last] = text.trim().split(/\s+/).map(Number);
    return [first!, last!];
  } catch {
    // Not Linux, or without the right to ask.
    return undefined;
  }
}

export async function lookAtSystem(config: Config, machine = thisMachine()): Promise<Finding[]> {
  return [
    lookAtDeno(machine),
    lookAtOpenFiles(config, machine),
    ...lookAtLocalPorts(config, machine),
    await lookAtPort(config),
  ];
}

function lookAtDeno({ deno }: Machine): Finding {
  const [major = 0, minor = 0] = deno.split(".").map(Number);
  const isOld = major < OLDEST_DENO[0] || (major === OLDEST_DENO[0] && minor < OLDEST_DENO[1]);
  const wanted = OLDEST_DENO.join(".");
  return isOld
    ? fault(
      "deno",
      `version ${deno} is older than ${wanted}`,
      `install Deno ${wanted} or newer: deno upgrade`,
    )
    : ok("deno", `version ${deno}`);
}

function lookAtOpenFiles(config: Config, { openFiles: limit }: Machine): Finding {
  const { maxConnections } = config;
  const each = takesTwo(config) ? 2 : 1;
  const wanted = Math.ceil(maxConnections * (each + SPARE_FILES));
  if (limit === undefined || limit >= wanted) {
    return ok("open files", `${limit ?? "no limit"} for ${maxConnections} sockets`);
  }
  return warning(
    "open files",
    `this process may open ${limit}, but ${maxConnections} sockets (USERWIRE_MAX_CONNECTIONS) take ${wanted}`,
    `raise the limit (ulimit -n ${wanted}, LimitNOFILE in systemd), or set USERWIRE_MAX_CONNECTIONS to ` +
      `${Math.floor(limit / (each + SPARE_FILES))}`,
  );
}

/** With subscriptions of their own, sockets take ports for their connections to Redis. */
function lookAtLocalPorts(config: Config, { localPorts: range }: Machine): Finding[] {
  if (range === undefined || !takesTwo(config) || config.redisUrl?.startsWith("unix:")) return [];
  const count = range[1] - range[0] + 1;
  const { maxConnections } = config;
  if (count >= maxConnections) {
    return [ok("local ports", `${count} for connections to Redis, one for each socket of this machine`)];
  }
  return [warning(
    "local ports",
    `there are ${count} for connections to Redis, and ${maxConnections} sockets (USERWIRE_MAX_CONNECTIONS) take one each`,
    'widen net.ipv4.ip_local_port_range, or set USERWIRE_SUBSCRIPTIONS=shared: "File descriptors and ports" in ' +
      "docs/operations.md has more ways",
  )];
}

function takesTwo({ subscriptions, redisUrl, redisUrlFile }: Config): boolean {
  return subscriptions === "dedicated" && (redisUrl !== undefined || redisUrlFile !== undefined);
}

/** Whether it can be listened on, or a node does already. */
async function lookAtPort({ host, port, tlsCert }: Config): Promise<Finding> {
  const faults: string[] = [];
  orFaults(() => freePort({ host, port, names: { host: "HOST", port: "PORT" } }), faults);
  if (faults.length === 0) {
    return ok("port", port === 0 ? "a free one is taken" : `${port} on ${host} is free`);
  }
  const url = listenUrl(tlsCert === undefined ? "http" : "https", host, port);
  if (await isUserwire(url)) return ok("port", `a node serves on ${url}`);
  return fault("port", faults[0]!);
}

async function isUserwire(url: string): Promise<boolean> {
  try {
    const response = await fetch(new URL("readyz", url), { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const answer = await response.json();
    return typeof answer.ready === "boolean" && typeof answer.node === "string";
  } catch (error) {
    // Its certificate may be for the name that the world knows: then somebody serves there by TLS.
    return /certificate/i.test(messageOf(error instanceof Error && error.cause ? error.cause : error));
  }
}
