/**
 * Bodies that are wrong, too large, of the wrong type, or not what their headers say. Each gets a clear answer, of
 * what is refused nothing is sent, and the process goes on serving others.
 */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ask, assertRefused, eachCase, type Refusal } from "../../testkit/bad_input.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

interface BadBody extends Partial<Refusal> {
  to?: string;
  /** Null sends none. @default "application/json" */
  type?: string | null;
  body: string | Uint8Array<ArrayBuffer>;
  encoding?: string;
  /** Whether its length is not announced. */
  isChunked?: boolean;
  /** The status; where it is a problem, `code` and `says` are given too. */
  status: number;
}

const SEND = "/v1/users/alice/messages";
const BATCH = "/v1/messages";
const ONLINE = "/v1/users/online";
const KIB_64 = 65_536;
const kib64 = (over = 0) => "x".repeat(KIB_64 + over);
const item = (rest: string) => `{"items":[{"to":"bob","data":1},${rest}]}`;
const notUtf8 = Uint8Array.of(0x22, 0xff, 0xfe, 0x22);
/** U+FFFD, which a sender may mean, beside a byte that is no UTF-8. */
const notQuiteUtf8 = Uint8Array.of(0x22, 0xef, 0xbf, 0xbd, 0xff, 0x22);
const deep = "[".repeat(100_000) + "]".repeat(100_000);

const message = { status: 400, code: "invalid_message" };
const request = { status: 400, code: "invalid_request" };
const mediaType = { status: 415, code: "unsupported_media_type" };
const tooLarge = { status: 413, code: "too_large" };

eachCase<BadBody>("A body gets a clear answer", {
  "that is not JSON": { ...message, body: "{order:7}", says: /not JSON/ },
  "that is cut off": { ...message, body: '{"order":', says: /not JSON/ },
  "that begins with a byte order mark": { ...message, body: "\ufeff{}", says: /not JSON/ },
  "that is empty": { ...message, body: "", says: /is empty/ },
  "that is empty text": { ...message, body: "", type: "text/plain", says: /is empty/ },
  "that is no UTF-8 JSON": { ...message, body: notUtf8, says: /UTF-8/ },
  "that is no UTF-8 text": { ...message, body: notUtf8, type: "text/plain", says: /UTF-8/ },
  "that is no UTF-8 and has a replacement character": { ...message, body: notQuiteUtf8, says: /UTF-8/ },
  "that has a replacement character": { status: 202, body: '"\ufffd"' },
  "of any bytes as bytes": { status: 202, body: notUtf8, type: "application/octet-stream" },
  "of bytes, whose charset means nothing": {
    status: 202,
    body: notUtf8,
    type: "application/octet-stream; charset=latin1",
  },
  "of exactly 64 KiB": { status: 202, body: kib64(), type: "text/plain" },
  "of exactly 64 KiB, length unknown": { status: 202, body: kib64(), type: "text/plain", isChunked: true },
  "of 64 KiB + 1": {
    ...tooLarge,
    body: kib64(1),
    type: "text/plain",
    says: /at most 65536 bytes: it has 65537; .*USERWIRE_MAX_BODY_BYTES/,
  },
  "of 64 KiB + 1, length unknown": {
    ...tooLarge,
    body: kib64(1),
    type: "text/plain",
    isChunked: true,
    says: /at most 65536 bytes: it has more; .*USERWIRE_MAX_BODY_BYTES/,
  },
  "of 20 MiB, length unknown": {
    ...tooLarge,
    body: new Uint8Array(20 * 1024 ** 2),
    type: "application/octet-stream",
    isChunked: true,
    says: /at most 65536 bytes: it has more; .*USERWIRE_MAX_BODY_BYTES/,
  },
  "of no type": { ...mediaType, body: "1", type: null, says: /no Content-Type/ },
  "of an empty type": { ...mediaType, body: "1", type: " ", says: /content type/i },
  "of a type that can't be sent": { ...mediaType, body: "1", type: "text/html", says: /"text\/html"/ },
  "of a form": {
    ...mediaType,
    body: "a=1",
    type: "application/x-www-form-urlencoded",
    says: /use application\/json/,
  },
  "of another charset": {
    ...mediaType,
    body: "1",
    type: "text/plain; charset=latin1",
    says: /"latin1".*UTF-8/,
  },
  "of UTF-8 by another name": { status: 202, body: "1", type: "text/plain; charset=utf8" },
  "of ASCII": { status: 202, body: "1", type: "application/json;charset=us-ascii" },
  "that is compressed": { ...mediaType, body: "1", encoding: "gzip", says: /"gzip" is not decoded/ },
  "that is encoded as it is": { status: 202, body: "1", encoding: "identity" },
  "of a batch that is compressed": {
    ...mediaType,
    to: BATCH,
    body: item("1"),
    encoding: "br",
    says: /"br" is not decoded/,
  },
  "of a batch of another charset": {
    ...mediaType,
    to: BATCH,
    body: item("1"),
    type: "application/json; charset=utf-16",
    says: /"utf-16".*UTF-8/,
  },
  "of a batch of UTF-8 by another name": {
    status: 200,
    to: BATCH,
    body: '{"items":[{"to":"carol","data":1}]}',
    type: "application/json; charset=utf8",
  },
  "of a ticket whose time is written as 3e1": {
    status: 201,
    to: "/v1/tickets",
    body: '{"user":"alice","ttl":3e1}',
  },
  "of a ticket that nests very deeply": {
    ...message,
    to: "/v1/tickets",
    body: `{"user":${"[".repeat(5_000)}${"]".repeat(5_000)}}`,
    says: /nests too deeply/,
  },

  "of a batch that is not JSON": { ...message, to: BATCH, body: "items", says: /not JSON/ },
  "of a batch that is empty": { ...message, to: BATCH, body: "", says: /not JSON/ },
  "of a batch of another type": {
    ...mediaType,
    to: BATCH,
    body: item("1"),
    type: "text/plain",
    says: /"text\/plain"/,
  },
  "of a batch of no type": { ...mediaType, to: BATCH, body: item("1"), type: null, says: /no Content-Type/ },
  "of a batch that is no object": { ...request, to: BATCH, body: "[]", says: /object/ },
  "of a batch without items": { ...request, to: BATCH, body: "{}", says: /items/ },
  "of a batch with no item": { ...request, to: BATCH, body: '{"items":[]}', says: /items/ },
  "of a batch with too many items": {
    ...request,
    to: BATCH,
    body: JSON.stringify({ items: Array.from({ length: 1_001 }, () => ({ to: "a", data: 1 })) }),
    says: /items/,
  },
  "of a batch with an unknown field": {
    ...request,
    to: BATCH,
    body: '{"items":[{"to":"bob","data":1}],"dry_run":1}',
    says: /dry_run/,
  },
  "of a batch with an unknown field in an item": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","data":1,"priority":5}'),
    says: /items\[1\].*priority/,
  },
  "of a batch without a recipient": {
    ...request,
    to: BATCH,
    body: item('{"data":1}'),
    says: /items\[1\]\.to/,
  },
  "of a batch to a number": {
    ...request,
    to: BATCH,
    body: item('{"to":7,"data":1}'),
    says: /\.to: must be a username/,
  },
  "of a batch to an empty list": {
    ...request,
    to: BATCH,
    body: item('{"to":[],"data":1}'),
    says: /items\[1\]\.to/,
  },
  "of a batch without data": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob"}'),
    says: /items\[1\]\.data: is missing/,
  },
  "of a batch with two payloads in an item": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","data":1,"text":"x"}'),
    says: /items\[1\]\.text: can't stand beside "data"/,
  },
  "of a batch with bytes that are no base64": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","base64":"€"}'),
    says: /items\[1\]\.base64: is not base64/,
  },
  "of a batch with a time that is none": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","data":1,"ttl":0}'),
    says: /items\[1\]\.ttl/,
  },
  "of a batch with another expectation": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","data":1,"expect":"offline"}'),
    says: /items\[1\]\.expect/,
  },
  "of a batch with an item that is none": {
    ...request,
    to: BATCH,
    body: item("7"),
    says: /items\[1\]: must be an object/,
  },
  "of a batch with a thousand fields in an item": {
    ...request,
    to: BATCH,
    body: item(`{${Array.from({ length: 1_000 }, (_, i) => `"f${i}":1`)}}`),
    says: /items\[1\]: has too many fields/,
  },
  "of a batch with a bad id": {
    ...request,
    to: BATCH,
    body: item('{"to":"bob","data":1,"id":"a b"}'),
    says: /items\[1\]\.id/,
  },
  "of a batch to a bad username": {
    status: 400,
    code: "invalid_username",
    to: BATCH,
    body: item('{"to":["bob","a b"],"data":1}'),
    says: /items\[1\]\.to.*white space/,
  },
  "of a batch with large data": {
    ...tooLarge,
    to: BATCH,
    body: item(`{"to":"bob","data":"${kib64(-1)}"}`),
    says: /items\[1\]\.data.*65536/,
  },
  "of a batch to more than 10,000": {
    ...tooLarge,
    to: BATCH,
    body: JSON.stringify({
      items: Array.from(
        { length: 11 },
        () => ({ to: Array.from({ length: 1_000 }, (_, i) => `${i}`), data: 1 }),
      ),
    }),
    says: /at most 10000 users: this one names 11000/,
  },
  "of a batch of more than 4 MiB": {
    ...tooLarge,
    to: BATCH,
    body: " ".repeat(4 * 1024 ** 2 + 1),
    says: /at most 4194304 bytes: it has 4194305; send less/,
  },
  "of a batch that nests very deeply": {
    ...tooLarge,
    to: BATCH,
    body: item(`{"to":"bob","data":${deep}}`),
    says: /data/,
  },
  "of a batch that nests very deeply around a long number": {
    ...tooLarge,
    to: BATCH,
    body: item(`{"to":"bob","data":[1e400,${deep}]}`),
    says: /data/,
  },

  "of a question that is not JSON": { ...message, to: ONLINE, body: "alice", says: /not JSON/ },
  "of a question with an unknown field": {
    ...request,
    to: ONLINE,
    body: '{"users":[],"all":true}',
    says: /all/,
  },
  "of a question without users": { ...request, to: ONLINE, body: "{}", says: /users/ },
  "of a question that nests very deeply": {
    ...message,
    to: ONLINE,
    body: `{"users":${deep}}`,
    says: /nests too deeply/,
  },
  "of a question of too many values": {
    ...message,
    to: ONLINE,
    body: `{"users":[${"1,".repeat(50_000)}1]}`,
    says: /more values/,
  },
  "of a question for one user": { ...request, to: ONLINE, body: '{"users":"alice"}', says: /users/ },
  "of a question for a number": { ...request, to: ONLINE, body: '{"users":["a",7]}', says: /users\[1\]/ },
  "of a question for a bad name": {
    status: 400,
    code: "invalid_username",
    to: ONLINE,
    body: '{"users":["alice","a b"]}',
    says: /white space/,
  },
  "of a question for 10,001 users": {
    ...request,
    to: ONLINE,
    body: JSON.stringify({ users: Array.from({ length: 10_001 }, (_, i) => `${i}`) }),
    says: /users/,
  },
  "of a question that names __proto__ as a field": {
    ...request,
    to: ONLINE,
    body: '{"users":[],"__proto__":{"users":[]}}',
    says: /__proto__/,
  },
}, {
  async body(service, wanted) {
    const { to = SEND, type = "application/json", encoding, body, isChunked, status, code, says } = wanted;
    await using bob = await openClient(service.socketUrl("bob"));
    // As bytes, since fetch sets a type of its own for text.
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
    const response = await service.fetch(to, {
      method: "POST",
      headers: {
        ...(type !== null && { "content-type": type }),
        ...(encoding !== undefined && { "content-encoding": encoding }),
      },
      body: isChunked ? new Blob([bytes]).stream() : bytes,
    });
    const text = await response.text();
    if (code === undefined || says === undefined) return assertEquals(response.status, status, text);
    assertRefused({ status: response.status, headers: response.headers, body: text }, { status, code, says });
    assertEquals((await service.send("bob", "after")).body.sockets, 1);
    assertEquals(await bob.next(), "after", "of what is refused, nothing is sent");
  },
});

eachCase<string>("A body that is not what its headers say gets an answer or an end", {
  "length and chunks at once": "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
  "two lengths": "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
  "a negative length": "Content-Length: -1\r\n\r\n",
  "a length beyond all numbers": "Content-Length: 99999999999999999999\r\n\r\n",
  "a length that is announced and too large": "Content-Length: 65537\r\n\r\n",
  "a transfer coding that nobody decodes": "Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}, {
  async body(service, rest) {
    const head = `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n`;
    const { status } = await ask(service, head + rest);
    assertEquals(status, rest.includes("65537") ? 413 : rest.includes("gzip") ? 415 : 400);
  },
});

Deno.test("A body that does not come to its end in time is answered 408", async () => {
  await using service = await Service.start({ USERWIRE_BODY_TIMEOUT_S: "1" });
  for (const [rest, part] of [["Content-Length: 100", "ab"], ["Transfer-Encoding: chunked", "5\r\nab"]]) {
    await using socket = await RawSocket.dial(service.server.url);
    socket.sendBytes(
      `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n${rest}\r\n\r\n${part}`,
    );
    const { status, body } = await socket.readAnswer();
    assertEquals(status, 408, body);
  }
});

Deno.test("What follows a body that was too slow is no request", async () => {
  await using service = await Service.start({ USERWIRE_BODY_TIMEOUT_S: "1" });
  await using alice = await openClient(service.socketUrl("alice"));
  const head = `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n`;
  const smuggled = `${head}Content-Length: 8\r\n\r\nsmuggled`;
  const rests: [headers: string, part: string, rest: string][] = [
    // To the end that was announced, and at once.
    ["Content-Length: 10", "ab", "cdefghij"],
    ["Content-Length: 10", "ab", ""],
    ["Transfer-Encoding: chunked", "5\r\nab", "cde\r\n0\r\n\r\n"],
    ["Transfer-Encoding: chunked", "5\r\nabcde\r\n", ""],
  ];
  for (const [headers, part, rest] of rests) {
    await using socket = await RawSocket.dial(service.server.url);
    socket.sendBytes(`${head}${headers}\r\n\r\n${part}`);
    const answer = await socket.readAnswer();
    assertEquals(answer.status, 408, answer.body);
    assertMatch(answer.headers.get("connection")!, /close/);
    socket.sendBytes(rest + smuggled);
    // Whatever it takes this for, it hangs up without another answer.
    await socket.ended;
    await assertRejects(() => socket.readAnswer(), Error, "The connection ended");
  }
  assertEquals((await service.send("alice", "real")).body.sockets, 1);
  assertEquals(await alice.next(), "real", "alice got nothing else");
});

for (const target of [SEND, BATCH, ONLINE, "/v1/tickets"]) {
  Deno.test(`A client that leaves in the middle of a body of ${target} harms nobody, and is no fault`, async () => {
    await using service = await Service.start();
    const head = `POST ${target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;
    for (const rest of ["Content-Length: 100", "Transfer-Encoding: chunked"]) {
      for (const leave of ["reset", "fin"]) {
        const before = service.logged("request not answered").length;
        const socket = await RawSocket.dial(service.server.url);
        socket.sendBytes(`${head}${rest}\r\n\r\n5\r\nab`);
        assertEquals((await service.send("alice", "meanwhile")).status, 202);
        await (leave === "reset" ? socket.reset() : socket.closeAbruptly());
        await until(
          () => service.logged("request not answered").length > before,
          `the service to notice a ${leave} after ${rest}`,
        );
      }
    }
    assertEquals((await service.send("alice", "after")).status, 202);
    const loud = service.log.records.filter(({ level }) => level === "error" || level === "warn");
    assertEquals(
      loud.filter(({ event }) => !event.startsWith("broker in memory") && !event.startsWith("open mode")),
      [],
    );
  });
}

Deno.test("A shutdown in the middle of bodies logs no error", async () => {
  await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "0" });
  const sockets: RawSocket[] = [];
  try {
    for (const rest of ["Content-Length: 100", "Transfer-Encoding: chunked"]) {
      const socket = await RawSocket.dial(service.url);
      sockets.push(socket);
      socket.sendBytes(
        `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n${rest}\r\n\r\n5\r\nab`,
      );
    }
    // Answered after theirs had begun.
    assertEquals((await (await fetch(new URL("/healthz", service.url))).json()).status, "ok");
    service.signal("SIGTERM");
    assertEquals((await service.ended()).code, 0);
  } finally {
    for (const socket of sockets) await socket.reset();
  }
  assertEquals(service.records.filter(({ level }) => level === "error" || level === "ERROR"), []);
  assertEquals(service.otherText, "");
});
