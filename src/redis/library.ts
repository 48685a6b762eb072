/** The client library, which no other file imports: how it is set up here, and what its errors mean. */
import { createClient } from "redis";
import { BrokerUnavailableError, messageOf } from "../errors.ts";

/** What `rediss://` needs beyond the public certificate authorities; all PEM text. */
export interface RedisTls {
  readonly ca?: string;
  /** The client's own certificate, and its private key. */
  readonly cert?: string;
  readonly key?: string;
}

/** A connection on which nothing came for so long is given up and dialled again. */
const SILENCE_MS = 10_000;

export type Client = ReturnType<typeof newClient>;

/** A client that dials once, when it is told to. */
export function newClient(url: string, tls: RedisTls | undefined) {
  return createClient({
    url,
    // RESP2 needs no greeting and is spoken by every Redis.
    RESP: 2,
    maintNotifications: "disabled",
    disableClientInfo: true,
    // A command given while there is no connection fails at once, so that the caller can say so.
    disableOfflineQueue: true,
    // Its own deadlines cost a signal and a timer for each command; ours are in `command_connection.ts`.
    commandOptions: { timeout: 0 },
    socket: {
      ...(url.startsWith("rediss:") && { tls: true as const, ...tls }),
      connectTimeout: 3_000,
      socketTimeout: SILENCE_MS,
      // When to try again is decided in `command_connection.ts` too.
      reconnectStrategy: false,
    },
  });
}

/** Whether it is Redis itself that says no. */
export function isReply(error: unknown): boolean {
  const name = nameOf(error);
  return name.endsWith("ErrorReply") || name === "SimpleError";
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "";
}

/** Whether Redis answered and would not let us in. */
export function isRefusal(error: unknown): boolean {
  return /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password|ERR Client sent AUTH)/.test(
    messageOf(error),
  );
}

/** What is wrong with the connection, as a sentence without a full stop. */
export function explain(error: unknown): string {
  const message = messageOf(error);
  if (/^(WRONGPASS|ERR invalid password)/.test(message)) return "Redis refused the password or the user";
  if (/^NOAUTH/.test(message)) return "Redis wants a password";
  if (/^ERR (Client sent )?AUTH/.test(message)) return "Redis was given a password but has none configured";
  if (/alert: CertificateRequired/.test(message)) {
    return "Redis wants to see a client certificate: set REDIS_CERT and REDIS_KEY";
  }
  if (/fatal alert/.test(message)) return `Redis refused the TLS connection: ${message}`;
  return `Redis is not available: ${message}`;
}

/** The error that a command is rejected with when the library rejects it with the one given. */
export function asUnavailable(error: unknown): BrokerUnavailableError {
  const name = nameOf(error);
  const answered = isReply(error);
  const unsent = name === "ClientOfflineError" || name === "ClientClosedError";
  return new BrokerUnavailableError(
    answered
      ? `Redis refused the command: ${messageOf(error)}`
      : `Redis is not available: ${messageOf(error)}`,
    { outcome: answered || unsent ? "refused" : "unknown", cause: error },
  );
}
