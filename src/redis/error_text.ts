/**
 * What is wrong with Redis, in words of our own: they reach handshakes and `/readyz`, which need no key, so they name
 * no address, no host and no user. What Redis, the system or the client library say is for the log.
 */
import { messageOf } from "../protocol/errors.ts";

type Words = readonly (readonly [said: RegExp, words: string])[];

/** By the beginning of Redis' error replies. */
const REPLIES: Words = [
  [/^WRONGPASS|^ERR invalid password/, "Redis refused the password or the user"],
  [/^NOAUTH/, "Redis wants a password"],
  [/^ERR (Client sent )?AUTH/, "Redis was given a password but has none configured"],
  [
    /^NOPERM|^ERR (ACL failure|The user executing)/,
    "Redis does not grant its user the rights that are needed: docs/security.md lists them",
  ],
  [/^ERR max number of clients/, "Redis has as many clients as its maxclients allows: raise it"],
  [/^DENIED/, "Redis is in protected mode, which serves its own machine only: give it a password"],
  [/^LOADING/, "Redis is loading its data"],
  [/^OOM/, "Redis has as much data as its maxmemory allows: raise it"],
  [/^MISCONF/, "Redis can't save its data, and so takes no more"],
  [
    /^READONLY/,
    "Redis is a replica, which only its master may change: REDIS_URL, or its Sentinels, must lead to the master",
  ],
  [/^(MASTERDOWN|NOREPLICAS)/, "Redis misses its master or its replicas"],
  [/^(MOVED|ASK|TRYAGAIN)/, "Redis moves this user's data to another master just now"],
  [/^CLUSTERDOWN/, "Redis' cluster is down: some of its slots have no master that can be reached"],
  [/^CROSSSLOT/, "Redis is a node of a cluster, and does not keep all keys"],
  [
    /^ERR SELECT is not allowed/,
    "Redis is a node of a cluster, which has no database but 0: correct REDIS_URL",
  ],
  [/^BUSY/, "Redis is busy with a script"],
  [
    /^WRONGTYPE/,
    "Redis has something else where this service keeps its data: another program writes to its keys",
  ],
  [/^ERR DB index|^ERR invalid DB/, "Redis has no database of the number in REDIS_URL"],
  [/^ERR unknown command/, "Redis does not know a command that is needed"],
];

/** What Redis says in front of the error of a command within a script, before version 7. */
const IN_SCRIPT = /^ERR Error running script \(call to \w+\): (?:@\w+: ?\d+: ?)+-?/;
/** How Redis names a command that is forbidden or unknown. */
const NAMED = /^(?:NOPERM|ERR ACL failure).*'([\w|-]+)' command|^ERR unknown command [`']([\w|-]+)['`]/is;

/** So the library fails when an error reply comes that answers nothing, and keeps the reply to itself. */
const UNASKED = /reading 'reject'/;
/** Added where the server at a port without TLS has never said a word. */
export const MAYBE_TLS =
  ", before it had said anything: if that port speaks TLS, write rediss:// in REDIS_URL";
/** Added where one with TLS has never said a word: Node often sees the end before the reason. */
export const MAYBE_CERTIFICATE =
  ", before it had said anything: if it wants to see a client certificate, set REDIS_CERT and REDIS_KEY";
const NO_REDIS = "what answers at REDIS_URL does not speak Redis' protocol: is it a Redis port?";

/** By class, code and message of an error. */
const TROUBLES: Words = [
  [/ECONNREFUSED|^ConnectionRefused/, "the connection is refused: nobody listens there"],
  [
    /ENOTFOUND|EAI_|failed to lookup address/,
    "its host is not found: that in REDIS_URL, or one that Redis announces",
  ],
  [
    // The last is what the client library gets to see of it: Deno has no code for it in node:net.
    /EADDRNOTAVAIL|^AddrNotAvailable|connect EINVAL \d+\./,
    "this machine has no free port left for connections to it: widen net.ipv4.ip_local_port_range",
  ],
  [/ENETUNREACH|EHOSTUNREACH|unreachable/i, "there is no way to its address"],
  [/ENOENT|^NotFound/, "its socket file is not there"],
  [/EACCES|EPERM|^PermissionDenied/, "this process may not connect to it"],
  [/EMFILE|ENFILE|Too many open files/, "this process has as many files open as it may: raise its limit"],
  [
    /ETIMEDOUT|^ConnectionTimeoutError|^TimedOut/,
    "it did not take the connection in time; with rediss://, does that port speak TLS?",
  ],
  [/^SocketTimeoutError/, "it has been silent for too long"],
  [
    // Deno's words, and Node's.
    /alert: CertificateRequired|ALERT_CERTIFICATE_REQUIRED/,
    "it wants to see a client certificate: set REDIS_CERT and REDIS_KEY",
  ],
  [
    /fatal alert|ERR_SSL_\w+_ALERT_/,
    "it refuses the TLS connection: check REDIS_CERT and its settings for TLS",
  ],
  [/altname|not valid for name/i, "its certificate is for another host than the one it is reached by"],
  [/CERT_HAS_EXPIRED|CERT_NOT_YET_VALID|Expired|NotValidYet/, "its certificate is not valid at this time"],
  [
    /certificate|UNABLE_TO_|SELF_SIGNED/i,
    "its certificate is not from an authority trusted here: set REDIS_CA, or redisTls.ca of a publisher",
  ],
  [/ERR_SSL|corrupt message/, "what answers at REDIS_URL does not speak TLS: is it the TLS port?"],
  [
    /ECONNRESET|EPIPE|ENOTCONN|^ConnectionReset|^BrokenPipe|^ConnectionAborted|^NotConnected|os error 107/,
    "the connection was reset",
  ],
  [/^SocketClosedUnexpectedlyError|UnexpectedEof|unexpected eof/i, "it closed the connection"],
  [/^(ClientOffline|ClientClosed|DisconnectsClient)Error/, "there is no connection to it"],
  // Redis says both to every new connection.
  [
    UNASKED,
    "it refuses new connections: it has as many clients as its maxclients allows, or is in protected mode",
  ],
  [/Unknown RESP type 2[12] /, "what answers at REDIS_URL speaks TLS: write rediss:// in it"],
  [/Unknown RESP type|reading 'resolve'|^RespError/, NO_REDIS],
];

/** A sentence without a full stop. */
export function publicMessage(error: unknown): string {
  if (isReply(error)) return publicMessageOfReply(messageOf(error));
  const text = fullTextOf(error);
  const words = TROUBLES.find(([said]) => said.test(text))?.[1];
  return `Redis is not available: ${words ?? "the log says more"}`;
}

/** The same for the text of an error reply. */
export function publicMessageOfReply(text: string): string {
  const said = withoutScript(text);
  const words = REPLIES.find(([pattern]) => pattern.test(said))?.[1];
  if (words === undefined) return "Redis answered with an error: the log says more";
  const command = NAMED.exec(said);
  return command ? publicMessageOfCommand(command[1] ?? command[2]!, command[1] !== undefined) : words;
}

/** Why a command can't be had: forbidden, or unknown. */
export function publicMessageOfCommand(name: string, isForbidden: boolean): string {
  const command = name.toUpperCase().replace("|", " ");
  return isForbidden
    ? `Redis does not grant its user the rights that are needed, as ${command}: docs/security.md lists them`
    : `Redis does not know a command that is needed: ${command}`;
}

/** An error reply without what says that it came from within a script. */
export function withoutScript(text: string): string {
  return text.replace(IN_SCRIPT, "");
}

/** Whether a user may not do what a script does, or Redis can't, and it does not say which command of it. */
export function isForbiddenWithin(error: unknown): boolean {
  return isReply(error) &&
    /^ERR The user executing the script can't run|Unknown Redis command called from/
      .test(withoutScript(messageOf(error)));
}

/** Whether what was asked for is with another node of the cluster, or on its way there. */
export function isElsewhere(error: unknown): boolean {
  return isReply(error) && /^(MOVED|ASK|TRYAGAIN) /.test(messageOf(error));
}

/** Whether it is on its way to another node: it will be there, or back, in a moment. */
export function isOnItsWay(error: unknown): boolean {
  return isElsewhere(error) && !messageOf(error).startsWith("MOVED");
}

/**
 * Whether Redis' words in a script tell of the server, or of where a slot is: the same command may be done later, or
 * elsewhere. All else is the fault of the keys that it was to use.
 */
export function isRefusedForAll(text: string): boolean {
  return /\b(OOM|MISCONF|NOREPLICAS|READONLY|MASTERDOWN|CLUSTERDOWN)\b|non local key|same slot|cluster is down/
    .test(text);
}

/** Whether the server is one that only its master may change. */
export function isReadOnly(error: unknown): boolean {
  return isReply(error) && withoutScript(messageOf(error)).startsWith("READONLY");
}

/** Whether it is Redis itself that says no. */
export function isReply(error: unknown): boolean {
  const name = classOf(error);
  return name.endsWith("ErrorReply") || name === "SimpleError";
}

/**
 * How much an error explains: a hang-up 0, a refusal unasked 1, all else 2. What comes first on a connection is often the
 * reason of what comes after.
 */
export type Severity = 0 | 1 | 2;

export function severityOf(error: unknown): Severity {
  if (isReply(error)) return 2;
  const text = fullTextOf(error);
  if (/ECONNRESET|EPIPE|^SocketClosedUnexpectedlyError/.test(text)) return 0;
  return UNASKED.test(text) ? 1 : 2;
}

/** What was said, for the log: all but the password, which Redis repeats when it does not know AUTH. */
export function logMessage(text: string): string {
  if (UNASKED.test(text)) return "an error before anything was asked";
  return text.replace(/,? with args beginning with:.*$/s, "");
}

/** Its class, as the library tells its errors apart by nothing else. */
export function classOf(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "";
}

function fullTextOf(error: unknown): string {
  const { code } = Object(error);
  return `${classOf(error)} ${code ?? ""} ${messageOf(error)}`;
}
