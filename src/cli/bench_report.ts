/** What a load has found, as lines for people or as JSON. */
import { BUSY, type Figures, limitOf } from "../load/figures.ts";
import type { Histogram } from "../load/histogram.ts";

const BAR = 40;
/** Where the bars of the histogram begin and end, in milliseconds. */
const LIMITS_MS = [0.1, 1, 10, 100, 1_000, 10_000].flatMap((ms) => [ms, ms * 2, ms * 5]);

/** Whether everything that was accepted has arrived once and in order, on connections that stayed. */
export function isSound(figures: Figures): boolean {
  const { lost, duplicated, disordered, misdelivered, dropped, sent, delivered } = figures;
  return lost + duplicated + disordered + misdelivered + dropped.size === 0 && (delivered > 0 || sent === 0);
}

/** @param json Whether for programs. */
export function report(figures: Figures, json?: true): string {
  return json
    ? `${JSON.stringify(jsonOf(figures))}\n`
    : [...lines(figures), ...notes(figures)].join("\n") + "\n";
}

function jsonOf(figures: Figures) {
  const { latency, answerTimes, connectTimes, lag, seconds, sent, delivered } = figures;
  return {
    lost: figures.lost,
    duplicated: figures.duplicated,
    disordered: figures.disordered,
    misdelivered: figures.misdelivered,
    ...quantilesOf("", latency),
    max_ms: milli(latency.maxMs),
    users: figures.users,
    nodes: figures.nodes,
    connected: figures.connected,
    connects_per_s: perSecond(figures.connected, figures.connectSeconds),
    connect_retries: figures.connectRetries,
    ...quantilesOf("connect_", connectTimes),
    rate: figures.askedPerSecond ?? null,
    seconds: milli(seconds),
    sent,
    sends_per_s: perSecond(sent, seconds),
    unsent: figures.unsent,
    accepted: figures.accepted,
    unheard: figures.unheard,
    refused: figures.refused.map(({ count, refusal: { status, code, reason } }) => ({
      status,
      code,
      reason,
      count,
    })),
    ...quantilesOf("send_", answerTimes),
    delivered,
    deliveries_per_s: perSecond(delivered, seconds),
    dropped: sumOf(figures.dropped.values()),
    lost_with_connection: figures.lostWithConnection,
    bench_late_p99_ms: milli(lag.quantileMs(0.99)),
    bench_cpu: milli(figures.busy),
    limit: limitOf(figures) ?? null,
    interrupted: figures.isInterrupted,
  };
}

function lines(figures: Figures): string[] {
  const { latency, connectTimes, answerTimes, seconds, sent, askedPerSecond, connected, users } = figures;
  const asked = askedPerSecond === undefined ? "as many as were answered" : `${askedPerSecond} asked for`;
  const from = askedPerSecond === undefined ? "from when a message left" : "from when a message was due";
  const came = `users     ${connected} of ${users} connected to ${
    amount(figures.nodes, "address", "addresses")
  }`;
  if (sent === 0) return [came];
  return [
    `${came}, ${perSecond(connected, figures.connectSeconds)} a second`,
    `connects  ${inWords(connectTimes)}`,
    `sends     ${sent} in ${seconds.toFixed(1)} s, ${perSecond(sent, seconds)} a second, ${asked}`,
    `answers   ${inWords(answerTimes)}`,
    `messages  ${figures.delivered} arrived, ${figures.lost} lost, ${figures.duplicated} doubled, ` +
    `${figures.disordered} out of order${
      figures.misdelivered > 0 ? `, ${figures.misdelivered} misdelivered` : ""
    }`,
    `latency   ${inWords(latency)} (${from})`,
    "",
    ...bars(latency),
  ];
}

/** What is to be known about the figures, and done. */
function notes(figures: Figures): string[] {
  const { refused, unheard, dropped, lostWithConnection, connectRetries, isInterrupted } = figures;
  const found: string[] = [];
  if (isInterrupted) found.push("It was interrupted: these are the figures until then.");
  for (const { count, refusal: { status, reason } } of refused) {
    const answer = status === 0 ? "not answered" : `answered ${status}`;
    found.push(`${amount(count, "send was", "sends were")} ${answer}: ${reason}`);
  }
  if (unheard > 0) {
    found.push(`To ${amount(unheard, "send", "sends")} the service said that nobody is connected.`);
  }
  if (dropped.size > 0) {
    const codes = [...dropped].map(([code, count]) => `${count} with ${code || "no"} close code`).join(", ");
    const lost = lostWithConnection > 0
      ? ` ${
        amount(lostWithConnection, "message", "messages")
      } on the way to them did not arrive; a client that comes ` +
        "back gets them from the history."
      : "";
    found.push(`${amount(sumOf(dropped.values()), "connection", "connections")} ended (${codes}).${lost}`);
  }
  if (connectRetries > 0) {
    found.push(
      `${amount(connectRetries, "handshake", "handshakes")} had to be tried again: lower --connect-rate.`,
    );
  }
  return [...found, ...notesOnLimit(figures)].map((note) => `! ${note}`);
}

function notesOnLimit(figures: Figures): string[] {
  const { askedPerSecond, unsent, inFlight, busy, lag, sent, seconds } = figures;
  const found: string[] = [];
  if (unsent > 0) {
    found.push(`The rate was not reached: ${perSecond(sent, seconds)} sends a second of ${askedPerSecond}.`);
  }
  const limit = limitOf(figures);
  if (limit === "bench") {
    const [cause, advice] = busy >= BUSY
      ? [
        "it can do no more",
        "take fewer --users or a lower --rate, or run several at once, best on other machines",
      ]
      : ["others leave it too little CPU", "give it a core of its own, best on another machine"];
    found.push(
      `This bench itself is the limit: ${cause}. It took ${Math.round(busy * 100)} % of a core and was ` +
        `${lag.quantileMs(0.99).toFixed(1)} ms late (p99), which is in the latencies: ${advice}.`,
    );
  } else if (limit === "service" && askedPerSecond !== undefined) {
    found.push(
      `No more were answered with ${inFlight} on their way at a time, and this bench had time to spare: where ` +
        "answers have far to go, raise --in-flight.",
    );
  }
  return found;
}

function bars(latency: Histogram): string[] {
  const counts = latency.between(LIMITS_MS);
  const first = counts.findIndex((count) => count > 0);
  const last = counts.findLastIndex((count) => count > 0);
  const most = Math.max(...counts);
  return counts.slice(first, last + 1).map((count, i) => {
    const limit = LIMITS_MS[first + i];
    const label = limit === undefined ? "longer" : `< ${limit} ms`;
    const length = Math.ceil(count / most * BAR);
    return `${label.padStart(10)}  ${"#".repeat(length).padEnd(BAR)}  ${count}`;
  });
}

function inWords(times: Histogram): string {
  const [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map((part) => times.quantileMs(part).toFixed(1));
  return `p50 ${p50} ms, p90 ${p90} ms, p99 ${p99} ms, p99.9 ${p999} ms, at most ${
    times.maxMs.toFixed(1)
  } ms`;
}

function quantilesOf(what: string, times: Histogram): Record<string, number> {
  const parts = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99], ["p999", 0.999]] as const;
  return Object.fromEntries(
    parts.map(([name, part]) => [`${what}${name}_ms`, milli(times.quantileMs(part))]),
  );
}

function amount(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

function sumOf(counts: Iterable<number>): number {
  return [...counts].reduce((sum, count) => sum + count, 0);
}

function perSecond(count: number, seconds: number): number {
  return seconds === 0 ? 0 : Math.round(count / seconds * 10) / 10;
}

function milli(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
