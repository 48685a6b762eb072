/**
 * A running service, as the commands `send`, `listen` and `who` see it: its address, its HTTP calls, and one
 * sentence for each thing that can go wrong on the way. No retries: a command is run again by its user.
 */
import { type Command, Option } from "commander";
import type { Identity } from "../client/mod.ts";
import { CLIENT_VARIABLES } from "../config/settings.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { BEARER_SUBPROTOCOL } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { type Counted, countedIn, UNITS } from "./counted.ts";
import type { Shell } from "./shell.ts";

const PATIENCE_MS = 10_000;

const { url: URL_VARIABLE, key: KEY_VARIABLE, token: TOKEN_VARIABLE } = CLIENT_VARIABLES;

/** The options of every command that speaks to a service; each wins over its variable. */
export interface ServiceFlags {
  readonly url?: string;
  readonly key?: string;
  /** Only where a socket is opened. */
  readonly token?: string;
}

/**
 * Adds the options by which a command finds a service and is let in.
 * @param options.token Whether it opens a socket.
 * @param options.several Whether it takes more than one address.
 */
export function addServiceOptions(
  command: Command,
  options: { token?: boolean; several?: boolean } = {},
): Command {
  const { env, fallback, meaning } = URL_VARIABLE;
  const [flag, more] = options.several
    ? ["--url <urls>", "; several with commas between"]
    : ["--url <url>", ""];
  command.addOption(new Option(flag, `${meaning}${more} (env ${env}, default ${fallback})`));
  const secrets = [["--key <key>", KEY_VARIABLE], ["--token <token>", TOKEN_VARIABLE]] as const;
  for (const [flags, { env, meaning }] of secrets.slice(0, options.token ? 2 : 1)) {
    command.addOption(
      new Option(flags, `${meaning} (env ${env}, which other users can't see in the list of processes)`),
    );
  }
  return command;
}

/** A body, and its media type. */
export interface Payload {
  readonly type: string;
  readonly body: BodyInit;
}

/** A refusal that a repetition would get again: it is not for want of time, room or Redis. */
export class RefusalError extends Error {
  override readonly name = "RefusalError";
}

/** A service that may or may not be running. */
export class Service {
  /** How long it may take to answer, in milliseconds. */
  readonly patienceMs: number;
  readonly #base: URL;
  readonly #key: string;
  readonly #token: string;

  /** @throws {ConfigError} when the address is none. */
  constructor({ url: flag, key, token }: ServiceFlags, { env, io }: Pick<Shell, "env" | "io">) {
    this.patienceMs = io.patienceMs ?? PATIENCE_MS;
    this.#key = key || env[KEY_VARIABLE.env] || "";
    this.#token = token || env[TOKEN_VARIABLE.env] || "";
    const { env: variable, fallback } = URL_VARIABLE;
    const given = flag || env[variable] || fallback;
    if (!/^https?:\/\//i.test(given) || !URL.canParse(given)) {
      const found = `${flag ? "--url" : variable} must be an http:// or https:// address, but is`;
      const remedy = `correct it, or leave it out (default: ${fallback})`;
      throw new ConfigError([`${found} ${JSON.stringify(given)}: ${remedy}`]);
    }
    this.#base = new URL(given);
    // Without the slash a path would be replaced, not continued.
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
  }

  /** The address, for people to read. */
  get address(): string {
    return this.#base.href.replace(/\/$/, "");
  }

  /** Where a call is made, by its path without the first slash; "" for the beginning of all. */
  callUrl(path: string): URL {
    return new URL(path, this.#base);
  }

  /** What a call shows in the header of this name; undefined without a key. */
  get authorization(): string | undefined {
    return this.#key === "" ? undefined : `Bearer ${this.#key}`;
  }

  /** Where sockets of a user are opened. The name stands in it beside a token too, so that one of another is refused. */
  socketUrl(username: string): URL {
    return new URL(`ws?${new URLSearchParams({ username })}`, this.#base);
  }

  /**
   * Who connects, as our client takes it: the token if there is one, else with a key a new ticket for each connection,
   * which takes the token's place, else the name alone. `token` rejects with `RefusalError` when the key does not allow
   * that, and with another error when there is no ticket just now.
   */
  identity(username: string): Identity {
    if (this.#token !== "") return { token: () => Promise.resolve(this.#token) };
    return this.#key === "" ? { user: username } : { token: () => this.#ticket(username) };
  }

  async #ticket(username: string): Promise<string> {
    const path = "v1/tickets";
    const { answer } = await this.#call(path, jsonOf({ user: username }));
    if (!isObject(answer) || typeof answer.ticket !== "string") throw this.#strange(path);
    return answer.ticket;
  }

  /**
   * Sends a payload to a user, or to a group.
   * @returns The service's answer, and how many got the message.
   */
  async send(
    to: { readonly user: string } | { readonly group: string },
    payload: Payload,
    { unacked }: { unacked?: number } = {},
  ): Promise<{ answer: Record<string, unknown>; count: Counted }> {
    const whose = "user" in to
      ? `users/${encodeURIComponent(to.user)}`
      : `groups/${encodeURIComponent(to.group)}`;
    const path = `v1/${whose}/messages${unacked === undefined ? "" : `?unacked=${unacked}`}`;
    const { answer } = await this.#call(path, payload);
    const count = isObject(answer) ? countedIn(answer) : undefined;
    if (!count) throw this.#strange(path);
    return { answer: answer as Record<string, unknown>, count };
  }

  /** Makes a call whose answer is an object. @param value The body, as JSON. */
  async ask(method: string, path: string, value?: object): Promise<Record<string, unknown>> {
    const { answer } = await this.#call(path, value && jsonOf(value), method);
    if (!isObject(answer)) throw this.#strange(path);
    return answer;
  }

  /** Sends a payload to everybody. @returns The service's answer. */
  async broadcast(payload: Payload): Promise<Broadcasted> {
    const path = "v1/broadcast";
    const { answer } = await this.#call(path, payload);
    if (!isObject(answer) || typeof answer.nodes !== "number") throw this.#strange(path);
    return answer as object as Broadcasted;
  }

  /** How many sockets each user has. In a map, because a user may be called "toString". */
  async online(usernames: readonly string[]): Promise<ReadonlyMap<string, Counted>> {
    const path = "v1/users/online";
    const { answer, headers } = await this.#call(path, jsonOf({ users: usernames }));
    const unit = UNITS.get(headers.get("userwire-counted") ?? "sockets") ?? "socket";
    return new Map(usernames.map((username) => {
      const count = isObject(answer) && Object.hasOwn(answer, username) ? answer[username] : undefined;
      if (typeof count !== "number") throw this.#strange(path);
      return [username, { count, unit }];
    }));
  }

  /**
   * Why the service refused a WebSocket. A failed WebSocket does not say, so the handshake is made once more as
   * a plain request, whose answer can be read; with a ticket of its own, as the first may have used up the other.
   */
  async refusal(username: string): Promise<Error> {
    try {
      const identity = this.identity(username);
      const protocols = [SUBPROTOCOL];
      if ("token" in identity) {
        const token = new TextEncoder().encode(await identity.token());
        protocols.push(BEARER_SUBPROTOCOL + token.toBase64({ alphabet: "base64url", omitPadding: true }));
      }
      const response = await this.#fetch(this.socketUrl(username), {
        headers: {
          "sec-websocket-protocol": protocols.join(", "),
          "connection": "Upgrade",
          "upgrade": "websocket",
          "sec-websocket-version": "13",
          "sec-websocket-key": crypto.getRandomValues(new Uint8Array(16)).toBase64(),
        },
      });
      if (response.status < 400) {
        await response.body?.cancel();
        return new Error(`The connection to ${this.address} broke before it was open: try again`);
      }
      const isNothingShown = this.#token === "" && this.#key === "";
      return await problemOf(response, isNothingShown ? SOCKET_CREDENTIALS : "");
    } catch (error) {
      return error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  /**
   * The error of a request or a socket that got no answer.
   * @param reason For people to read.
   */
  unreachable(reason: string, options?: ErrorOptions): Error {
    const advice = `start one with "userwire serve", or say with --url where it is`;
    return new Error(`Can't reach a service at ${this.address}: ${reason} (${advice})`, options);
  }

  async #call(
    path: string,
    payload?: Payload,
    method = "POST",
  ): Promise<{ answer: unknown; headers: Headers }> {
    const { authorization } = this;
    const response = await this.#fetch(this.callUrl(path), {
      method,
      headers: {
        ...(authorization !== undefined && { authorization }),
        ...(payload && { "content-type": payload.type }),
        "accept": "application/json, application/problem+json",
      },
      ...(payload && { body: payload.body }),
    });
    if (!response.ok) throw await problemOf(response, this.#key === "" ? CALL_CREDENTIALS : "");
    try {
      return { answer: await response.json(), headers: response.headers };
    } catch {
      throw this.#strange(path);
    }
  }

  async #fetch(url: URL, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, { ...init, signal: AbortSignal.timeout(this.patienceMs) });
    } catch (error) {
      throw this.unreachable(reasonOf(error, this.patienceMs), { cause: error });
    }
  }

  #strange(path: string): Error {
    return new Error(`${this.callUrl(path)} did not answer as Userwire does: check --url`);
  }
}

/** What is read of the answer to a broadcast. */
export interface Broadcasted {
  readonly nodes: number;
  /** Undefined when some nodes have not said theirs. */
  readonly sockets?: number;
  /** How many have, then. */
  readonly heard?: number;
}

function jsonOf(value: object): Payload {
  return { type: "application/json", body: JSON.stringify(value) };
}

/** How to show what a service wants to see before it takes a call or a socket. */
const CALL_CREDENTIALS = `give a key with --key or ${KEY_VARIABLE.env}`;
const SOCKET_CREDENTIALS =
  `give a token with --token or ${TOKEN_VARIABLE.env}, or a key of scope tickets with --key or ${KEY_VARIABLE.env}`;

/**
 * What a refusal says, as one sentence: the `detail` of a problem body (RFC 9457) if there is one. That speaks of HTTP;
 * what to do here is added.
 * @param missing How to show what was not shown and may be wanted; "" when all was.
 */
async function problemOf(response: Response, missing: string): Promise<Error> {
  const problem: unknown = await response.json().catch(() => undefined);
  const detail = isObject(problem) ? problem.detail ?? problem.title : undefined;
  const reason = typeof detail === "string" ? detail : response.statusText || "no reason given";
  const retryAfter = Number(response.headers.get("retry-after"));
  const { status } = response;
  const advice = retryAfter > 0
    ? ` (try again in ${retryAfter} s)`
    : status === 401 && missing !== ""
    ? ` (${missing})`
    : "";
  const isForNow = status >= 500 || status === 408 || status === 429;
  return new (isForNow ? Error : RefusalError)(
    `The service at ${new URL(response.url).origin} answered ${status}: ${reason}${advice}`,
  );
}

/** Why a request got no answer: the last part of what Deno says, which names the request over and over. */
function reasonOf(error: unknown, patienceMs: number): string {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return `no answer in ${patienceMs / 1000} s`;
  }
  const said = messageOf(error instanceof Error && error.cause !== undefined ? error.cause : error);
  return said.replace(/^.*client error \(\w+\): /, "").replace(/ \(os error \d+\)$/, "");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
