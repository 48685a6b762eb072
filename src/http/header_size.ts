/** How large the headers of a request may be. */
import { RUNTIME_HEADER_BYTES } from "../config/settings.ts";
import { type Problem, problem } from "./problem.ts";

/**
 * Makes a guard that refuses requests with 431 when their headers are too large.
 * @param maxBytes What the headers of a request may have in all, in bytes, as `headerBytes` counts them.
 */
export function headerGuard(maxBytes: number): (request: Request) => Problem | undefined {
  // Reading every header costs 2 µs or more, beside the 30 of a send: not done where nothing can come of it.
  if (maxBytes >= RUNTIME_HEADER_BYTES) return () => undefined;
  return ({ headers }) => {
    const bytes = headerBytes(headers);
    if (bytes <= maxBytes) return undefined;
    return problem(
      "headers_too_large",
      `The headers have ${bytes} bytes of at most ${maxBytes}: send fewer or shorter ones, or raise ` +
        "USERWIRE_MAX_HEADER_BYTES",
    );
  };
}

/** The bytes of all headers as HTTP/1.1 writes them, a line each; values of the same name are one, joined by ", ". */
function headerBytes(headers: Headers): number {
  let bytes = 0;
  // A character is a byte here. Four more are the colon, the space and the end of the line.
  headers.forEach((value, name) => bytes += name.length + value.length + 4);
  return bytes;
}
