/**
 * Tables of bad input: each case gets a clear answer, and the service goes on serving others.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { RawSocket } from "./raw_socket.ts";
import { Service } from "./service.ts";
import { openClient } from "./ws_client.ts";

/** What a request got. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** The problem it should get. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  /** What the detail must say. */
  readonly says: RegExp;
}

/**
 * Declares a test of many cases on one service, which must serve somebody else after each, hold no socket when the
 * case has let go of its own, and log no error.
 * @param options.env Settings of the service.
 */
export function eachCase<Case>(
  claim: string,
  cases: Readonly<Record<string, Case>>,
  options: { env?: Record<string, string>; body(service: Service, wanted: Case): Promise<void> },
): void {
  Deno.test(claim, async (t) => {
    await using service = await Service.start(options.env);
    for (const [what, wanted] of Object.entries(cases)) {
      await t.step(what, async () => {
        await options.body(service, wanted);
        await assertServes(service);
        await service.isEmpty();
      });
    }
    assertEquals(service.log.records.filter(({ level }) => level === "error"), []);
  });
}

/** Fails unless a user can connect and be sent to. */
export async function assertServes(service: Service): Promise<void> {
  const user = `bystander-${crypto.randomUUID()}`;
  await using client = await openClient(service.socketUrl(user));
  assertEquals((await service.send(user, "hello")).body.sockets, 1);
  assertEquals(await client.next(), "hello");
}

/** Fails unless the answer is this problem, told in a sentence. */
export function assertRefused({ status, headers, body }: Answer, wanted: Refusal): void {
  assertEquals([status, headers.get("content-type")], [wanted.status, "application/problem+json"], body);
  const problem = JSON.parse(body);
  assertEquals([problem.status, problem.code], [wanted.status, wanted.code], body);
  assertMatch(problem.detail, wanted.says);
  assert(!/\.ts\b|\n/.test(problem.detail), "no stack trace");
}

/** Sends any bytes and reads the answer. */
export async function ask(service: Service, request: string): Promise<Answer> {
  await using socket = await RawSocket.dial(service.server.url);
  socket.sendBytes(request);
  return await socket.readAnswer();
}
