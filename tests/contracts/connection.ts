/** What every way to connect as a framed client promises, whatever carries the frames: the same cases for each. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { CLOSED, tokenFor } from "../../testkit/closed.ts";
import { type Nodes, numbers, send, sendAll } from "../../testkit/nodes.ts";
import { Service } from "../../testkit/service.ts";

// deno-lint-ignore no-explicit-any -- tests look at whatever comes
export type AnyFrame = Record<string, any>;

export interface Connection extends AsyncDisposable {
  /** All frames that came but signs of life. */
  readonly frames: readonly AnyFrame[];
  until(isSo: () => boolean, what: string): Promise<void>;
  /** @param through The node that takes it, where that may be another than the one with the connection. */
  send(frame: AnyFrame, through: Service): Promise<void>;
  /** Resolves when the server has ended it. */
  ended(): Promise<void>;
}

export interface Asked {
  readonly user?: string;
  readonly token?: string;
  readonly resume?: string;
  readonly all?: string;
}

/** A way to connect. */
export interface Way {
  readonly name: string;
  open(service: Service, asked: Asked): Promise<Connection>;
  /** How a connection is refused. */
  refused(service: Service, asked: Asked): Promise<{ status: number; code: string }>;
}

function ofType(connection: Connection, type: string): AnyFrame[] {
  return connection.frames.filter(({ t }) => t === type);
}

async function next(connection: Connection, type: string): Promise<AnyFrame> {
  await connection.until(() => ofType(connection, type).length > 0, `a frame "${type}"`);
  return ofType(connection, type)[0]!;
}

async function messages(connection: Connection, count: number): Promise<AnyFrame[]> {
  await connection.until(() => ofType(connection, "m").length >= count, `${count} messages`);
  return ofType(connection, "m");
}

function placeOf({ pos, tag }: AnyFrame): string {
  return tag === undefined ? pos : `${pos}.${tag}`;
}

/** Of open nodes: what holds over any number of them. */
export async function keepsItsPromises(t: Deno.TestContext, way: Way, { here, there }: Nodes): Promise<void> {
  const { publisher } = there.server.app;

  await t.step(`${way.name}: greets, and brings every kind of payload in order`, async () => {
    await using alice = await way.open(here, { user: "alice" });
    assertEquals((await next(alice, "hi")).user, "alice");
    assertEquals(alice.frames[0]!.t, "hi");
    assertEquals(await publisher.count("alice"), 1);
    const payloads: [sent: Parameters<typeof publisher.send>[1], got: unknown][] = [
      [{ kind: "json", text: '{\r\n  "lines": [1,\n\r2],\r"text": "a\\nb\\u2028"\n}' }, {
        lines: [1, 2],
        text: "a\nb\u2028",
      }],
      [{ kind: "text", text: "data: x\n\nid: 7\r\n: ü \u0000" }, "data: x\n\nid: 7\r\n: ü \u0000"],
      [new Uint8Array([0, 255]), "AP8="],
      // Ends of lines to some, and to no reader of events.
      [{ kind: "json", text: '"a\u2028b\u2029c\u0085d"' }, "a\u2028b\u2029c\u0085d"],
    ];
    for (const [sent] of payloads) await publisher.send("alice", sent);
    const got = await messages(alice, payloads.length);
    assertEquals(got.map(({ data }) => data), payloads.map(([, data]) => data));
    assertEquals(got.map(({ seq }) => seq - got[0]!.seq), [...payloads.keys()]);
  });

  await t.step(`${way.name}: goes on exactly where it was, and tells what is missing`, async () => {
    let place: string;
    {
      await using alice = await way.open(here, { user: "alice" });
      place = placeOf(await next(alice, "hi"));
    }
    await sendAll(there, 1, 5);
    await using back = await way.open(there, { user: "alice", resume: place });
    assertEquals((await next(back, "hi")).resumed, true);
    const got = await messages(back, 5);
    assertEquals(got.map(({ data, r }) => [data, r]), numbers(1, 5).map((n) => [n, 1]));
    await send(here, 6);
    assertEquals((await messages(back, 6)).at(-1)!.data, 6);
    await sendAll(there, 7, 150); // a history has 100
    await using late = await way.open(here, { user: "alice", resume: place });
    const { from, to, count, why } = await next(late, "gap");
    assertEquals([to - from + 1, why], [count, "trimmed"]);
    assertEquals((await messages(late, 150 - count)).map(({ data }) => data), numbers(count + 1, 150));
  });

  await t.step(`${way.name}: is told of a gap when it lies about where it stands`, async () => {
    const { epoch, seq } = await send(here, 1);
    const other = await here.server.app.publisher.send("bob", "his");
    const lies = [`Zk3vQ9aB.${seq}`, `${epoch}.${seq + 1_000}.AAAAAAAA`, `${other.epoch}.${other.seq}`];
    for (const lie of lies) {
      await using alice = await way.open(here, { user: "alice", resume: lie });
      assertEquals((await next(alice, "hi")).resumed, false, lie);
      assertEquals([(await next(alice, "gap")).why, ofType(alice, "m").some(({ data }) => data === "his")], [
        "epoch",
        false,
      ]);
    }
    for (const lie of ["x", "", `${epoch}`, `${epoch}.1.2.3`, `${epoch}.-1`, "a.1,b.1,c.1", ","]) {
      const refusal = await way.refused(here, { user: "alice", resume: lie });
      assertEquals([refusal.status, refusal.code], [400, "invalid_handshake"], lie);
    }
  });

  await t.step(`${way.name}: acknowledges through any node`, async () => {
    await using alice = await way.open(here, { user: "alice" });
    await next(alice, "hi");
    const waiting = publisher.send("alice", "seen", { waitAckMs: 10_000 });
    const [{ seq, ack }] = await messages(alice, 1) as [AnyFrame];
    assertEquals(ack, 1);
    await alice.send({ t: "ack", seq }, there);
    assertEquals((await waiting).acked, 1);
    await alice.send({ t: "auth", token: "x", id: "7" }, there);
    assertMatch((await next(alice, "re")).err, /can't be verified here/);
  });

  await t.step(`${way.name}: gets broadcasts, and goes on among them`, async () => {
    await using alice = await way.open(here, { user: "alice" });
    const { all } = await next(alice, "hi");
    await publisher.broadcast("one");
    assertEquals((await next(alice, "b")).data, "one");
    await using late = await way.open(here, { user: "alice", all });
    const { data, r } = await next(late, "b");
    assertEquals([data, r], ["one", 1]);
  });

  await t.step(`${way.name}: is counted, limited and kicked`, async () => {
    const all = [];
    for (const _ of numbers(1, 3)) all.push(await way.open(here, { user: "carol" }));
    for (const one of all) await next(one, "hi");
    assertEquals(await publisher.count("carol"), publisher.counted === "sockets" ? 3 : 1);
    const refusal = await way.refused(here, { user: "carol" });
    assertEquals([refusal.status, refusal.code], [429, "too_many_connections"]);
    const closed = await there.fetch("/v1/users/carol/connections", { method: "DELETE" });
    assertEquals(closed.status, 200);
    await closed.body?.cancel();
    for (const one of all) {
      const { code, why } = await next(one, "bye");
      assertEquals([code, why], [4403, "kicked"]);
      await one.ended();
    }
    await until(async () => await publisher.count("carol") === 0, "carol to be counted no more");
  });
}

/** Settings of the nodes for `keepsItsPromises`. */
export const PROMISES_ENV = { USERWIRE_MAX_CONNECTIONS_PER_USER: "3" };

/** In closed mode, and at the end. */
export async function obeys(t: Deno.TestContext, way: Way): Promise<void> {
  await using service = await Service.start(CLOSED);
  const { auth } = service.server.app;

  await t.step(`${way.name}: shows a token, renews it, and is revoked`, async () => {
    await using alice = await way.open(service, { token: await tokenFor("alice", { lifeS: 60 }) });
    const { exp, user } = await next(alice, "hi");
    assertEquals(user, "alice");
    await alice.send({ t: "auth", token: await tokenFor("alice", { lifeS: 600 }), id: "1" }, service);
    const { ok, data } = await next(alice, "re");
    assert(ok && data.exp > exp, `${ok}, ${JSON.stringify(data)}`);
    await auth.revoke("alice", "now");
    assertEquals((await next(alice, "bye")).why, "revoked");
    await alice.ended();
  });

  await t.step(`${way.name}: is refused without what lets in`, async () => {
    const old = await tokenFor("alice", { lifeS: -60 });
    const asked: [Asked, number][] = [[{}, 401], [{ user: "bob" }, 401], [{ token: "x.y.z" }, 401], [
      { token: old },
      401,
    ], [{ token: await tokenFor("bob"), user: "carol" }, 403]];
    for (const [one, status] of asked) assertEquals((await way.refused(service, one)).status, status);
  });

  await t.step(`${way.name}: is closed when a fresh token is for another user`, async () => {
    await using bob = await way.open(service, { token: await tokenFor("bob") });
    await next(bob, "hi");
    await bob.send({ t: "auth", token: await tokenFor("carol"), id: "1" }, service);
    assertEquals((await next(bob, "re")).ok, false);
    assertEquals((await next(bob, "bye")).code, 4403);
    await bob.ended();
  });

  await t.step(`${way.name}: is sent away when the node ends`, async () => {
    await using bob = await way.open(service, { token: await tokenFor("bob") });
    await next(bob, "hi");
    const ending = service.server.shutdown();
    const { code, retry_ms } = await next(bob, "bye");
    assertEquals(code, 1012);
    assertNotEquals(retry_ms, undefined);
    await bob.ended();
    await ending;
    assertEquals(service.logged("connection closed").at(-1)!.fields.code, 1012);
  });
}
