/**
 * Answers of HTTP/1.1, as far as a load generator reads them: where one ends, its status, and of a refusal what it
 * says.
 */

const decoder = new TextDecoder();
/** No head and no refusal that is worth reading is longer. */
export const MAX_ANSWER_BYTES = 65_536;

/** The beginning of an answer. */
export interface Head {
  readonly status: number;
  /** Where the body begins. */
  readonly end: number;
  /** Whether the connection ends after this answer. */
  readonly isLast: boolean;
  /** Size of the body; undefined when it is in chunks, or goes on until the connection ends. */
  readonly bodyBytes: number | undefined;
  readonly isChunked: boolean;
}

/** The head of the answer that begins here; undefined while some of it is missing. @throws when it is none. */
export function headIn(bytes: Uint8Array): Head | undefined {
  const text = decoder.decode(bytes);
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) {
    if (bytes.length >= MAX_ANSWER_BYTES || !"HTTP/1.".startsWith(text.slice(0, 7))) throw notHttp();
    return undefined;
  }
  const status = Number(/^HTTP\/1\.\d (\d{3})/.exec(text)?.[1]);
  if (!(status >= 100)) throw notHttp();
  const head = text.slice(0, end);
  const bytesText = /^content-length: *(\d+)/im.exec(head)?.[1];
  return {
    status,
    end: end + 4, // a head is ASCII
    isLast: /^connection: *close/im.test(head),
    bodyBytes: bytesText === undefined ? undefined : Number(bytesText),
    isChunked: /^transfer-encoding:.*chunked/im.test(head),
  };
}

function notHttp(): Error {
  return new Error("it does not speak HTTP/1.1");
}

/** How many bytes an answer takes, of those that are there; undefined while some are missing. */
export function sizeOf({ end, bodyBytes, isChunked }: Head, bytes: Uint8Array): number | undefined {
  if (bodyBytes !== undefined) return bytes.length < end + bodyBytes ? undefined : end + bodyBytes;
  if (!isChunked) return undefined;
  // Nobody pipelines here, so that the last chunk is the last of what is there.
  return decoder.decode(bytes.subarray(end)).endsWith("0\r\n\r\n") ? bytes.length : undefined;
}

/** A "no", of a send or a handshake. */
export interface Refusal {
  /** 0 when there was no answer. */
  readonly status: number;
  /** Of our problems; "" of what others say. */
  readonly code: string;
  /** For people to read. */
  readonly reason: string;
}

/** What a refusal says: the `detail` of a problem (RFC 9457) if it has one. */
export function refusalIn(status: number, body: Uint8Array): Refusal {
  const text = decoder.decode(body);
  let problem: { code?: unknown; detail?: unknown; title?: unknown } = {};
  try {
    // Whatever frames the chunks stands outside of the object.
    problem = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1)) ?? {};
  } catch {
    // Some proxy's own page.
  }
  const { code, detail, title } = problem;
  const reason = [detail, title].find((said) => typeof said === "string") ?? "no reason given";
  return { status, code: typeof code === "string" ? code : "", reason: String(reason) };
}
