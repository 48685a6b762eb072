/** What is drawn of a node's samples: which numbers stand together, and how each is read from them. Pure. */

/** Samples that lie further apart than so many of their distances have a hole between them. */
const HOLE = 2.5;

const number = new Intl.NumberFormat("en");
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

const whole = (/** @type {number} */ value) => number.format(Math.round(value));
const rate = (/** @type {number} */ value) => few.format(value);
const ms = (/** @type {number} */ value) => few.format(value);

/**
 * The pictures of these samples, each with an id.
 * @param {import("./stats.js").Sample[]} samples
 * @param {{ everyMs: number, webhooks: boolean, isRedis: boolean }} about
 * @returns {[id: string, picture: import("./charts.js").Picture][]}
 */
export function picturesOf(samples, { everyMs, webhooks, isRedis }) {
  /** @typedef {(sample: import("./stats.js").Sample) => number | undefined} Read */
  const gauge = (/** @type {string} */ name, /** @type {Read} */ read) => ({
    name,
    show: whole,
    values: samples.map(read),
  });
  /** What came since the sample before, for each second, or as it is. */
  const counter = (
    /** @type {string} */ name,
    /** @type {(sample: import("./stats.js").Sample) => number} */ read,
    perSecond = true,
  ) => ({
    name,
    show: perSecond ? rate : whole,
    total: samples.length === 0 ? "–" : number.format(read(/** @type {any} */ (samples.at(-1)))),
    values: samples.map((sample, i) => {
      const before = samples[i - 1];
      if (!before) return undefined;
      const passedMs = sample.at - before.at;
      const grown = read(sample) - read(before);
      // A node that was started again counts from zero.
      if (passedMs <= 0 || passedMs > HOLE * everyMs || grown < 0) return undefined;
      return perSecond ? grown / (passedMs / 1_000) : grown;
    }),
  });
  const outcome = (/** @type {string} */ name) => counter(name, ({ sends }) => sends[name] ?? 0);
  const hook = (/** @type {string} */ name) => counter(name, ({ webhooks }) => webhooks[name] ?? 0, false);
  /** @type {[string, import("./charts.js").Picture][]} */
  const pictures = [
    ["chart-connections", {
      title: "Connections",
      unit: "open now",
      lines: [
        gauge("WebSocket, frames", ({ connections }) => connections.v1),
        gauge("WebSocket, raw", ({ connections }) => connections.raw),
        gauge("Server-sent events", ({ connections }) => connections.sse),
        gauge("Lagging", ({ lagging }) => lagging),
      ],
    }],
    ["chart-sends", {
      title: "Sends",
      unit: "per second, by outcome",
      lines: ["reached", "stored", "offline", "repeated", "refused", "unavailable"].map(outcome),
    }],
    ["chart-deliveries", {
      title: "Deliveries",
      unit: "per second",
      lines: [
        counter("Messages written", ({ delivered }) => delivered),
        counter("of them replayed", ({ replayed }) => replayed),
      ],
    }],
    ["chart-duration", {
      title: "Send time",
      unit: "milliseconds",
      lines: [
        { name: "p50", show: ms, values: samples.map(({ send_ms }) => send_ms?.p50) },
        { name: "p99", show: ms, values: samples.map(({ send_ms }) => send_ms?.p99) },
      ],
    }],
    ["chart-gaps", {
      title: "Gaps",
      unit: "each five seconds",
      lines: [
        counter("Trimmed", ({ gaps }) => gaps.trimmed ?? 0, false),
        counter("History lost", ({ gaps }) => gaps.epoch ?? 0, false),
        counter("Messages missed", ({ missed }) => missed, false),
      ],
    }],
  ];
  if (isRedis) {
    pictures.push(["chart-redis", {
      title: "Redis",
      unit: "each five seconds",
      lines: [
        { name: "Away", show: (value) => value > 0 ? "yes" : "no", values: samples.map(away) },
        counter("Reconnects", ({ redis_reconnects }) => redis_reconnects, false),
        counter("Subscriptions lost", ({ interruptions }) => interruptions, false),
      ],
    }]);
  }
  if (webhooks) {
    pictures.push(["chart-webhooks", {
      title: "Webhooks",
      unit: "each five seconds",
      lines: [
        ...["delivered", "refused", "failed"].map(hook),
        gauge("Oldest waits, seconds", ({ webhook_oldest_s }) => webhook_oldest_s),
        counter("Events dropped", ({ events_dropped }) => events_dropped, false),
      ],
    }]);
  }
  return pictures;
}

const away = (/** @type {import("./stats.js").Sample} */ { broker_available }) => broker_available ? 0 : 1;

/**
 * The samples that are shown, with those that came: of the last minutes, in order, each once. The first event of a stream
 * has all; the last of these is of this moment and lies nearer, and the next one takes its place.
 * @param {import("./stats.js").Sample[]} known
 * @param {import("./stats.js").Sample[]} come
 * @param {number} spanMs
 */
export function joined(known, come, spanMs) {
  if (come.length > 1) return come;
  const end = come.at(-1)?.at ?? 0;
  return [...known, ...come].filter(({ at }) => at > end - spanMs);
}
