/** What the address of a request says: whom it is about, and its query. */
import { InvalidUsernameError } from "../protocol/errors.ts";

/** The path as it stands in the address, encoded as it is. */
export function pathOf({ url }: Request): string {
  return /^https?:\/\/[^/?#]*([^?#]*)/.exec(url)?.[1] ?? "";
}

/** The query, of a name given twice the last; undefined when there is none. */
export function queryOf(request: Request): Record<string, string> | undefined {
  const at = request.url.indexOf("?");
  return at < 0 ? undefined : Object.fromEntries(new URLSearchParams(request.url.slice(at)));
}

/**
 * The username that stands in a path.
 * @throws {InvalidUsernameError}
 */
export function usernameFrom(segment: string): string {
  // Most names are what they look like.
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new InvalidUsernameError(
      "The username in the path is not percent-encoded UTF-8: encode it as encodeURIComponent does",
    );
  }
}
