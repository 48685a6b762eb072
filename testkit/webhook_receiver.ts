/**
 * The backend's side of webhooks: verifies each, keeps what it says, and answers as the test wants. Its table of who is
 * online is kept by the receiver's rules alone.
 */
import { verifyWebhook, type WebhookBody } from "../src/protocol/signature.ts";
import { Bell } from "./deadline.ts";

export const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

export interface Received extends WebhookBody {
  readonly id: string;
  readonly headers: Headers;
}

type Answer = (request: Request, received: Received) => Response | Promise<Response>;

export class WebhookReceiver implements AsyncDisposable {
  /** All that was verified, in the order in which it came, whatever was answered. */
  readonly received: Received[] = [];
  /** The same as it came. */
  readonly bodies: string[] = [];
  /** Who is online, and the last `n` of each, of what was answered with 2xx. */
  readonly table = new Map<string, { online: boolean; n: number }>();
  /** How often something came that could not be verified. */
  forged = 0;
  /** How many changes went into the table. */
  changes = 0;
  /** How often it was told that something is unknown, and the last `n` of that. */
  unknown = 0;
  unknownN = 0;
  answer: Answer = () => new Response(null, { status: 204 });
  /** Answers nothing for as long as this backend is there. */
  readonly hang: Answer = () => this.#over.promise;
  readonly #over = Promise.withResolvers<Response>();
  readonly #bell = new Bell();
  readonly #secrets: readonly string[];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(secrets: readonly string[] = [SECRET], port = 0) {
    this.#secrets = secrets;
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port, onListen() {} },
      (request) => this.#handle(request),
    );
  }

  get port(): number {
    return this.#server.addr.port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/hooks`;
  }

  /** Settings of a service that tells this backend. */
  get env(): Record<string, string> {
    return { USERWIRE_WEBHOOK_URL: this.url, USERWIRE_WEBHOOK_SECRETS: this.#secrets[0]! };
  }

  online(): string[] {
    return [...this.table].filter(([, { online }]) => online).map(([user]) => user).sort();
  }

  /** Changes of a user, in the order of arrival. */
  changesOf(user: string): boolean[] {
    return this.received.flatMap(({ data }) => changesIn(data)).filter((change) => change.user === user)
      .map(({ online }) => online);
  }

  /** Messages that nobody has acknowledged. */
  unacked(): Received[] {
    return this.received.filter(({ type }) => type === "message.unacked");
  }

  async until(isSo: () => boolean, what: string, limitMs?: number): Promise<void> {
    await this.#bell.until(isSo, what, limitMs, () => {
      const came = this.received.map(({ type, data }) => `${type} ${JSON.stringify(data)}`);
      return `${came.length} came, and ${this.forged} forged ones: ${came.join(", ")}`;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.resolve(new Response());
    await this.#server.shutdown();
  }

  async #handle(request: Request): Promise<Response> {
    let received: Received;
    try {
      const text = await request.text();
      const body = await verifyWebhook(request.headers, text, this.#secrets);
      this.bodies.push(text);
      received = { ...body, id: request.headers.get("webhook-id")!, headers: request.headers };
    } catch {
      this.forged++;
      return new Response("forged", { status: 400 });
    }
    this.received.push(received);
    this.#bell.ring();
    const response = await this.answer(request, received);
    if (response.ok) this.#learn(received);
    this.#bell.ring();
    return response;
  }

  #learn({ type, data }: Received): void {
    if (type === "users.unknown") {
      this.unknown++;
      const { n } = data as { n: number };
      this.unknownN = Math.max(n, this.unknownN);
      for (const [user, last] of this.table) if (n > last.n) this.table.set(user, { online: false, n });
    }
    for (const { user, online, n } of changesIn(data)) {
      if (n <= (this.table.get(user)?.n ?? this.unknownN)) continue;
      this.table.set(user, { online, n });
      this.changes++;
    }
  }
}

function changesIn(data: unknown): { user: string; online: boolean; n: number }[] {
  return (data as { changes?: { user: string; online: boolean; n: number }[] }).changes ?? [];
}
