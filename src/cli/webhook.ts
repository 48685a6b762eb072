/** `userwire webhook`: makes a secret, tries the backend that a service would tell of events, and stands in for one. */
import { type Command, InvalidArgumentError } from "commander";
import manifest from "../../deno.json" with { type: "json" };
import { readConfig } from "../config/settings.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { SECRET_FORM, secretBytes, verifyWebhook, type WebhookBody } from "../protocol/signature.ts";
import { Webhook } from "../webhooks/webhook.ts";
import { interruption, type Shell } from "./shell.ts";

interface ListenOptions {
  port: number;
  json?: true;
}

const SECRET_BYTES = 32;
const LISTEN_PORT = 9000;
const SETTINGS = "USERWIRE_WEBHOOK_URL and USERWIRE_WEBHOOK_SECRETS";

/** Adds the commands. */
export function addWebhook(program: Command, shell: Shell): void {
  const webhook = program.command("webhook").description(
    "Set up and try webhooks, which tell a backend of events",
  );
  webhook.command("secret")
    .description("Make a secret for USERWIRE_WEBHOOK_SECRETS")
    .action(() => shell.io.out(`${newSecret()}\n`));
  webhook.command("test")
    .description(`Send a webhook of the type webhook.test as the service would, by ${SETTINGS}`)
    .action(() => test(shell));
  webhook.command("listen")
    .description("Take webhooks, verify them by USERWIRE_WEBHOOK_SECRETS, and print them, until Ctrl+C")
    .option("--port <port>", "port to listen on, on 127.0.0.1; 0 takes a free one", parsePort, LISTEN_PORT)
    .option("--json", "print each webhook as one line of JSON")
    .addHelpText(
      "after",
      `
Without USERWIRE_WEBHOOK_SECRETS it makes a secret and says how to give it to the service.

Example:
  $ userwire webhook listen
  users.changed  alice online`,
    )
    .action((options: ListenOptions) => listen(shell, options));
}

async function test(shell: Shell): Promise<void> {
  const { config, faults } = readConfig({ env: shell.env });
  const { webhookUrl: url, webhookSecrets: secrets, webhookTimeoutMs: timeoutMs } = config;
  const concerns = faults.filter((fault) => fault.includes("WEBHOOK"));
  if (concerns.length > 0) throw new ConfigError(concerns);
  if (url === undefined || secrets === undefined) {
    throw new ConfigError([`There is nobody to tell: set ${SETTINGS}`]);
  }
  using webhook = new Webhook({ url, secrets, timeoutMs, userAgent: `userwire/${manifest.version}` });
  const startMs = performance.now();
  const delivery = await webhook.post({
    id: `evt_test_${crypto.randomUUID()}`,
    type: "webhook.test",
    atMs: Date.now(),
    data: "{}",
  });
  const tookMs = Math.round(performance.now() - startMs);
  if (delivery.outcome !== "delivered") {
    throw new Error(`The webhook ${delivery.outcome}: ${delivery.reason}`);
  }
  shell.io.out(`taken: the backend answered ${delivery.status} after ${tookMs} ms\n`);
}

async function listen({ env, io }: Shell, { port, json }: ListenOptions): Promise<void> {
  const secrets = (env.USERWIRE_WEBHOOK_SECRETS ?? "").split(",").map((one) => one.trim()).filter((one) =>
    one
  );
  if (!secrets.every((secret) => secretBytes(secret))) {
    throw new ConfigError([`USERWIRE_WEBHOOK_SECRETS must be one or two secrets, each ${SECRET_FORM}`]);
  }
  const isOwn = secrets.length === 0;
  if (isOwn) secrets.push(newSecret());
  using interrupt = interruption(io);
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port,
    signal: interrupt.signal,
    onListen: (addr) => {
      const lines = [
        `listening for webhooks; the service needs`,
        `  USERWIRE_WEBHOOK_URL=http://127.0.0.1:${addr.port}/`,
      ];
      if (isOwn) lines.push(`  USERWIRE_WEBHOOK_SECRETS=${secrets[0]}`);
      io.err(lines.map((line) => `${line}\n`).join(""));
    },
    onError: (error) => new Response(messageOf(error), { status: 500 }),
  }, async (request) => {
    if (request.method !== "POST") return new Response("Webhooks are POSTed\n", { status: 405 });
    try {
      const body = await verifyWebhook(request.headers, await request.text(), secrets);
      const id = request.headers.get("webhook-id")!;
      io.out(json ? `${JSON.stringify({ id, ...body })}\n` : inWords(body));
      return new Response(null, { status: 204 });
    } catch (error) {
      io.err(`refused: ${messageOf(error)}\n`);
      return new Response(`${messageOf(error)}\n`, { status: 400 });
    }
  });
  await server.finished;
}

function inWords({ type, data }: WebhookBody): string {
  const { changes, user, op, data: given } = data as {
    changes?: { user: string; online: boolean }[];
    user?: string;
    op?: string;
    data?: unknown;
  };
  if (op !== undefined) return `${type}  ${user} ${op} ${JSON.stringify(given) ?? ""}\n`;
  if (!changes) return `${type}  ${JSON.stringify(data)}\n`;
  return changes.map(({ user, online }) => `${type}  ${user} ${online ? "online" : "offline"}\n`).join("");
}

function newSecret(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  return `whsec_${btoa(String.fromCharCode(...bytes))}`;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65_535) {
    throw new InvalidArgumentError("It must be a port from 0 to 65535");
  }
  return port;
}
