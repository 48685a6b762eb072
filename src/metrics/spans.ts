/**
 * Spans of OpenTelemetry, for sends that are a part of a trace which is recorded: where Deno exports spans (`OTEL_DENO=true`),
 * each message that is written to a client is one, in the trace of its send and linked to it. Without such a parent there
 * is none.
 */
import { idOf, isEnvelope, traceParentIn } from "../protocol/envelope.ts";
import { sampledParent, type TraceParent } from "../protocol/trace_parent.ts";

type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** As in OpenTelemetry's API for JavaScript: what it rests on is built into Deno, so that no package is needed. */
interface Context {
  setValue(key: symbol, value: unknown): Context;
}

interface Telemetry {
  readonly tracer: {
    startSpan(
      name: string,
      options: {
        readonly kind: number;
        readonly links: readonly { readonly context: TraceParent }[];
        readonly attributes: Attributes;
      },
      context: Context,
    ): { end(): void };
  };
  readonly contexts: { active(): Context; with<Result>(context: Context, work: () => Result): Result };
}

const CONSUMER = 4;
/** Where a context has its span. */
const SPAN = Symbol.for("OpenTelemetry Context Key SPAN");

export class Spans {
  readonly #telemetry: Telemetry;

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
  }

  /** A message was written. @param message An envelope; no other payload has a parent. */
  delivered(message: string | Uint8Array, attributes: Attributes): void {
    if (typeof message !== "string" || !isEnvelope(message)) return;
    const traceParent = traceParentIn(message);
    const parent = traceParent === undefined ? undefined : sampledParent(traceParent);
    if (!parent) return;
    this.#telemetry.tracer.startSpan("deliver", {
      kind: CONSUMER,
      links: [{ context: parent }],
      attributes: {
        "messaging.system": "userwire",
        "messaging.operation.name": "deliver",
        "messaging.message.id": idOf(message),
        ...attributes,
      },
    }, this.#contextOf(parent)).end();
  }

  /** Does what makes spans of its own, such as Deno's `fetch`, as a part of that trace. */
  within<Result>(traceParent: string, work: () => Result): Result {
    const parent = sampledParent(traceParent);
    return parent ? this.#telemetry.contexts.with(this.#contextOf(parent), work) : work();
  }

  #contextOf(parent: TraceParent): Context {
    const spanContext = { ...parent, isRemote: true };
    return this.#telemetry.contexts.active().setValue(SPAN, { spanContext: () => spanContext });
  }
}

/** @param version Of this program. @returns Undefined where Deno exports no spans. */
export function openSpans(version: string): Spans | undefined {
  const { tracerProvider, contextManager: contexts } = Deno.telemetry;
  const tracer = tracerProvider.getTracer("userwire", version);
  try {
    // It throws where none are exported. One that does not end is never seen.
    tracer.startSpan("deliver");
  } catch {
    return undefined;
  }
  return new Spans({ tracer, contexts });
}
