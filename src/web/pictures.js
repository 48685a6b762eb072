/** What is drawn of a node's samples: which numbers stand together, and how each is read from them. Pure. */

/** Samples that lie further apart than so many of their distances have a hole between them. */
const HOLE = 2.5;

/** How long samples lie apart. */
const EACH = "each five seconds";

const wholeFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const briefFormat = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = (/** @type {number} */ value) => wholeFormat.format(value);
const brief = (/** @type {number} */ value) => briefFormat.format(value);

/** @typedef {import("./stats.js").Sample} Sample */

/** Reads lines from samples. */
class Lines {
  #samples;
  #everyMs;

  /** @param {Sample[]} samples @param {number} everyMs */
  constructor(samples, everyMs) {
    this.#samples = samples;
    this.#everyMs = everyMs;
  }

  /** As it is. @param {string} name @param {(sample: Sample) => number | undefined} read @param {(value: number) => string} [show] */
  gauge(name, read, show = whole) {
    return { name, show, values: this.#samples.map(read) };
  }

  /** What came each second. @param {string} name @param {(sample: Sample) => number} read */
  rate(name, read) {
    const values = this.#grown(read, (grown, passedMs) => grown / (passedMs / 1_000));
    return { name, show: brief, total: this.#total(read), values };
  }

  /** What came since the sample before. @param {string} name @param {(sample: Sample) => number} read */
  count(name, read) {
    return { name, show: whole, total: this.#total(read), values: this.#grown(read, (grown) => grown) };
  }

  #total(/** @type {(sample: Sample) => number} */ read) {
    const last = this.#samples.at(-1);
    return last === undefined ? "–" : whole(read(last));
  }

  #grown(
    /** @type {(sample: Sample) => number} */ read,
    /** @type {(grown: number, passedMs: number) => number} */ of,
  ) {
    return this.#samples.map((sample, i) => {
      const before = this.#samples[i - 1];
      if (!before) return undefined;
      const passedMs = sample.at - before.at;
      const grown = read(sample) - read(before);
      // A node that was started again counts from zero.
      return passedMs <= 0 || passedMs > HOLE * this.#everyMs || grown < 0 ? undefined : of(grown, passedMs);
    });
  }
}

const OUTCOMES = ["reached", "stored", "offline", "repeated", "refused", "unavailable"];

/**
 * The pictures of these samples, each with an id.
 * @param {Sample[]} samples
 * @param {{ everyMs: number, webhooks: boolean, isRedis: boolean }} about
 * @returns {[id: string, picture: import("./charts.js").Picture][]}
 */
export function picturesOf(samples, { everyMs, webhooks, isRedis }) {
  const of = new Lines(samples, everyMs);
  return [
    picture("connections", "Connections", "open now", [
      of.gauge("WebSocket, frames", ({ connections }) => connections.v1),
      of.gauge("WebSocket, raw", ({ connections }) => connections.raw),
      of.gauge("Server-sent events", ({ connections }) => connections.sse),
      of.gauge("Lagging", ({ lagging }) => lagging),
    ]),
    picture(
      "sends",
      "Sends",
      "per second, by outcome",
      OUTCOMES.map((outcome) => of.rate(outcome, ({ sends }) => sends[outcome] ?? 0)),
    ),
    picture("deliveries", "Deliveries", "per second", [
      of.rate("Messages written", ({ delivered }) => delivered),
      of.rate("of them replayed", ({ replayed }) => replayed),
    ]),
    picture("duration", "Send time", "milliseconds", [
      of.gauge("p50", ({ send_ms }) => send_ms?.p50, brief),
      of.gauge("p99", ({ send_ms }) => send_ms?.p99, brief),
    ]),
    picture("gaps", "Gaps", EACH, [
      of.count("Trimmed", ({ gaps }) => gaps.trimmed ?? 0),
      of.count("History lost", ({ gaps }) => gaps.epoch ?? 0),
      of.count("Messages missed", ({ missed }) => missed),
    ]),
    ...(isRedis ? [redisOf(of)] : []),
    ...(webhooks ? [webhooksOf(of)] : []),
  ];
}

function redisOf(/** @type {Lines} */ of) {
  return picture("redis", "Redis", EACH, [
    of.gauge(
      "Away",
      ({ broker_available }) => Number(!broker_available),
      (value) => value > 0 ? "yes" : "no",
    ),
    of.count("Reconnects", ({ redis_reconnects }) => redis_reconnects),
    of.count("Subscriptions lost", ({ interruptions }) => interruptions),
  ]);
}

function webhooksOf(/** @type {Lines} */ of) {
  return picture("webhooks", "Webhooks", EACH, [
    ...["delivered", "refused", "failed"].map((outcome) =>
      of.count(outcome, ({ webhooks }) => webhooks[outcome] ?? 0)
    ),
    of.gauge("Oldest waits, seconds", ({ webhook_oldest_s }) => webhook_oldest_s),
    of.count("Events dropped", ({ events_dropped }) => events_dropped),
  ]);
}

/**
 * @param {string} id @param {string} title @param {string} unit @param {import("./charts.js").Line[]} lines
 * @returns {[id: string, picture: import("./charts.js").Picture]}
 */
function picture(id, title, unit, lines) {
  return [`chart-${id}`, { title, unit, lines }];
}

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
