/** `userwire webhook`, in this process: one command tries the other. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { secretBytes } from "../../src/protocol/signature.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { Service } from "../../testkit/service.ts";
import { SECRET, WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** `webhook listen` on a free port, and the settings that it asks for. */
async function listening(args: readonly string[] = []) {
  const io = new Terminal();
  const ended = io.run(["webhook", "listen", "--port", "0", ...args]);
  await io.until("USERWIRE_WEBHOOK_SECRETS=");
  const env = Object.fromEntries(
    [...io.stderr.matchAll(/^ {2}(USERWIRE_\w+)=(\S+)$/gm)].map(([, name, value]) => [name, value]),
  ) as Record<string, string>;
  return { io, ended, env };
}

Deno.test("webhook secret makes a secret, and another one each time", async () => {
  const [one, other] = [new Terminal(), new Terminal()];
  assertEquals([await one.run(["webhook", "secret"]), await other.run(["webhook", "secret"])], [0, 0]);
  assertEquals(secretBytes(one.stdout.trim())?.length, 32);
  assertEquals(one.stdout === other.stdout, false);
});

Deno.test("webhook listen prints who comes, as a service tells it with the settings it asks for", async () => {
  const { io, ended, env } = await listening();
  {
    await using service = await Service.start(env);
    await using _alice = await openClient(service.socketUrl("alice"));
    await io.until("users.changed  alice online\n");
  }
  const test = new Terminal();
  assertEquals(await test.run(["webhook", "test"], env), 0, test.stderr);
  assertMatch(test.stdout, /^taken: the backend answered 204 after \d+ ms\n$/);
  assertStringIncludes(io.stdout, "webhook.test  {}\n");
  const forger = new Terminal();
  assertEquals(await forger.run(["webhook", "test"], { ...env, USERWIRE_WEBHOOK_SECRETS: SECRET }), 1);
  assertStringIncludes(forger.stderr, "refused: it answered 400");
  assertStringIncludes(io.stderr, "refused: No signature of the webhook fits a secret\n");
  io.interrupt();
  assertEquals(await ended, 0);
});

Deno.test("webhook test says what is missing, and what the backend did", async () => {
  const cases: [env: Record<string, string>, code: number, says: RegExp][] = [
    [{}, 2, /set USERWIRE_WEBHOOK_URL and USERWIRE_WEBHOOK_SECRETS/],
    [{ USERWIRE_WEBHOOK_URL: "http://127.0.0.1:1/" }, 2, /needs USERWIRE_WEBHOOK_SECRETS/],
    [{ USERWIRE_WEBHOOK_URL: "http://example.com/", USERWIRE_WEBHOOK_SECRETS: SECRET }, 2, /https:\/\/ URL/],
    [{ USERWIRE_WEBHOOK_URL: "https://example.com/", USERWIRE_WEBHOOK_SECRETS: "hunter2" }, 2, /whsec_/],
    [{ USERWIRE_WEBHOOK_URL: "http://127.0.0.1:1/", USERWIRE_WEBHOOK_SECRETS: SECRET }, 1, /failed: /],
  ];
  for (const [env, code, says] of cases) {
    const io = new Terminal();
    assertEquals(await io.run(["webhook", "test"], env), code, io.stderr);
    assertMatch(io.stderr, says);
    assertEquals(io.stderr.includes("hunter2"), false);
  }
  await using receiver = new WebhookReceiver();
  receiver.answer = () => new Response(null, { status: 500 });
  const io = new Terminal();
  assertEquals(await io.run(["webhook", "test"], receiver.env), 1);
  assertStringIncludes(io.stderr, "The webhook failed: it answered 500");
});
