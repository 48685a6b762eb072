/** Where clients put what they are let in by: tokens and tickets of sockets, keys of callers. Reads, never checks. */
import { UnauthorizedError } from "../protocol/errors.ts";
import { BEARER_SUBPROTOCOL, type Credential, credentialOf } from "../protocol/credentials.ts";

/** The token in `Authorization: Bearer …`; undefined when there is none. */
export function bearerOf(request: Request): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
}

/** The password in `Authorization: Basic …`, which is how a browser asks a person for a key. */
export function passwordOf(request: Request): string | undefined {
  const encoded = /^Basic +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  try {
    const pair = new TextDecoder().decode(Uint8Array.fromBase64(encoded ?? ""));
    return pair.includes(":") ? pair.slice(pair.indexOf(":") + 1) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * What a handshake shows, first match: the header, the subprotocol, and in the address the ticket, and the token where
 * that is allowed. A ticket may stand wherever a token may.
 * @param offer The subprotocols offered.
 * @throws {UnauthorizedError} when it is shown in a way that is not taken.
 */
export function credentialIn(
  request: Request,
  offer: readonly string[],
  options: { tokenInQuery: boolean },
): Credential | undefined {
  const bearer = bearerOf(request);
  if (bearer !== undefined) return credentialOf(bearer);

  const subprotocol = offer.find((name) => name.startsWith(BEARER_SUBPROTOCOL));
  if (subprotocol !== undefined) return credentialOf(decode(subprotocol));

  const query = new URL(request.url).searchParams;
  const ticket = query.get("ticket");
  if (ticket !== null) return { kind: "ticket", text: ticket };

  const token = query.get("token");
  if (token === null) return undefined;
  if (options.tokenInQuery) return { kind: "token", text: token };
  throw new UnauthorizedError(
    `Tokens in the address are not taken, because addresses end up in logs: send "Authorization: Bearer", the ` +
      `subprotocol "${BEARER_SUBPROTOCOL}<base64url of the token>", or a ticket`,
  );
}

function decode(subprotocol: string): string {
  try {
    const bytes = Uint8Array.fromBase64(subprotocol.slice(BEARER_SUBPROTOCOL.length), {
      alphabet: "base64url",
    });
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UnauthorizedError(`The token after "${BEARER_SUBPROTOCOL}" is not in base64url`);
  }
}
