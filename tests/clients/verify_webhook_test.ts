/** What the clients for backends make of webhooks that are signed, changed, old, or of somebody else. */
import { assertEquals, assertInstanceOf } from "@std/assert";
import { fileURLToPath } from "node:url";
import { verifyWebhook, WebhookVerificationError } from "../../clients/npm/server.ts";
import { sign } from "../../src/protocol/signature.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { findPhp, hasPythonWebsockets, PYTHON } from "../../testkit/programs.ts";
import { SECRET } from "../../testkit/webhook_receiver.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const OTHER = `whsec_${btoa("another secret of 32 random byte")}`;
const php = findPhp();

const PYTHON_CHECK = `
import json, sys
sys.path.insert(0, ${JSON.stringify(`${ROOT}clients/python`)})
import userwire
for headers, body, secrets in json.load(sys.stdin):
    try:
        print(userwire.verify_webhook(headers, body, secrets)["type"])
    except userwire.Error as error:
        print("refused")
`;
const PHP_CHECK = `
require '${ROOT}clients/php/Userwire.php';
foreach (json_decode(stream_get_contents(STDIN), true) as [$headers, $body, $secrets]) {
    try { echo Userwire::verifyWebhook($headers, $body, $secrets)['type'], "\\n"; }
    catch (RuntimeException $error) { echo "refused\\n"; }
}
`;

type Case = readonly [headers: Record<string, string>, body: string, secrets: string | string[]];

async function cases(): Promise<[Case, expected: string][]> {
  const body =
    '{"type":"users.changed","timestamp":"t","data":{"changes":[{"user":"Zoë","online":true,"n":1}]}}';
  const nowS = Math.floor(Date.now() / 1_000);
  const headers = async (secrets: string[], timestampS = nowS) => ({
    "Webhook-Id": "evt_1",
    "webhook-timestamp": String(timestampS),
    "webhook-signature": await sign(secrets, "evt_1", timestampS, body),
  });
  const good = await headers([SECRET]);
  return [
    [[good, body, SECRET], "users.changed"],
    [[good, body, [OTHER, SECRET]], "users.changed"],
    [[await headers([OTHER, SECRET]), body, SECRET], "users.changed"],
    [[good, `${body} `, SECRET], "refused"],
    [[good, body, OTHER], "refused"],
    [[{ ...good, "Webhook-Id": "evt_2" }, body, SECRET], "refused"],
    [[{ ...good, "webhook-timestamp": "soon" }, body, SECRET], "refused"],
    [[await headers([SECRET], nowS - 3_600), body, SECRET], "refused"],
    [[await headers([SECRET], nowS + 3_600), body, SECRET], "refused"],
    [[{ "webhook-id": "evt_1" }, body, SECRET], "refused"],
    [[{ ...good, "webhook-signature": "" }, body, SECRET], "refused"],
  ];
}

async function outputOf(command: string, args: string[]): Promise<string[]> {
  const child = new Deno.Command(command, { args, stdin: "piped", stdout: "piped", stderr: "inherit" })
    .spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify((await cases()).map(([given]) => given))));
  await writer.close();
  const { stdout } = await withDeadline(child.output(), 30_000, `${command} to end`);
  return new TextDecoder().decode(stdout).trim().split("\n");
}

Deno.test("userwire/server verifies webhooks, with the headers of fetch and with those of Node", async () => {
  for (const [[headers, body, secrets], expected] of await cases()) {
    const lower = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
    );
    for (const given of [new Headers(headers), lower]) {
      const said = await verifyWebhook(given, body, secrets).then(({ type }) => type, (error) => {
        assertInstanceOf(error, WebhookVerificationError);
        return "refused";
      });
      assertEquals(said, expected);
    }
  }
});

Deno.test({
  name: "The Python client verifies webhooks",
  ignore: !hasPythonWebsockets(),
  async fn() {
    assertEquals(
      await outputOf(PYTHON, ["-c", PYTHON_CHECK]),
      (await cases()).map(([, expected]) => expected),
    );
  },
});

Deno.test({
  name: "The PHP client verifies webhooks",
  ignore: php === undefined,
  async fn() {
    assertEquals(await outputOf(php!, ["-r", PHP_CHECK]), (await cases()).map(([, expected]) => expected));
  },
});
