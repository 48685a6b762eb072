/**
 * The RESP parser: every type of RESP2, streams cut at every byte, payloads of any size, and bytes that
 * are no RESP at all. The encoder here is written from the specification and shares nothing with the product.
 */
import { assert, assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "../packages/fast_check.ts";
import { encodeCommand, type Reply, ReplyError, RespError, RespParser } from "../../src/redis/resp.ts";

const encoder = new TextEncoder();

/** A reply with its bytes kept: views are dead as soon as the parser reads on. */
type Kept = string | number | null | { bytes: string } | { error: string } | Kept[];

function keep(reply: Reply): Kept {
  if (reply instanceof Uint8Array) return { bytes: latin1(reply) };
  if (reply instanceof ReplyError) return { error: reply.text };
  return Array.isArray(reply) ? reply.map(keep) : reply;
}

/** Bytes as a text of as many characters. */
function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function fromLatin1(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** Which method takes a reply; a test may mix them. */
type Take = (parser: RespParser) => Kept | undefined;

const byNext: Take = (parser) => {
  const reply = parser.next();
  return reply === undefined ? undefined : keep(reply);
};

const CHANNEL = "alice";

/** As the subscription does it: the short way for messages, the long one for everything else. */
const byMessage: Take = (parser) => {
  if (!parser.message()) return byNext(parser);
  const bytes = payloadOf(parser);
  assertStrictEquals(parser.byteLength, bytes.length);
  return [{ bytes: "message" }, { bytes: latin1(encoder.encode(parser.channel())) }, {
    bytes: latin1(bytes),
  }];
};

/** The payload of the message taken last, as the bytes that came. */
function payloadOf(parser: RespParser): Uint8Array {
  const payload = parser.payload();
  return typeof payload === "string" ? encoder.encode(payload) : payload;
}

/**
 * Feeds a stream in pieces and takes what is whole after each.
 * @param cuts Sizes of the pieces, in turns; a piece is never larger than the parser's free room.
 */
function parseInPieces(stream: Uint8Array, cuts: readonly number[], takes: readonly Take[]): Kept[] {
  const parser = new RespParser();
  const replies: Kept[] = [];
  for (let at = 0, turn = 0; at < stream.length; turn++) {
    at += read(parser, stream.subarray(at, at + cuts[turn % cuts.length]!));
    for (;;) {
      const reply = takes[(turn + replies.length) % takes.length]!(parser);
      if (reply === undefined) break;
      replies.push(reply);
    }
  }
  return replies;
}

/** What one read from a connection does; returns how many bytes found room. */
function read(parser: RespParser, bytes: Uint8Array): number {
  const space = parser.space();
  assert(space.length > 0, "space() must not be empty: a read into nothing looks like the end of the stream");
  const count = Math.min(space.length, bytes.length);
  space.set(bytes.subarray(0, count));
  parser.filled(count);
  return count;
}

function feed(parser: RespParser, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += read(parser, bytes.subarray(at));
}

function parseAll(text: string): Kept[] {
  return parseInPieces(fromLatin1(text), [1 << 20], [byNext]);
}

// ---------------------------------------------------------------------------------------------------------
// Types

const TYPES: Record<string, [wire: string, reply: Kept]> = {
  "a simple string": ["+OK\r\n", "OK"],
  "an empty simple string": ["+\r\n", ""],
  "an error": ["-NOAUTH Authentication required.\r\n", { error: "NOAUTH Authentication required." }],
  "an integer": [":1000\r\n", 1000],
  "a negative integer": [":-7\r\n", -7],
  "an integer with a plus": [":+7\r\n", 7],
  "a bulk string": ["$5\r\nhello\r\n", { bytes: "hello" }],
  "an empty bulk string": ["$0\r\n\r\n", { bytes: "" }],
  "a bulk string of line ends": ["$4\r\n\r\n\r\n\r\n", { bytes: "\r\n\r\n" }],
  "a bulk string of bytes": ["$3\r\n\x00\xff\x80\r\n", { bytes: "\x00\xff\x80" }],
  "the null string": ["$-1\r\n", null],
  "the null list": ["*-1\r\n", null],
  "an array": ["*2\r\n$1\r\na\r\n:1\r\n", [{ bytes: "a" }, 1]],
  "an empty array": ["*0\r\n", []],
  "arrays in arrays": ["*2\r\n*1\r\n*0\r\n*-1\r\n", [[[]], null]],
};

for (const [what, [wire, reply]] of Object.entries(TYPES)) {
  Deno.test(`RespParser reads ${what}, split at any byte`, () => {
    // A second reply shows that the first one ended where it should.
    const stream = fromLatin1(`${wire}+next\r\n`);
    for (let cut = 1; cut <= stream.length; cut++) {
      assertEquals(parseInPieces(stream, [cut, stream.length], [byNext]), [reply, "next"], `cut at ${cut}`);
    }
  });
}

Deno.test("encodeCommand writes words by their length in bytes", () => {
  const wire = encodeCommand("SUBSCRIBE", "é", "🦕\0\r\n", "");
  assertEquals(
    latin1(wire),
    "*4\r\n$9\r\nSUBSCRIBE\r\n$2\r\n\xc3\xa9\r\n$7\r\n\xf0\x9f\xa6\x95\0\r\n\r\n$0\r\n\r\n",
  );
});

// ---------------------------------------------------------------------------------------------------------
// Streams

interface Sample {
  wire: string;
  reply: Kept;
}

const lineText = fc.string({ unit: "grapheme-ascii" });
const bulkText = fc.uint8Array({ maxLength: 40 }).map((bytes) => latin1(bytes));
const bulk = bulkText.map((text) => ({ wire: `$${text.length}\r\n${text}\r\n`, reply: { bytes: text } }));

const { sample } = fc.letrec<{ sample: Sample; list: Sample }>((tie) => ({
  sample: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    bulk,
    lineText.map((text) => ({ wire: `+${text}\r\n`, reply: text })),
    lineText.map((text) => ({ wire: `-${text}\r\n`, reply: { error: text } })),
    fc.maxSafeInteger().map((value) => ({ wire: `:${value}\r\n`, reply: value === 0 ? 0 : value })),
    fc.constantFrom("$-1\r\n", "*-1\r\n").map((wire) => ({ wire, reply: null })),
    tie("list"),
  ),
  list: fc.array(tie("sample"), { maxLength: 4 }).map((items) => ({
    wire: `*${items.length}\r\n${items.map(({ wire }) => wire).join("")}`,
    reply: items.map(({ reply }) => reply),
  })),
}));

const pubsub = fc.tuple(
  // Names that share a beginning or an end with ours must not be taken for it.
  fc.constantFrom(CHANNEL, CHANNEL, CHANNEL, "alic", "alice2", "Alice"),
  bulkText,
).map(([channel, text]): Sample => ({
  wire: `*3\r\n$7\r\nmessage\r\n$${channel.length}\r\n${channel}\r\n$${text.length}\r\n${text}\r\n`,
  reply: [{ bytes: "message" }, { bytes: channel }, { bytes: text }],
}));

const stream = fc.array(fc.oneof({ weight: 2, arbitrary: pubsub }, sample), { minLength: 1, maxLength: 30 });
const cuts = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 20 });

Deno.test("RespParser gives the same replies however the stream is split and taken", () => {
  fc.assert(fc.property(stream, cuts, (samples, cuts) => {
    const wire = fromLatin1(samples.map(({ wire }) => wire).join(""));
    const wanted = samples.map(({ reply }) => reply);
    for (const takes of [[byNext], [byMessage], [byMessage, byNext, byNext]]) {
      assertEquals(parseInPieces(wire, cuts, takes), wanted);
      assertEquals(parseInPieces(wire, [1], takes), wanted);
      assertEquals(parseInPieces(wire, [1 << 20], takes), wanted);
    }
  }));
});

Deno.test("message() says which channel it was, to the last byte", () => {
  for (const channel of ["alice", "", "alice\r\n$1\r\nx", "ユーザー🦕"]) {
    const parser = new RespParser();
    feed(parser, encodeCommand("message", channel, "hi"));
    assert(parser.message());
    assertEquals([parser.channel(), parser.payload(), parser.byteLength], [channel, "hi", 2]);
  }
});

Deno.test("message() leaves everything that is no message to next()", () => {
  for (const words of [["subscribe", "alice", "x"], ["message", "alice"], ["message", "alice", "x", "y"]]) {
    const parser = new RespParser();
    feed(parser, encodeCommand(...words));
    assert(!parser.message());
    assertEquals(byNext(parser), words.map((bytes) => ({ bytes })));
  }
});

function messageWire(channel: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const { byteLength } = encoder.encode(channel);
  const head = `*3\r\n$7\r\nmessage\r\n$${byteLength}\r\n${channel}\r\n$${payload.length}\r\n`;
  return Buffer.concat([encoder.encode(head), payload, encoder.encode("\r\n")]);
}

Deno.test("payload() is text for UTF-8 alone, and keeps a byte order mark", () => {
  const cases: [Uint8Array<ArrayBuffer>, string | Uint8Array][] = [
    [encoder.encode("\ufeffé🦕"), "\ufeffé🦕"],
    [encoder.encode("\ufeff\ufffd"), "\ufeff\ufffd"],
    [encoder.encode("\ufffd"), "\ufffd"], // the mark of a broken byte, sent as such
    [Uint8Array.of(0x41, 0xff), Uint8Array.of(0x41, 0xff)],
    [Uint8Array.of(0xed, 0xa0, 0x80), Uint8Array.of(0xed, 0xa0, 0x80)], // half of a surrogate pair
  ];
  for (const [bytes, payload] of cases) {
    const parser = new RespParser();
    feed(parser, messageWire("alice", bytes));
    assert(parser.message());
    assertEquals(parser.payload(), payload);
  }
});

// ---------------------------------------------------------------------------------------------------------
// The buffer

for (const size of [0, 1, 511, 512, 513, 4_095, 65_536, 65_537, 3_000_001]) {
  Deno.test(`RespParser reads a payload of ${size} bytes and goes back to a small buffer`, () => {
    const payload = Uint8Array.from({ length: size }, (_, i) => i * 31 + (i >> 8));
    const wire = messageWire(CHANNEL, payload);
    const parser = new RespParser();
    const smallest = parser.space().length;
    let largest = 0;
    const takes = [
      () => parser.message() ? payloadOf(parser) : undefined,
      () => (parser.next() as Reply[] | undefined)?.[2],
    ];
    for (const take of takes) {
      for (let at = 0; at < wire.length;) {
        assertStrictEquals(take(), undefined, "a reply that has not arrived whole is not given out");
        largest = Math.max(largest, parser.space().length);
        at += read(parser, wire.subarray(at, at + 16_384));
      }
      const got = take();
      assertInstanceOf(got, Uint8Array);
      assert(equal(got, payload), "payload byte for byte");
      assert(parser.space().length <= smallest * 8, "idle, it holds little again");
    }
    assert(largest < 4 * (wire.length + smallest), "it never holds many times what it needs");
  });
}

Deno.test("RespParser makes no room for what is only announced, and none beyond what came", () => {
  const parser = new RespParser();
  feed(parser, fromLatin1(`+${"x".repeat(297)}\r\n`));
  parser.next();
  assertEquals(parser.space().length, 512);
  feed(parser, fromLatin1("$1000000000\r\nx"));
  assertStrictEquals(parser.next(), undefined);
  assert(parser.space().length <= 5 * 1024 * 1024);
});

Deno.test("RespParser's views hold until the next space(), and not longer", () => {
  const parser = new RespParser();
  feed(parser, fromLatin1("$5\r\nfirst\r\n$6\r\nsecond\r\n"));
  const first = parser.next() as Uint8Array;
  const second = parser.next() as Uint8Array;
  assertStrictEquals(parser.next(), undefined);
  assertEquals([latin1(first), latin1(second)], ["first", "second"]);
  parser.space().fill(0);
  assertEquals(latin1(first), "\0\0\0\0\0", "it was a view and no copy");
});

Deno.test("RespParser keeps the half that arrived when it makes room for the rest", () => {
  const parser = new RespParser();
  const wire = fromLatin1("$300\r\n" + "a".repeat(300) + "\r\n$300\r\n" + "b".repeat(300) + "\r\n");
  let seen = "";
  for (let at = 0; at < wire.length;) {
    at += read(parser, wire.subarray(at, at + 400));
    for (let reply = parser.next(); reply !== undefined; reply = parser.next()) {
      seen += latin1(reply as Uint8Array);
    }
  }
  assertEquals(seen, "a".repeat(300) + "b".repeat(300));
});

// ---------------------------------------------------------------------------------------------------------
// What is no RESP

const GARBAGE: Record<string, string> = {
  "an HTTP answer": "HTTP/1.1 400 Bad Request\r\n\r\n",
  "a greeting of another protocol": "220 mail.example ESMTP\r\n",
  "a zero byte": "\0\r\n",
  "a length of letters": "$abc\r\n",
  "an empty length": "$\r\nx\r\n",
  "a length that ends with a line feed only": "$1\nx\r\n",
  "a length that ends with a line feed behind another byte": "$1x\nA\r\n",
  "a count of letters": "*x\r\n",
  "an integer of letters": ":12a\r\n",
  "only a sign": ":-\r\n",
  "a bulk string that is longer than it says": "$3\r\nabcd\r\n",
  "a message that is longer than it says": "*3\r\n$7\r\nmessage\r\n$5\r\nalice\r\n$1\r\nxyz\r\n",
  "a message that is longer than it says, with a reply where it should end":
    "*3\r\n$7\r\nmessage\r\n$5\r\nalice\r\n$1\r\nxyz+OK\r\n",
  "a message without a length": "*3\r\n$7\r\nmessage\r\n$5\r\nalice\r\n$\r\nxx\r\n",
  "lists without end": "*1\r\n".repeat(100_000),
  // Of RESP3, which nobody asks for.
  "a null of RESP3": "_\r\n",
  "a boolean": "#t\r\n",
  "a double": ",1.5\r\n",
  "a big number": "(12\r\n",
  "a bulk error": "!5\r\nERR a\r\n",
  "a verbatim string": "=5\r\ntxt:a\r\n",
  "a set": "~1\r\n+a\r\n",
  "a map": "%1\r\n+a\r\n:1\r\n",
  "a push": ">3\r\n$7\r\nmessage\r\n$5\r\nalice\r\n$1\r\nx\r\n",
  "attributes": "|1\r\n+ttl\r\n:3600\r\n+OK\r\n",
};

for (const [what, wire] of Object.entries(GARBAGE)) {
  Deno.test(`RespParser throws RespError at ${what}`, () => {
    for (const take of [byNext, byMessage]) {
      assertThrows(() => parseInPieces(fromLatin1(wire), [1 << 20], [take]), RespError);
    }
  });
}

Deno.test("RespParser throws nothing but RespError, whatever the bytes", () => {
  const nearly = fc.array(fc.constantFrom(..."*$>~%|:+-_#,(=!0123tf\r\n"), { maxLength: 60 })
    .map((characters) => characters.join(""));
  const torn = fc.tuple(stream, fc.nat(), fc.nat(255)).map(([samples, at, byte]) => {
    const wire = samples.map(({ wire }) => wire).join("");
    return wire.slice(0, at % wire.length) + String.fromCharCode(byte) + wire.slice(at % wire.length + 1);
  });
  const any = fc.uint8Array({ maxLength: 60 }).map((bytes) => latin1(bytes));
  fc.assert(
    fc.property(fc.oneof(nearly, torn, any), cuts, (wire, cuts) => {
      try {
        parseInPieces(fromLatin1(wire), cuts, [byMessage]);
      } catch (error) {
        assertInstanceOf(error, RespError);
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("RespError's text names what came and asks the right question", () => {
  const error = assertThrows(() => parseAll("HTTP/1.1 400 Bad Request\r\n\r\n"), RespError);
  assertEquals(error.message, 'Redis sent "H" where a reply should begin: is this a Redis port?');
});

function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}
