/**
 * The wire without any I/O: which names are users, that a payload comes out of its envelope as it went in, that no
 * text from outside breaks a parser, and the one rule of the close codes.
 */
import { assert, assertEquals, assertInstanceOf, assertMatch, assertThrows } from "@std/assert";
import fc from "../packages/fast_check.ts";
import { InvalidFrameError, InvalidUsernameError } from "../../src/protocol/errors.ts";
import { CLOSE, type CloseReason, shouldReconnect } from "../../src/protocol/close_codes.ts";
import { parseIdentityFrame, parseOffer } from "../../src/protocol/credentials.ts";
import {
  formatEnvelope,
  frameOf,
  isEnvelope,
  orderOf,
  type Payload,
  payloadOf,
  wrapForeign,
} from "../../src/protocol/envelope.ts";
import {
  type ClientFrame,
  formatAnswer,
  formatFrame,
  parseClientFrame,
  type ServerFrame,
} from "../../src/protocol/frames.ts";
import { isJson } from "../../src/protocol/json.ts";
import { channelOf, type NameRules, parseUsername } from "../../src/protocol/username.ts";

// ---------------------------------------------------------------------------------------------------------
// Usernames

const GOOD_NAMES: Record<string, string> = {
  "a short name": "a",
  "128 bytes": "a".repeat(128),
  "128 bytes of two each": "é".repeat(64),
  "128 bytes of three each, and two": "€".repeat(42) + "é",
  "128 bytes of four each": "🦕".repeat(32),
  "Unicode": "Zoë-用户.🦕",
  "letters with marks of their own": "e\u0301",
  "percent signs": "100%41%00",
  "what is special in a URL": "a/b?c=d&e#f+g;h@i:j",
  "what is special in Redis patterns": "*?[a-z]\\",
  "quotes and brackets": `"'<>[]()\``,
  "dots only": "...",
  "digits": "0",
  "a name of JavaScript's": "__proto__",
  "the reserved prefix further in": "xuserwire:y",
  "the reserved word without its colon": "userwire",
  "the reserved prefix in capitals": "USERWIRE:a",
  "a separator of no width": "a\u200bb",
};

for (const [what, name] of Object.entries(GOOD_NAMES)) {
  Deno.test(`parseUsername takes ${what} as it is`, () => {
    assertEquals(parseUsername(name), name);
    assertEquals(channelOf(parseUsername(name)), name);
    assertEquals(channelOf(parseUsername(name), "app:"), `app:${name}`);
  });
}

const BAD_NAMES: Record<string, [names: unknown[], why: RegExp]> = {
  "what is no string": [
    [undefined, null, 7, true, {}, ["alice"], { toString: () => "alice" }],
    /must be a string/,
  ],
  "an empty name": [[""], /must not be empty/],
  "129 bytes": [
    ["a".repeat(129), "é".repeat(64) + "a", "€".repeat(43), "🦕".repeat(32) + "a", "a".repeat(1e6)],
    /at most 128 bytes: this one has \d+/,
  ],
  "control characters": [
    [..."\0\u0001\t\n\v\f\r\u001b\u001f\u007f\u0080\u0085\u009f"].map((character) => `a${character}b`),
    /control characters/,
  ],
  "white space of all kinds, anywhere": [
    [..." \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"]
      .flatMap((space) => [space, `${space}a`, `a${space}`, `a${space}b`]),
    /white space/,
  ],
  "braces": [["{", "}", "{alice}", "a{b}c"], /braces/],
  "reserved names": [["userwire:", "userwire:inbox", "userwire::"], /reserved/],
  "half of a surrogate pair": [["\ud83e", "\udd95", "a\ud83eb", "\udd95\ud83e"], /valid Unicode/],
  "the sign for bytes that could not be read": [["\ufffd", "J\ufffdrgen"], /could not be read as UTF-8/],
};

for (const [what, [names, why]] of Object.entries(BAD_NAMES)) {
  Deno.test(`parseUsername refuses ${what}`, () => {
    for (const name of names) {
      const error = assertThrows(
        () => parseUsername(name),
        InvalidUsernameError,
        undefined,
        JSON.stringify(name),
      );
      assertMatch(error.message, why);
    }
  });
}

Deno.test("parseUsername keeps letter case, or folds it before it looks at the rest", () => {
  assertEquals(parseUsername("Alice"), "Alice");
  assertEquals(parseUsername("ALICE-Ä", { fold: true }), "alice-ä");
  assertThrows(() => parseUsername("UserWire:a", { fold: true }), InvalidUsernameError, "reserved");
  // This capital takes one byte more when it is small.
  assertEquals(parseUsername("İ".repeat(64)), "İ".repeat(64));
  const longer = "\u023a"; // ⱥ takes three bytes, Ⱥ two
  assertThrows(() => parseUsername(longer.repeat(64), { fold: true }), InvalidUsernameError, "192");
});

Deno.test("parseUsername makes one user of two letters only when one is the small form of the other", () => {
  /** Letters by their small form. */
  const forms = new Map<string, string[]>();
  const refused: string[] = [];
  for (let code = 0x21; code <= 0x10ffff; code++) {
    const letter = String.fromCodePoint(code);
    const hasCase = letter.toLowerCase() !== letter || letter.toUpperCase() !== letter;
    if (hasCase && parses(letter)) {
      const small = parses(letter, { fold: true });
      if (small === undefined) refused.push(letter);
      else forms.set(small, [...forms.get(small) ?? [], letter]);
    }
  }
  for (const [small, letters] of forms) {
    assertEquals([...small].length, 1);
    assert(letters.includes(small), `${small} is itself`);
    assert(letters.length <= 2, `${letters.join(" and ")} are one user`);
  }
  for (const letter of "\u212a\u212b\u2126\u0130\u03f4\u01c5") assert(refused.includes(letter), letter);
  for (const letter of "AZÄẞΣЖ") assert(!refused.includes(letter), letter);
  assert(refused.length < 20, refused.join(" "));
  assertThrows(() => parseUsername("\u212aevin", { fold: true }), InvalidUsernameError, "U+212A");
  assertEquals(parseUsername("\u212aevin"), "\u212aevin", "where case counts it is another letter than K");
});

function parses(text: string, rules?: NameRules): string | undefined {
  try {
    return parseUsername(text, rules);
  } catch {
    return undefined;
  }
}

Deno.test("parseUsername refuses what Redis calls its own channels where names are channels as they stand", () => {
  const names = [
    "__keyevent@0__:set",
    "__keyspace@0__:x",
    "__sentinel__:hello",
    "__redis__:invalidate",
    "__",
  ];
  for (const name of names) {
    assertThrows(() => parseUsername(name, { bare: true }), InvalidUsernameError, "USERWIRE_CHANNEL_PREFIX");
    assertEquals(parseUsername(name), name);
  }
  for (const name of ["_", "_a", "a__"]) assertEquals(parseUsername(name, { bare: true }), name);
});

Deno.test("parseUsername gives the name back or throws InvalidUsernameError, whatever the text", () => {
  fc.assert(fc.property(anyText(), (text) => {
    try {
      assertEquals(parseUsername(text), text);
      assert(!isEnvelope(text) && new TextEncoder().encode(text).length <= 128);
    } catch (error) {
      assertInstanceOf(error, InvalidUsernameError);
    }
  }));
});

// ---------------------------------------------------------------------------------------------------------
// The envelope

/** Any text: words, single units (so also halves of pairs), and bits of our own formats. */
function anyText() {
  const bits = fc.constantFrom(
    '{"t":"m",',
    ',"data":',
    ',"enc":"base64"',
    '"',
    "\\",
    "}",
    "\u0001uw1",
    "\u2028",
    "\0",
  );
  return fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
    fc.array(fc.oneof(bits, fc.string({ maxLength: 4 })), { maxLength: 8 }).map((parts) => parts.join("")),
  );
}

/** JSON text as it may be given: with its own white space and its own way to write numbers. */
const jsonText = fc.oneof(
  fc.tuple(fc.jsonValue({ noUnicodeString: false }), fc.constantFrom("", "  ", "\t"))
    .map(([value, indent]) => JSON.stringify(value, null, indent)),
  fc.constantFrom(
    "1.0",
    "-0",
    "1E400",
    "123456789012345678901234567890",
    ' {"a" : 1 }\r\n',
    '{"data":1,"data":2}',
  ),
  fc.constantFrom(
    '"\\ud83e"',
    '"\\u0041"',
    '"a/b\\/c"',
    '{"t":"bye","code":1000}',
    '[",\\"data\\":"]',
    "null",
  ),
);

const payload: fc.Arbitrary<Payload> = fc.oneof(
  jsonText.map((text): Payload => ({ kind: "json", text })),
  anyText().map((text): Payload => ({ kind: "text", text })),
  fc.uint8Array().map((bytes): Payload => ({ kind: "binary", bytes: new Uint8Array(bytes) })),
);

const id = fc.stringMatching(/^[\w.:-]{1,64}$/);
const ts = fc.nat(Number.MAX_SAFE_INTEGER);

Deno.test("No name of a group is taken for the payload, and the frame has it as it is", () => {
  for (const group of ['","data":"x"', ',"data":1', '"', "\\", '\\","data":', "日本", "'}"]) {
    for (
      const payload of [{ kind: "json", text: '{"order":7}' }, { kind: "text", text: ',"data":' }] as const
    ) {
      const { head, tail } = formatEnvelope(payload, { id: "m1", ts: 1, group, receipt: "a.1" });
      assertEquals(payloadOf(head + tail), payload.text);
      assertEquals(JSON.parse(frameOf(head + tail)).g, group);
    }
  }
});

Deno.test("payloadOf gives back what formatEnvelope was given, byte for byte", () => {
  fc.assert(fc.property(payload, id, ts, (payload, id, ts) => {
    const { head, tail } = formatEnvelope(payload, { id, ts });
    // A history writes its number between the two.
    for (const envelope of [head + tail, `${head}"seq":7,${tail}`]) {
      assert(isEnvelope(envelope));
      assertEquals(payloadOf(envelope), payload.kind === "binary" ? payload.bytes : payload.text);
    }
  }));
});

Deno.test("frameOf gives an m frame with exactly its fields, t first and data last", () => {
  fc.assert(fc.property(payload, id, ts, fc.option(fc.nat()), (payload, id, ts, seq) => {
    const { head, tail } = formatEnvelope(payload, { id, ts });
    const text = frameOf(head + (seq === null ? "" : `"seq":${seq},`) + tail);
    const data = payload.kind === "binary"
      ? payload.bytes.toBase64()
      : payload.kind === "json"
      ? JSON.parse(payload.text)
      : payload.text;
    const wanted = {
      t: "m",
      ...(seq !== null && { seq }),
      id,
      ts,
      ...(payload.kind === "binary" && { enc: "base64" }),
      data,
    };
    const frame = JSON.parse(text);
    assertEquals(frame, wanted);
    assertEquals(Object.keys(frame), Object.keys(wanted));
    assert(text.isWellFormed() || payload.kind === "json", "so that UTF-8 can carry it");
  }));
});

Deno.test("isEnvelope tells every foreign payload apart", () => {
  const foreign = fc.oneof(
    anyText(),
    jsonText,
    fc.constantFrom("", "\u0001", "\u0001uw", "uw1j{}", "\u0001uw2j{}"),
  );
  fc.assert(fc.property(foreign.filter((text) => !text.startsWith("\u0001uw1")), (text) => {
    assertEquals(isEnvelope(text), false);
  }));
  const { head, tail } = formatEnvelope({ kind: "json", text: "{}" }, { id: "a", ts: 1 });
  for (const rest of ["", "j", "jnull", "j{}", "J;{}", 'j{"t":"p"}', "k", "k[]"]) {
    assertEquals(isEnvelope(`\u0001uw1${rest}`), false, rest);
  }
  for (let end = 0; end < head.length + tail.length; end++) {
    const text = (head + tail).slice(0, end);
    // One that is cut behind a brace of its payload looks whole.
    assertEquals(isEnvelope(text), text.endsWith("}"), text);
  }
});

Deno.test("orderOf takes no order that can't be carried out, or that it does not know", () => {
  const order = (text: string) => orderOf(`\u0001uw1k${text}`);
  for (const text of ["", "{", "null", "1", "{}", '{"other":1}', '{"conn":"a"}', '{"conn":"a","frame":1}']) {
    assertEquals(order(text), undefined, text);
  }
  const { code, reason } = CLOSE.kicked;
  for (const bad of ["null", '"4403"', "0", "999", "1005", "1009", "2999", "5000", "4403.5", "[]"]) {
    assertEquals<unknown>(order(`{"code":${bad},"why":7}`), { code, reason, revoked: undefined }, bad);
    const close = { conn: "b", code, reason };
    assertEquals(order(`{"asker":"a","close":{"conn":"b","code":${bad}}}`), { asker: "a", close }, bad);
  }
  assertEquals<unknown>(order('{"code":1012,"why":"restart"}'), { ...CLOSE.restart, revoked: undefined });
});

Deno.test("wrapForeign keeps JSON as JSON, other text as a string, and bytes as base64", () => {
  fc.assert(fc.property(fc.oneof(anyText(), jsonText), ts, (text, ts) => {
    const frame: unknown = JSON.parse(wrapForeign(text, ts));
    assertEquals(frame, { t: "m", ts, data: isJson(text) ? JSON.parse(text) : text });
  }));
  fc.assert(fc.property(fc.uint8Array(), ts, (bytes, ts) => {
    const frame: unknown = JSON.parse(wrapForeign(bytes, ts));
    assertEquals(frame, { t: "m", ts, enc: "base64", data: bytes.toBase64() });
  }));
});

Deno.test("wrapForeign does not touch JSON text: digits and white space stay", () => {
  const text = ' {"n": 12345678901234567890, "f": 1.0} ';
  assertEquals(wrapForeign(text, 5), `{"t":"m","ts":5,"data":${text}}`);
});

// ---------------------------------------------------------------------------------------------------------
// Frames

const SERVER_FRAMES: ServerFrame[] = [
  {
    t: "hi",
    v: 1,
    conn: "c",
    user: "ü",
    node: "n",
    pos: "e.0",
    resumed: false,
    replay: 0,
    ping: 25,
    max: 65536,
    req: 1,
  },
  { t: "m", seq: 3, id: "x", ts: 1, data: { a: [null, "\u2028"] }, r: 1 },
  { t: "gap", from: 1, to: 4, count: 4, why: "trimmed", pos: "e.4" },
  { t: "gap", from: 5, to: null, count: null, why: "epoch", pos: "f.0" },
  { t: "re", id: "1", ok: false, err: "no" },
  { t: "p" },
  { t: "bye", code: 1012, why: "restart", retry_ms: 250 },
];
const CLIENT_FRAMES: Exclude<ClientFrame, { t: "req" }>[] = [
  { t: "p" },
  { t: "ack", seq: 0 },
  { t: "auth", token: "" },
];

Deno.test("formatFrame writes what clients and parseClientFrame read, t first", () => {
  for (const frame of SERVER_FRAMES) {
    assertEquals(JSON.parse(formatFrame(frame)), frame);
    assert(formatFrame(frame).startsWith(`{"t":"${frame.t}"`));
  }
  for (const frame of CLIENT_FRAMES) assertEquals(parseClientFrame(formatFrame(frame)), frame);
  const request = { t: "req", id: "a_b-1", op: "o", timeout_ms: 5 } as const;
  for (const data of [undefined, null, 0, "", [{}], { data: "no" }]) {
    const frame = formatFrame({ ...request, data });
    const json = data === undefined ? undefined : JSON.stringify(data);
    assertEquals(parseClientFrame(frame), { ...request, json });
    assertEquals(JSON.parse(formatAnswer("1", json)), { t: "re", id: "1", ok: true, ...(json && { data }) });
  }
  const long = formatFrame({ t: "auth", token: "", id: "x".repeat(65) });
  assertEquals(parseClientFrame(long), { t: "auth", token: "", id: "x".repeat(64) });
});

Deno.test("parseClientFrame leaves frames of types it does not know to newer clients", () => {
  for (const text of ['{"t":"new"}', '{"t":""}', '{"t":"__proto__"}', '{"t":"P"}']) {
    assertEquals(parseClientFrame(text), undefined);
  }
  assertEquals(parseClientFrame('{"t":"p","more":1}'), { t: "p" }, "and pass over fields they do not know");
});

const NO_FRAMES = [
  "",
  "{",
  "ping",
  "[]",
  '["p"]',
  "null",
  "1",
  '"p"',
  "{}",
  '{"t":1}',
  '{"T":"p"}',
  '{"t":null}',
];
const NO_CLIENT_FRAMES = [
  ...['{"t":"ack"}', '{"t":"ack","seq":"1"}', '{"t":"ack","seq":-1}', '{"t":"ack","seq":1.5}'],
  ...['{"t":"ack","seq":1e16}', '{"t":"auth"}', '{"t":"auth","token":7}', '{"__proto__":{"t":"p"}}'],
];

Deno.test("parseClientFrame refuses what is no frame, and says why in a sentence", () => {
  for (const text of [...NO_FRAMES, ...NO_CLIENT_FRAMES]) {
    const { message } = assertThrows(() => parseClientFrame(text), InvalidFrameError, "rame", text);
    assert(new TextEncoder().encode(message).length <= 123, "it fits into a Close frame");
  }
});

Deno.test("parseIdentityFrame reads the name out of the first frame", () => {
  assertEquals(parseIdentityFrame('{"user_name": "alice"}'), "alice");
  assertEquals(parseIdentityFrame('{"user_name":"Alice","more":1}', { fold: true }), "alice");
  for (const text of [...NO_FRAMES, '{"username":"alice"}', '{"__proto__":{"user_name":"alice"}}']) {
    assertThrows(() => parseIdentityFrame(text), InvalidFrameError);
  }
  for (const text of ['{"user_name":7}', '{"user_name":null}', '{"user_name":"a b"}', '{"user_name":""}']) {
    assertThrows(() => parseIdentityFrame(text), InvalidUsernameError);
  }
});

Deno.test("no text makes a parser throw anything but its own errors", () => {
  const parsers = [parseClientFrame, (text: string) => parseIdentityFrame(text)];
  const frameLike = fc.dictionary(
    fc.constantFrom("t", "seq", "token", "user_name", "__proto__", "data"),
    fc.oneof(fc.jsonValue(), fc.constantFrom("p", "ack", "auth", "m", "bye")),
  ).map((value) => JSON.stringify(value));
  const deep = fc.constantFrom(
    "[".repeat(100_000),
    '{"t":'.repeat(50_000),
    `{"t":"p","x":${"[".repeat(50_000)}`,
  );
  fc.assert(fc.property(fc.oneof(anyText(), jsonText, frameLike, deep), (text) => {
    for (const parse of parsers) {
      try {
        parse(text);
      } catch (error) {
        assert(error instanceof InvalidFrameError || error instanceof InvalidUsernameError, String(error));
      }
    }
  }));
});

// ---------------------------------------------------------------------------------------------------------
// Subprotocols and close codes

Deno.test("parseOffer reads the header with and without spaces", () => {
  assertEquals(parseOffer(null), []);
  assertEquals(parseOffer(""), []);
  assertEquals(parseOffer("userwire.v1"), ["userwire.v1"]);
  const wanted = ["userwire.v1", "userwire.bearer.abc"];
  for (const between of [",", ", ", " ,", "\t,  ", ",,", ", ,"]) {
    assertEquals(parseOffer(` ${wanted.join(between)} `), wanted);
  }
});

Deno.test("shouldReconnect says stop for 1000 and 44xx, and come back for everything else", () => {
  const stop = Array.from({ length: 5_000 }, (_, code) => code).filter((code) => !shouldReconnect(code));
  assertEquals(stop, [1000, ...Array.from({ length: 100 }, (_, i) => 4400 + i)]);
});

Deno.test("CLOSE holds codes that may be sent, with one meaning each and words that fit", () => {
  const reasons: CloseReason[] = Object.values(CLOSE);
  assertEquals(new Set(reasons.map(({ reason }) => reason)).size, reasons.length);
  for (const { code, reason } of reasons) {
    assert([1001, 1009, 1012, 1013].includes(code) || (code >= 4400 && code < 4600), String(code));
    assert(new TextEncoder().encode(reason).length <= 123);
  }
  const comesBack = Object.entries<CloseReason>(CLOSE).filter(([, { code }]) => shouldReconnect(code));
  assertEquals(
    comesBack.map(([name]) => name),
    ["restart", "outlived", "tooBig", "overloaded", "slow"],
  );
});
