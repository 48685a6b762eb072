/**
 * The numbers of this node as they come, for the console: each stream begins with the last 15 minutes, and then gets what
 * each new sample says. They cost a node that nobody looks at nothing, and are few: whoever may open one may do everything.
 */
import type { z } from "@hono/zod-openapi";
import type { Auth } from "../auth/auth.ts";
import { EVERY_MS, type Sample, type Samples } from "../metrics/samples.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import { messageOf } from "../protocol/errors.ts";
import type { NodeState, Readiness } from "./api/shapes.ts";
import { problem } from "./problem.ts";

/** Streams at one time: some consoles, each with some tabs. */
const MAX_STREAMS = 16;
/** What a client may leave waiting, in bytes: the first event has some 100 KiB. */
const MAX_WAITING = 1024 * 1024;

const HEADERS = {
  "content-type": "text/event-stream",
  // Nothing in between may keep it, or hold it back to compress it; nginx holds back nothing that says so itself.
  "cache-control": "no-store, no-transform",
  "x-accel-buffering": "no",
};

const encoder = new TextEncoder();

export interface StatsParts {
  readonly auth: Pick<Auth, "authorize">;
  readonly samples: Pick<Samples, "all" | "onSample">;
  /** What never changes of this node. */
  readonly about: { readonly node: string; readonly version: string; readonly webhooks: boolean };
  readiness(): z.infer<typeof Readiness>;
  /** @throws {BrokerUnavailableError} */
  nodes(): Promise<NodeState[]>;
  /** Whether this process is about to end. */
  isEnding(): boolean;
}

interface Stream {
  readonly key: string | undefined;
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
}

export class StatsStreams {
  readonly #parts: StatsParts;
  readonly #streams = new Set<Stream>();
  /** Answers that are not over, those too whose client reads no more. */
  #open = 0;
  #stopListening: (() => void) | undefined;

  constructor(parts: StatsParts) {
    this.#parts = parts;
  }

  /** @param key By which the caller was let in: it must be good for as long as the stream lasts. */
  async open(request: Request, key: string | undefined, { completed }: ConnectionInfo): Promise<Response> {
    // Whoever only asks what there is gets the head of it: Hono would wait for the end of a body.
    if (request.method === "HEAD") return new Response(null, { headers: HEADERS });
    if (this.#open >= MAX_STREAMS) {
      return problem("too_many_connections", `${MAX_STREAMS} streams of numbers are open: close one first`);
    }
    this.#open++;
    const over = () => void this.#open--;
    completed.then(over, over);
    const nodes = await this.#nodes();
    let stream: Stream | undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        stream = { key, controller };
        const { about, samples } = this.#parts;
        this.#write(stream, this.#event(samples.all(), nodes, { about, every_ms: EVERY_MS }));
        if (this.#parts.isEnding()) controller.close();
        else this.#join(stream);
      },
      cancel: () => this.#leave(stream!),
    }, new ByteLengthQueuingStrategy({ highWaterMark: MAX_WAITING }));
    return new Response(body, { headers: HEADERS });
  }

  /** Ends all of them. */
  close(): void {
    for (const stream of this.#streams) this.#end(stream);
  }

  #join(stream: Stream): void {
    this.#streams.add(stream);
    this.#stopListening ??= this.#parts.samples.onSample((sample) => void this.#tell(sample));
  }

  #leave(stream: Stream): void {
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    this.#stopListening?.();
    this.#stopListening = undefined;
  }

  #end(stream: Stream): void {
    this.#leave(stream);
    stream.controller.close();
  }

  async #tell(sample: Sample): Promise<void> {
    // One that is opened meanwhile begins with this sample.
    const streams = [...this.#streams];
    const event = this.#event([sample], await this.#nodes(), {});
    for (const stream of streams) {
      if (!this.#streams.has(stream)) continue;
      // Keys are read again while the service runs: one that was taken out reads no more.
      if (this.#isAllowed(stream)) this.#write(stream, event);
      else this.#end(stream);
    }
  }

  #isAllowed({ key }: Stream): boolean {
    try {
      this.#parts.auth.authorize(key, "admin");
      return true;
    } catch {
      return false;
    }
  }

  #write(stream: Stream, event: Uint8Array): void {
    const { controller } = stream;
    if ((controller.desiredSize ?? 0) > 0) return controller.enqueue(event);
    // It does not read. What waits for it is dropped; where it comes back it gets all of it anew.
    this.#leave(stream);
    controller.error(new Error("The client does not read"));
  }

  async #nodes(): Promise<{ nodes: NodeState[] } | { nodes_problem: string }> {
    try {
      return { nodes: await this.#parts.nodes() };
    } catch (error) {
      return { nodes_problem: messageOf(error) };
    }
  }

  #event(samples: readonly Sample[], nodes: object, more: object): Uint8Array {
    const data = { ...more, samples, readiness: this.#parts.readiness(), ...nodes };
    return encoder.encode(`event: stats\ndata: ${JSON.stringify(data)}\n\n`);
  }
}
