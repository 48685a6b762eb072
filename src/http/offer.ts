/** What a handshake says of the session that it asks for: in its address, and by the subprotocols it offers. */
import { BEARER_SUBPROTOCOL, parseOffer } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { parsePosition, type Position } from "../protocol/position.ts";
import { problem } from "./problem.ts";

export interface Offer {
  readonly subprotocols: string[];
  readonly isFramed: boolean;
  readonly resume: Position | undefined;
  /** Where it stands in the broadcasts. */
  readonly all: Position | undefined;
  /** After how many seconds of silence it wants a sign of life; undefined where it leaves that to the service. */
  readonly pingS: number | undefined;
  /** The username, as it was given. */
  readonly name: string | null;
}

/** Seconds of silence that a client may ask for with `?ping=`: outside of it, it gets the nearest. */
export const PING_RANGE = { leastS: 15, mostS: 300 };

/** @returns A problem where it can't be read. */
export function readOffer(request: Request, { searchParams }: URL): Offer | Response {
  const subprotocols = parseOffer(request.headers.get("sec-websocket-protocol"));
  const isFramed = subprotocols.includes(SUBPROTOCOL);
  if (!isFramed && subprotocols.some((name) => !name.startsWith(BEARER_SUBPROTOCOL))) {
    return problem(
      "invalid_handshake",
      `No known subprotocol was offered: offer "${SUBPROTOCOL}", or none for raw mode`,
    );
  }
  // A browser fails when none of the subprotocols it offered is taken, so a token in one needs the other.
  if (!isFramed && subprotocols.length > 0) {
    return problem("invalid_handshake", `A token among the subprotocols needs "${SUBPROTOCOL}" beside it`);
  }
  const asked = readQuery(searchParams);
  return asked instanceof Response ? asked : { subprotocols, isFramed, ...asked };
}

/** What a handshake says in its address. */
export function readQuery(
  searchParams: URLSearchParams,
): Pick<Offer, "resume" | "all" | "pingS" | "name"> | Response {
  const [resume, all] = (["resume", "all"] as const).map((name) => positionIn(searchParams, name));
  if (resume instanceof Response) return resume;
  if (all instanceof Response) return all;
  const ping = searchParams.get("ping");
  if (ping !== null && !/^\d{1,9}$/.test(ping)) {
    return problem("invalid_handshake", `"ping" must be a whole number of seconds, such as 60`);
  }
  const { leastS, mostS } = PING_RANGE;
  const pingS = ping === null ? undefined : Math.min(mostS, Math.max(leastS, Number(ping)));
  return { resume, all, pingS, name: searchParams.get("username") };
}

function positionIn(searchParams: URLSearchParams, name: "resume" | "all"): Position | undefined | Response {
  const from = searchParams.get(name);
  if (from === null) return undefined;
  return parsePosition(from) ??
    problem("invalid_handshake", `"${name}" must be a position as "hi" gave it, such as Zk3vQ9aB.17`);
}
