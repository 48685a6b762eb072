/** What a handshake says of the session that it asks for: in its address, and by the subprotocols it offers. */
import { BEARER_SUBPROTOCOL, parseOffer } from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { parseEventId, type Place } from "../protocol/event_stream.ts";
import type { Position } from "../protocol/position.ts";
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
  const [resume, all] = (["resume", "all"] as const).map((name) => {
    const text = searchParams.get(name);
    return text === null ? NOWHERE : parseEventId(text) ?? notAPlace(`"${name}"`);
  }) as [Place | Response, Place | Response];
  if (resume instanceof Response) return resume;
  if (all instanceof Response) return all;
  const ping = searchParams.get("ping");
  if (ping !== null && !/^\d{1,9}$/.test(ping)) {
    return problem("invalid_handshake", `"ping" must be a whole number of seconds, such as 60`);
  }
  const { leastS, mostS } = PING_RANGE;
  const pingS = ping === null ? undefined : Math.min(mostS, Math.max(leastS, Number(ping)));
  return { resume: resume.own, all: all.own ?? resume.all, pingS, name: searchParams.get("username") };
}

/**
 * What the address of a stream of events says, and the header with which a browser comes back to it, which is newer than
 * what stands in the address.
 */
export function readStreamQuery({ headers }: Request, { searchParams }: URL): ReturnType<typeof readQuery> {
  const asked = readQuery(searchParams);
  const id = headers.get("last-event-id") ?? "";
  if (asked instanceof Response || id === "") return asked;
  const place = parseEventId(id);
  if (!place) return notAPlace("Last-Event-ID");
  return { ...asked, resume: place.own ?? asked.resume, all: place.all ?? asked.all };
}

const NOWHERE: Place = { own: undefined, all: undefined };

/** @param what It stands there. */
function notAPlace(what: string): Response {
  return problem(
    "invalid_handshake",
    `${what} must be a position as "hi" or the id of an event gave it, such as Zk3vQ9aB.17`,
  );
}
