/**
 * The wire without I/O: what writing and reading an envelope cost. The baselines are what a service without
 * envelopes would do: `JSON.stringify` on the way in, `JSON.parse` and `JSON.stringify` on the way out.
 *
 * The engine puts off the work of joining and slicing strings until their characters are needed, which is when they
 * are encoded for Redis or for the socket. So the figures end with that encoding, in every row.
 */
import {
  formatEnvelope,
  frameOf,
  isEnvelope,
  orderOf,
  type Payload,
  payloadOf,
  replayFrameOf,
  seqOf,
  tagIn,
  withSeq,
} from "../src/protocol/envelope.ts";
import { parseClientFrame } from "../src/protocol/frames.ts";
import { parseUsername } from "../src/protocol/username.ts";
import { Sink } from "./sink.ts";

const TAG = "Zk3vx3Fq";
const sink = new Sink();
const encoder = new TextEncoder();
const wire = new Uint8Array(64 * 1024);

/** What the socket does with a text frame. */
function encode(text: string): void {
  sink.take(encoder.encodeInto(text, wire).written);
}

const options = { id: "5f0c2f6e-6a4b-4a55-9f63-0a3d2f0f5b1e", ts: 1_795_000_000_000 };
const value = { order: 7, text: "x".repeat(100) };
const json: Payload = { kind: "json", text: JSON.stringify(value) };
const text: Payload = { kind: "text", text: value.text };
const binary: Payload = { kind: "binary", bytes: encoder.encode(value.text) };

// ---------------------------------------------------------------------------------------------------------
// Writing

const WRITING = "formatEnvelope, 120 bytes";
Deno.bench("JSON.stringify of a frame", { group: WRITING, baseline: true }, () => {
  encode(JSON.stringify({ t: "m", ...options, data: value }));
});
for (const payload of [json, text, binary]) {
  Deno.bench(`formatEnvelope of ${payload.kind}`, { group: WRITING }, () => {
    const { head, tail } = formatEnvelope(payload, options);
    encode(head + tail);
  });
}
Deno.bench("formatEnvelope of json with a receipt", { group: WRITING }, () => {
  const { head, tail } = formatEnvelope(json, { ...options, receipt: "node-1/42" });
  encode(head + tail);
});

// ---------------------------------------------------------------------------------------------------------
// Reading

for (const [size, data] of [["120 bytes", json.text], ["10,000 bytes", `"${"x".repeat(9_998)}"`]] as const) {
  const message = { id: options.id, ...formatEnvelope({ kind: "json", text: data }, options) };
  // Redis hands over flat strings, not ropes.
  const envelope = new TextDecoder().decode(encoder.encode(withSeq(message, 123_456, TAG)));
  const frame = frameOf(envelope);
  const group = `An envelope of ${size} to a socket`;

  Deno.bench("JSON.parse and JSON.stringify", { group, baseline: true }, () => {
    const { seq, ...rest } = JSON.parse(frame);
    sink.take(seq);
    encode(JSON.stringify({ seq, ...rest }));
  });
  Deno.bench("isEnvelope, orderOf, seqOf, tagIn, frameOf: framed", { group }, () => {
    sink.take(isEnvelope(envelope));
    sink.take(orderOf(envelope));
    sink.take(seqOf(envelope));
    sink.take(tagIn(envelope));
    encode(frameOf(envelope));
  });
  Deno.bench("replayFrameOf: framed, from the history", { group }, () => encode(replayFrameOf(envelope)));
  Deno.bench("payloadOf: raw", { group }, () => encode(payloadOf(envelope) as string));
}

const SEQ = "The sequence number of an envelope";
const envelope = withSeq(formatEnvelope(json, options), 123_456, TAG);
const frame = frameOf(envelope);
Deno.bench("JSON.parse", { group: SEQ, baseline: true }, () => sink.take(JSON.parse(frame).seq));
Deno.bench("seqOf", { group: SEQ }, () => sink.take(seqOf(envelope)));
Deno.bench("tagIn", { group: SEQ }, () => sink.take(tagIn(envelope)));

// ---------------------------------------------------------------------------------------------------------
// Frames of clients, usernames

const ACK = "A client's ack";
const ack = '{"t":"ack","seq":123456}';
Deno.bench("JSON.parse", { group: ACK, baseline: true }, () => sink.take(JSON.parse(ack)));
Deno.bench("parseClientFrame", { group: ACK }, () => sink.take(parseClientFrame(ack)));

const NAME = "A username is checked";
const simple = /^[\w.-]{1,128}$/;
Deno.bench("a regular expression for ASCII names", { group: NAME, baseline: true }, () => {
  sink.take(simple.test("alice"));
});
for (const name of ["alice", "grüße-an-zoë", "u".repeat(128), "用".repeat(42)]) {
  const label = name.length > 20 ? `${name[0]} × ${name.length}` : name;
  Deno.bench(`parseUsername, ${label}`, { group: NAME }, () => sink.take(parseUsername(name)));
}
