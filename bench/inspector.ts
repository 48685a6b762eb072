/** A program of ours seen through V8's inspector: what its JavaScript does with time and with memory. */
import { withDeadline } from "../testkit/deadline.ts";

const ANSWER_MS = 60_000;
/** Microseconds between two looks at the stack. */
const SAMPLING_US = 200;
/** Milliseconds between two looks at how late a timer is. */
const BEAT_MS = 2;

/** Time spent in functions themselves, by function. */
export interface CpuProfile {
  /** All of the time in JavaScript, in microseconds, less what the looking itself takes. */
  readonly busyUs: number;
  /** Most first. */
  readonly functions: readonly { readonly name: string; readonly us: number }[];
}

/** What lies in the heap, by class. */
export type Heap = ReadonlyMap<string, { readonly count: number; readonly bytes: number }>;

interface RawProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  samples: number[];
  timeDeltas: number[];
}

interface RawSnapshot {
  snapshot: { meta: { node_fields: string[]; node_types: [string[], ...unknown[]] } };
  nodes: number[];
  strings: string[];
}

export class Inspector implements Disposable {
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, (answer: { result: unknown }) => void>();
  #chunks: string[] = [];
  #lastId = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id !== undefined) this.#answers.get(message.id)?.(message);
      else if (message.method === "HeapProfiler.addHeapSnapshotChunk") {
        this.#chunks.push(message.params.chunk);
      }
    };
  }

  /** @param url What a program started with `--inspect` says it listens on. */
  static async connect(url: string): Promise<Inspector> {
    const socket = new WebSocket(url);
    await withDeadline(
      new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
      }),
      ANSWER_MS,
      "the inspector to open",
    );
    const inspector = new Inspector(socket);
    await inspector.#call("Profiler.enable");
    await inspector.#call("Profiler.setSamplingInterval", { interval: SAMPLING_US });
    return inspector;
  }

  /** Watches the program while something is done to it. */
  async profile(work: () => Promise<void>): Promise<CpuProfile> {
    await this.#call("Profiler.start");
    await work();
    const { profile } = await this.#call("Profiler.stop") as { profile: RawProfile };
    const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
    const times = new Map<string, number>();
    let busyUs = 0;
    for (const [i, id] of profile.samples.entries()) {
      const name = names.get(id)!;
      // What is not JavaScript, whether it works or waits, and what Deno does for its inspector alone.
      if (/^\((idle|program)\)|inspector/.test(name)) continue;
      busyUs += profile.timeDeltas[i]!;
      times.set(name, (times.get(name) ?? 0) + profile.timeDeltas[i]!);
    }
    const functions = [...times].map(([name, us]) => ({ name, us })).sort((a, b) => b.us - a.us);
    return { busyUs, functions };
  }

  /** Collects garbage, then looks at what is left. */
  async heap(): Promise<Heap> {
    this.#chunks = [];
    await this.#call("HeapProfiler.collectGarbage");
    await this.#call("HeapProfiler.takeHeapSnapshot", { reportProgress: false });
    const { snapshot, nodes, strings } = JSON.parse(this.#chunks.join("")) as RawSnapshot;
    this.#chunks = [];
    const { node_fields: fields, node_types: [types] } = snapshot.meta;
    const at = (field: string) => fields.indexOf(field);
    const [type, name, size] = [at("type"), at("name"), at("self_size")] as const;
    const heap = new Map<string, { count: number; bytes: number }>();
    for (let node = 0; node < nodes.length; node += fields.length) {
      const kind = types[nodes[node + type]!]!;
      const label = kind === "object" || kind === "native" ? strings[nodes[node + name]!]! : `(${kind})`;
      let entry = heap.get(label);
      if (!entry) heap.set(label, entry = { count: 0, bytes: 0 });
      entry.count++;
      entry.bytes += nodes[node + size]!;
    }
    return heap;
  }

  /**
   * The longest that its event loop was held during the time given, in milliseconds: by how much a timer came late, but
   * at most the CPU time that the program used meanwhile. So other programs that take the CPU don't count.
   */
  async longestTurn(ms: number): Promise<number> {
    const expression = `new Promise((resolve) => {
      let longestMs = 0, last = performance.now(), used = process.cpuUsage();
      const endMs = last + ${ms};
      const timer = setInterval(() => {
        const now = performance.now(), cpu = process.cpuUsage(used);
        longestMs = Math.max(longestMs, Math.min(now - last - ${BEAT_MS}, (cpu.user + cpu.system) / 1_000));
        last = now;
        used = process.cpuUsage();
        if (now < endMs) return;
        clearInterval(timer);
        resolve(longestMs);
      }, ${BEAT_MS});
    })`;
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result } = await this.#call("Runtime.evaluate", options) as { result: { value: number } };
    return result.value;
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  #call(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#lastId;
    const answer = new Promise<{ result: unknown }>((resolve) => this.#answers.set(id, resolve));
    this.#socket.send(JSON.stringify({ id, method, params }));
    return withDeadline(answer, ANSWER_MS, `the inspector to answer ${method}`).then(({ result }) => {
      this.#answers.delete(id);
      return result;
    });
  }
}

function nameOf(frame: RawProfile["nodes"][number]["callFrame"]): string {
  const file = frame.url.split("/").slice(-2).join("/");
  return `${frame.functionName || "(anonymous)"}${file && ` ${file}:${frame.lineNumber + 1}`}`;
}
