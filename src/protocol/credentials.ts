/** What a client shows to be let in, and where it stands: in a subprotocol, or in the first frame of a raw socket. */
import { InvalidFrameError } from "./errors.ts";
import { parseObject } from "./json.ts";
import { type NameRules, parseUsername } from "./username.ts";

/** What precedes a token, in base64url, that is offered as if it were a subprotocol: browsers send no other header. */
export const BEARER_SUBPROTOCOL = "userwire.bearer.";

/** The subprotocols a client offers, from its `Sec-WebSocket-Protocol` header, with or without spaces. */
export function parseOffer(header: string | null): string[] {
  return header === null ? [] : header.split(",").map((name) => name.trim()).filter((name) => name !== "");
}

/**
 * Reads the first frame of a raw socket, which says who the client is: `{"user_name": "alice"}`.
 * @throws {InvalidFrameError | InvalidUsernameError}
 */
export function parseIdentityFrame(text: string, rules: NameRules = {}): string {
  const { user_name } = parseObject(text);
  if (user_name === undefined) throw new InvalidFrameError('The first frame must be {"user_name": "…"}');
  return parseUsername(user_name, rules);
}

/** What a client shows to be let in. */
export interface Credential {
  /** A ticket is good for one connection. */
  readonly kind: "token" | "ticket";
  readonly text: string;
}

/** Tickets look like no token: 32 random bytes in base64url, where a token has dots. */
const TICKET = /^[A-Za-z0-9_-]{43}$/;

/** What a text is that was shown where a token is expected: a ticket may stand there too. */
export function credentialOf(text: string): Credential {
  return { kind: isTicket(text) ? "ticket" : "token", text };
}

export function isTicket(text: string): boolean {
  return TICKET.test(text);
}

/**
 * Reads the first frame of a raw socket that shows who the client is: `{"token": "…"}` or `{"ticket": "…"}`.
 * @returns Undefined when it holds neither.
 * @throws {InvalidFrameError}
 */
export function parseCredentialFrame(text: string): Credential | undefined {
  const { token, ticket } = parseObject(text);
  if (typeof token === "string") return credentialOf(token);
  return typeof ticket === "string" ? { kind: "ticket", text: ticket } : undefined;
}
