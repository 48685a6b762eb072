/**
 * Counters and gauges of this process: their names, and the text format in which Prometheus reads them. The rooms above
 * bump fields, and the text is made of the fields when it is asked for. The room owns what the numbers are called; it
 * must not know who a user is: labels have few values, and none names one.
 */
import { CLOSE } from "../protocol/close_codes.ts";
import { Durations } from "./durations.ts";

/** Read when the text is made. */
interface MetricsOptions {
  version: string;
  isBrokerAvailable(): boolean;
  /** How often Redis came back. */
  redisReconnects(): number;
  /** Files the process has open, and may have. */
  files: { readonly count: number; readonly limit: number | undefined };
  /** Sockets that Deno never releases. */
  lostSockets(): number;
  /** Lines of the log that nobody can read. */
  lostLines(): number;
  /** When each certificate that is in use ends, in Unix seconds, by the setting that names its file. */
  certificateEnds(): Readonly<Record<string, number>>;
  /** What refusals and webhooks there may be: they count from 0, see `zeros`. */
  refusals: readonly string[];
  webhookTypes: readonly string[];
  /** Connections whose client takes no more just now. */
  lagging(): number;
}

/** What `/readyz` says, as far as it is a number. */
export interface State {
  readonly ready: boolean;
  readonly warnings?: readonly string[] | undefined;
}

/** What the numbers of a family mean; see Prometheus' documentation. */
interface Family {
  readonly type: "counter" | "gauge" | "histogram";
  readonly name: string;
  readonly help: string;
  /** Its samples: what follows the name, and the number. */
  samples(): Iterable<readonly [suffix: string, value: number]>;
}

export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Upper bounds in seconds: a send takes about a millisecond, and some seconds until Redis is given up. */
const SEND_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** Upper bounds in seconds: a message to a group of ten takes some milliseconds, one to ten thousand up to seconds. */
const GROUP_SEND_BUCKETS = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25];

/** Close codes with a meaning. Clients may send any: the rest is one label, "other". */
const CLOSE_CODES: ReadonlySet<number> = new Set([
  ...Array.from({ length: 15 }, (_, i) => 1_000 + i),
  ...Object.values(CLOSE).map(({ code }) => code),
  0,
]);
/** What becomes of an attempt to tell the backend. */
const WEBHOOK_OUTCOMES = ["delivered", "refused", "failed"];

/** What came of a request of a client. */
export type RequestOutcome =
  | "answered"
  | "refused"
  | "busy"
  | "timeout"
  | "unavailable"
  | "bad_answer"
  | "too_large";

/** What a connection is: a raw WebSocket, one that speaks frames, or a stream of server-sent events. */
export type Mode = keyof Metrics["open"];

/** Some of the numbers, at one moment: counters from the start of the process, and gauges. */
export interface Reading {
  /** Open now, by mode. */
  readonly connections: Readonly<Metrics["open"]>;
  readonly lagging: number;
  /** By outcome. */
  readonly sends: Readonly<Metrics["sends"]>;
  readonly delivered: number;
  readonly replayed: number;
  /** By reason. */
  readonly gaps: Readonly<Metrics["gaps"]>;
  readonly missed: number;
  readonly broker_available: boolean;
  readonly redis_reconnects: number;
  readonly interruptions: number;
  /** By outcome, each attempt. */
  readonly webhooks: Readonly<Record<string, number>>;
  readonly webhook_oldest_s: number;
  readonly events_dropped: number;
}

export class Metrics {
  readonly open = { raw: 0, v1: 0, sse: 0 };
  readonly opened = { raw: 0, v1: 0, sse: 0 };
  readonly gaps = { trimmed: 0, epoch: 0 };
  readonly sends = { reached: 0, stored: 0, offline: 0, repeated: 0, refused: 0, unavailable: 0 };
  readonly groupSends = { sent: 0, repeated: 0, refused: 0, unavailable: 0 };
  /** Members of groups that were sent to, by what became of the message for them. */
  readonly groupMembers = { online: 0, stored: 0, numbered: 0, unknown: 0, offline: 0, failed: 0 };
  /** Requests of clients, by what came of them; `gone`: nobody waited for the answer any more. */
  readonly requests: Record<RequestOutcome | "gone", number> = {
    ...{ answered: 0, refused: 0, busy: 0, timeout: 0, unavailable: 0, bad_answer: 0, too_large: 0 },
    gone: 0,
  };
  delivered = 0;
  deliveredBytes = 0;
  replayed = 0;
  missed = 0;
  broadcasts = 0;
  interruptions = 0;
  eventsDropped = 0;
  /** When the oldest event that waits for the backend was decided, in Unix milliseconds; undefined when none does. */
  oldestEventMs: number | undefined;
  /** Asked when the text is made; set once all parts are there. */
  state: () => State = () => ({ ready: true });
  /** Attempts to tell the backend, by type and outcome. */
  readonly #webhooks = new Map<string, number>();
  /** The same, by outcome alone. */
  readonly #webhookOutcomes: Record<string, number> = {};
  readonly #closed = zeros([...CLOSE_CODES, "other"]);
  readonly #failed = zeros([...CLOSE_CODES, "other"]);
  readonly #refused: Record<string, number>;
  readonly sendDurations: Durations = new Durations(SEND_BUCKETS);
  readonly #groupSendDurations = new Durations(GROUP_SEND_BUCKETS);
  readonly #options: MetricsOptions;
  readonly #families: readonly Family[];

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#refused = zeros(options.refusals);
    for (const type of options.webhookTypes) {
      for (const outcome of WEBHOOK_OUTCOMES) this.#webhooks.set(webhookLabels(type, outcome), 0);
    }
    // deno-fmt-ignore -- one line each, however long
    this.#families = [
      byLabel("gauge", "userwire_connections", "WebSocket connections open now, by mode.", "mode", () => this.open),
      single("gauge", "userwire_connections_lagging", "Connections whose client takes no more just now, so that what comes for it waits.", () => options.lagging()),
      byLabel("counter", "userwire_connections_opened_total", "WebSocket connections opened: the user is known and the subscription confirmed.", "mode", () => this.opened),
      byLabel("counter", "userwire_connections_closed_total", "Opened WebSocket connections that were closed, by close code; 0 means that the network connection broke.", "code", () => this.#closed),
      byLabel("counter", "userwire_connections_failed_total", "WebSocket connections closed before they counted as opened, by close code.", "code", () => this.#failed),
      byLabel("counter", "userwire_handshakes_refused_total", "WebSocket handshakes refused, by problem code.", "code", () => this.#refused),
      byLabel("counter", "userwire_sends_total", "Send requests, by outcome.", "outcome", () => this.sends),
      { type: "histogram", name: "userwire_send_duration_seconds", help: "Seconds from a send request to the answer of the broker, without the wait for receipts.", samples: () => this.sendDurations.samples() },
      byLabel("counter", "userwire_group_sends_total", "Messages to groups, by outcome.", "outcome", () => this.groupSends),
      byLabel("counter", "userwire_group_members_total", "Members of groups that messages were sent to, by what became of the message for them.", "what", () => this.groupMembers),
      { type: "histogram", name: "userwire_group_send_duration_seconds", help: "Seconds that a message to a group took, from the first question to Redis to the last answer, without the wait for receipts.", samples: () => this.#groupSendDurations.samples() },
      single("counter", "userwire_messages_delivered_total", "Messages written to WebSocket connections.", () => this.delivered),
      single("counter", "userwire_delivered_bytes_total", "Bytes of messages written to WebSocket connections, envelope included.", () => this.deliveredBytes),
      single("counter", "userwire_messages_replayed_total", "Messages written to WebSocket connections from the history (replays).", () => this.replayed),
      single("counter", "userwire_broadcasts_total", "Broadcasts that this node got, live or from the history, and handed out.", () => this.broadcasts),
      byLabel("counter", "userwire_gaps_total", "Gap frames sent to clients, by reason.", "why", () => this.gaps),
      single("counter", "userwire_messages_missed_total", "Messages that connections missed, where their number is known.", () => this.missed),
      single("gauge", "userwire_broker_available", "Whether the broker accepts sends: 1 if it does, 0 if not.", () => Number(options.isBrokerAvailable())),
      single("gauge", "userwire_ready", "Whether the node should get traffic, as /readyz says: 1 if it should, 0 if not.", () => Number(this.state().ready)),
      single("gauge", "userwire_warnings", "Warnings that /readyz gives: of a Redis that may lose data, or of a part of it that can't be used.", () => this.state().warnings?.length ?? 0),
      byLabel("gauge", "userwire_certificate_end_seconds", "End of each certificate that is in use, in Unix seconds, by the setting that names its file.", "setting", () => options.certificateEnds()),
      single("counter", "userwire_log_lines_lost_total", "Lines of the log that the disk or the console did not take.", () => options.lostLines()),
      single("counter", "userwire_redis_reconnects_total", "Reconnections to Redis after the connection for commands was lost.", () => options.redisReconnects()),
      single("counter", "userwire_subscription_interruptions_total", "Subscriptions of WebSocket connections that were lost, each time.", () => this.interruptions),
      single("gauge", "userwire_lost_sockets", "Handshakes whose client left in the middle, each of which holds a file descriptor until the process ends.", () => options.lostSockets()),
      single("gauge", "userwire_open_files", "Open file descriptors of the process, sockets included; a lower bound where the system does not tell.", () => options.files.count),
      { type: "gauge", name: "userwire_open_files_limit", help: "Limit of open file descriptors of the process; missing where it is not known.", samples: () => options.files.limit === undefined ? [] : [["", options.files.limit]] },
      byLabel("counter", "userwire_requests_total", "Requests of clients, by what came of them.", "outcome", () => this.requests),
      { type: "counter", name: "userwire_webhooks_total", help: "Webhooks sent, each attempt, by type and outcome.", samples: () => this.#webhooks },
      single("gauge", "userwire_webhook_oldest_seconds", "Age of the oldest event that waits for the backend, as of the last look at the outbox; 0 when none waits.", () => this.#oldestEventS()),
      single("counter", "userwire_events_dropped_total", "Events dropped before the backend took them, because they were too old or too many.", () => this.eventsDropped),
      byLabel("gauge", "userwire_build_info", "Version of the service as a label; the value is always 1.", "version", () => ({ [options.version]: 1 })),
      // Names that every program has, so that dashboards know them.
      single("gauge", "process_start_time_seconds", "Start time of the process, in Unix seconds.", () => performance.timeOrigin / 1_000),
      single("gauge", "process_resident_memory_bytes", "Resident memory of the process, in bytes.", () => Deno.memoryUsage().rss),
    ];
  }

  /** Everything, in the text format of Prometheus. */
  text(): string {
    let text = "";
    for (const { type, name, help, samples } of this.#families) {
      text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
      for (const [suffix, value] of samples()) text += `${name}${suffix} ${value}\n`;
    }
    return text;
  }

  /** What the console shows of it, as it is now. */
  now(): Reading {
    const options = this.#options;
    return {
      connections: { ...this.open },
      lagging: options.lagging(),
      sends: { ...this.sends },
      delivered: this.delivered,
      replayed: this.replayed,
      gaps: { ...this.gaps },
      missed: this.missed,
      broker_available: options.isBrokerAvailable(),
      redis_reconnects: options.redisReconnects(),
      interruptions: this.interruptions,
      webhooks: { ...this.#webhookOutcomes },
      webhook_oldest_s: this.#oldestEventS(),
      events_dropped: this.eventsDropped,
    };
  }

  #oldestEventS(): number {
    return this.oldestEventMs === undefined ? 0 : Math.max(0, Date.now() - this.oldestEventMs) / 1_000;
  }

  /** A session is live. */
  onOpen(mode: Mode): void {
    this.open[mode]++;
    this.opened[mode]++;
  }

  /** A live session has ended. */
  onClose(mode: Mode, code: number): void {
    this.open[mode]--;
    bump(this.#closed, labelOf(code));
  }

  /** A socket was closed before its session was live. */
  onFail(code: number): void {
    bump(this.#failed, labelOf(code));
  }

  /** A handshake was answered with a problem of this code. */
  onRefuse(code: string): void {
    bump(this.#refused, code);
  }

  /** The backend was told of an event, or could not be. */
  onWebhook(type: string, outcome: string): void {
    const labels = webhookLabels(type, outcome);
    this.#webhooks.set(labels, (this.#webhooks.get(labels) ?? 0) + 1);
    bump(this.#webhookOutcomes, outcome);
  }

  /** The broker has answered a send. */
  onAnswer(seconds: number): void {
    this.sendDurations.add(seconds);
  }

  /**
   * A message was sent to a group, or not.
   * @param members How many of them, by what became of it for them; of those that it was numbered for, `users`.
   * @param startMs When that began, as `performance.now` says.
   */
  onGroupSend(
    outcome: keyof Metrics["groupSends"],
    members: Omit<Metrics["groupMembers"], "numbered"> & { readonly users: number },
    startMs: number,
  ): void {
    this.groupSends[outcome]++;
    const { users, online, stored, unknown, offline, failed } = members;
    const counts = { online, stored, numbered: users - online - stored, unknown, offline, failed };
    for (const [what, count] of Object.entries(counts)) {
      this.groupMembers[what as keyof typeof counts] += count;
    }
    if (outcome === "sent") this.#groupSendDurations.add((performance.now() - startMs) / 1_000);
  }
}

function single(type: "counter" | "gauge", name: string, help: string, read: () => number): Family {
  return { type, name, help, samples: () => [["", read()]] };
}

/** A sample for each value of a label. All of them are ours, so nothing in them has to be escaped. */
function byLabel(
  type: "counter" | "gauge",
  name: string,
  help: string,
  label: string,
  read: () => Readonly<Record<string, number>>,
): Family {
  const samples = () =>
    Object.entries(read()).map(([value, count]) => [`{${label}="${value}"}`, count] as const);
  return { type, name, help, samples };
}

/** Counters that are there before they count: the first of a series that was not there is no rise to Prometheus. */
function zeros(labels: readonly (number | string)[]): Record<string, number> {
  return Object.fromEntries(labels.map((label) => [label, 0]));
}

function webhookLabels(type: string, outcome: string): string {
  return `{type="${type}",outcome="${outcome}"}`;
}

function bump(counts: Record<string, number>, label: string): void {
  counts[label] = (counts[label] ?? 0) + 1;
}

function labelOf(code: number): string {
  return CLOSE_CODES.has(code) ? String(code) : "other";
}
