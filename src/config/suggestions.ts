/**
 * Environment variables that no setting has: which of them are mistakes, and what may have been meant. Pure.
 */

/** Variables that begin with this are ours alone, so an unknown one is a mistake. */
export const PREFIX = "USERWIRE_";

/** What Kubernetes and Docker put behind the name of a service and "_": see `isMade`. */
const MADE =
  /^(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR|START|END))?)?)$/;
/** What Docker adds for a link. */
const LINKED = /^(?:NAME|ENV_.+)$/;

/**
 * One fault for each variable that has our prefix, a value, and no meaning.
 * @param known Every variable that means something.
 */
export function unknownVariables(env: Readonly<Record<string, string>>, known: readonly string[]): string[] {
  const services = servicesIn(env);
  return Object.keys(env)
    .filter((name) => name.startsWith(PREFIX) && env[name] !== "" && !known.includes(name))
    .filter((name) => !services.some((service) => isMade(name, service, env)))
    .map((name) => notASetting(name, known));
}

/** What is wrong with a name that no setting has, and what may have been meant. */
export function notASetting(name: string, known: readonly string[]): string {
  return `${name} is not a setting: ${remedy(nearest(name, known))}`;
}

function remedy(meant: string | undefined): string {
  return meant === undefined
    ? 'remove it; "userwire serve --help" lists every setting'
    : `remove it, or rename it to ${meant} if that is meant`;
}

/**
 * The services for which variables were made, by the names they have there: a Service `userwire` or `userwire-api` of
 * Kubernetes is USERWIRE or USERWIRE_API in every container of its namespace. Each has an address in `…_PORT`, which
 * tells it from a port that somebody wanted to set.
 */
function servicesIn(env: Readonly<Record<string, string>>): string[] {
  return Object.keys(env)
    .filter((name) => name.endsWith("_PORT") && /^(?:tcp|udp|sctp):\/\//.test(env[name]!))
    .map((name) => name.slice(0, -"_PORT".length));
}

/** Whether the variable is one of those that Kubernetes, or Docker for a link, makes for the service. */
function isMade(name: string, service: string, env: Readonly<Record<string, string>>): boolean {
  if (!name.startsWith(`${service}_`)) return false;
  const rest = name.slice(service.length + 1);
  // Docker names a link by both its ends: "/web/userwire".
  return MADE.test(rest) || LINKED.test(rest) && /^\/.+\/./.test(env[`${service}_NAME`] ?? "");
}

/**
 * The known name that takes the fewest edits, if they are few enough for a slip: at most three, and one for every
 * three letters. The prefix does not count: USERWIRE_PORT is nearest to PORT.
 */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestEdits = Infinity;
  for (const other of known) {
    const text = other.replace(PREFIX, "");
    const edits = editDistance(name.replace(PREFIX, ""), text);
    if (edits >= bestEdits || edits > Math.min(3, text.length / 3)) continue;
    best = other;
    bestEdits = edits;
  }
  return best;
}

/** How many letters must be put in, taken out or replaced to make one text the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let previous = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = previous[column - 1]! + (from[row - 1] === to[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1));
    }
    previous = current;
  }
  return previous.at(-1)!;
}
