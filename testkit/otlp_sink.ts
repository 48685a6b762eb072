/** A small backend of OpenTelemetry: takes what a process exports as OTLP in JSON, and keeps the spans. */
import { Bell } from "./deadline.ts";

/** A span, as far as tests look at it. */
export interface Span {
  readonly scope: string;
  readonly name: string;
  readonly traceId: string;
  readonly parentSpanId: string;
  /** 5 is CONSUMER. */
  readonly kind: number;
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly attributes: Readonly<Record<string, unknown>>;
}

interface Exported {
  resourceSpans: {
    scopeSpans: {
      scope: { name: string };
      spans: (Omit<Span, "scope" | "attributes"> & {
        attributes: { key: string; value: Record<string, unknown> }[];
      })[];
    }[];
  }[];
}

export class OtlpSink implements AsyncDisposable {
  /** All that have ended and were exported, in order. */
  readonly spans: Span[] = [];
  readonly #bell = new Bell();
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      (request) => this.#take(request),
    );
  }

  /** Settings of a process of Deno that exports to it, soon after each span. */
  get env(): Record<string, string> {
    return {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
      OTEL_BSP_SCHEDULE_DELAY: "10",
      OTEL_DENO_CONSOLE: "ignore",
    };
  }

  /** Spans of this scope. */
  of(scope: string): Span[] {
    return this.spans.filter((span) => span.scope === scope);
  }

  /** Resolves when the condition holds; asked whenever spans have come. */
  until(condition: () => boolean, what: string): Promise<void> {
    return this.#bell.until(condition, what, undefined, () => this.spans);
  }

  async #take(request: Request): Promise<Response> {
    const text = await request.text();
    if (new URL(request.url).pathname === "/v1/traces") this.#keep(JSON.parse(text));
    return Response.json({});
  }

  #keep({ resourceSpans }: Exported): void {
    for (const { scope, spans } of resourceSpans.flatMap(({ scopeSpans }) => scopeSpans)) {
      this.spans.push(...spans.map(({ attributes, ...span }) => ({
        ...span,
        scope: scope.name,
        attributes: Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]])),
      })));
    }
    this.#bell.ring();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
