/** Takes a JSON text apart without building anything: what is passed on is passed on as it stands, numbers of any length too. */

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c;
const OPEN_LIST = 0x5b, CLOSE_LIST = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;
/** Characters between two chances for others to have a turn. */
const STRIDE = 16_384;

/**
 * The parts of a list or an object, each as it stands in the text: of a list its values, of an object its names with
 * their values. Builds none of them. In the middle of a long way to the next one it returns undefined, so that others may
 * have a turn.
 * @param json Is known to be JSON; a list or an object, without white space around it.
 */
export function* partsOf(json: string): Iterable<string | undefined> {
  let start = 1;
  let depth = 0;
  let turnAt = STRIDE;
  for (let at = 1; at < json.length; at++) {
    if (at >= turnAt) {
      yield undefined;
      turnAt = at + STRIDE;
    }
    switch (json.charCodeAt(at)) {
      case QUOTE:
        at = endOfString(json, at) - 1;
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        depth++;
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        if (depth-- > 0) break;
        if (json.slice(start, at).trim() !== "") yield json.slice(start, at).trim();
        return;
      case COMMA:
        if (depth > 0) break;
        yield json.slice(start, at).trim();
        start = at + 1;
    }
  }
}

/** The members of an object, each value as it stands in the text; undefined now and then, as `partsOf`. */
export function* membersOf(json: string): Iterable<[name: string, value: string] | undefined> {
  for (const part of partsOf(json)) {
    if (part === undefined) {
      yield undefined;
      continue;
    }
    const end = endOfString(part, 0);
    const colon = part.indexOf(":", end);
    const name = part.slice(1, end - 1);
    yield [name.includes("\\") ? JSON.parse(`"${name}"`) : name, part.slice(colon + 1).trim()];
  }
}

/** Where the string ends that begins there, after its quote. */
function endOfString(json: string, start: number): number {
  let at = start + 1;
  while (true) {
    at = json.indexOf('"', at);
    let slashes = at;
    while (json.charCodeAt(slashes - 1) === BACKSLASH) slashes--;
    at++;
    if ((at - 1 - slashes) % 2 === 0) return at;
  }
}

/**
 * The value of a member of an object as it stands in the text; undefined when there is none.
 * @param json Is known to be a JSON object.
 */
export function memberOf(json: string, name: string): string | undefined {
  let found: string | undefined;
  // Of two with one name the last counts, as for JSON.parse.
  for (const member of membersOf(json.trim())) if (member?.[0] === name) found = member[1];
  return found;
}
