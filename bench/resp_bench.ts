/**
 * How fast the subscription reader gets payloads out of what Redis writes. The baseline of each group is the
 * parser's general way, `next()`, with the same decoding: what `message()` saves is the ratio.
 *
 * Each iteration feeds and reads everything the name says; "in pieces of 61" cuts the stream as a slow network
 * would. No socket: the cost of the reads themselves is in `deno task compare`.
 */
import { RespParser } from "../src/redis/resp.ts";
import { Sink } from "./sink.ts";

const sink = new Sink();
const encoder = new TextEncoder();
// As strict as the parser is about bytes that are no UTF-8.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** So many messages on one channel, as RESP2 writes them. */
function messages(count: number, payload: string): Uint8Array {
  const length = encoder.encode(payload).length;
  return encoder.encode(
    `*3\r\n$7\r\nmessage\r\n$5\r\nalice\r\n$${length}\r\n${payload}\r\n`.repeat(count),
  );
}

/** Feeds the stream in pieces and calls `take` after each, as a subscription does after each read. */
function feed(parser: RespParser, stream: Uint8Array, pieceBytes: number, take: () => void): void {
  for (let at = 0; at < stream.length;) {
    const room = parser.space();
    const piece = stream.subarray(at, at + Math.min(room.length, pieceBytes));
    room.set(piece);
    parser.filled(piece.length);
    at += piece.length;
    take();
  }
}

function byMessage(parser: RespParser): () => void {
  return () => {
    while (parser.message()) sink.take(parser.payload());
  };
}

function byNext(parser: RespParser): () => void {
  return () => {
    for (let reply = parser.next(); reply !== undefined; reply = parser.next()) {
      sink.take(decoder.decode((reply as Uint8Array<ArrayBuffer>[])[2]));
    }
  };
}

const SMALL = `{"order":7,"text":"${"x".repeat(100)}"}`;
const UMLAUTS = `{"order":7,"text":"${"ü".repeat(100)}"}`;
const LARGE = `{"text":"${"x".repeat(100_000)}"}`;

const CASES = [
  { group: "RespParser: 1 message of 120 bytes", stream: messages(1, SMALL), pieceBytes: Infinity },
  {
    group: "RespParser: 1 message of 220 bytes, not ASCII",
    stream: messages(1, UMLAUTS),
    pieceBytes: Infinity,
  },
  { group: "RespParser: 1 message of 100,000 bytes", stream: messages(1, LARGE), pieceBytes: Infinity },
  {
    group: "RespParser: 100 messages of 120 bytes in one chunk",
    stream: messages(100, SMALL),
    pieceBytes: Infinity,
  },
  {
    group: "RespParser: 100 messages of 120 bytes in pieces of 61",
    stream: messages(100, SMALL),
    pieceBytes: 61,
  },
];

for (const { group, stream, pieceBytes } of CASES) {
  for (const [name, way] of [["next()", byNext], ["message() and payload()", byMessage]] as const) {
    const parser = new RespParser();
    const take = way(parser);
    Deno.bench({ name, group, baseline: way === byNext, fn: () => feed(parser, stream, pieceBytes, take) });
  }
}
