/** The panels of the dashboard for Grafana: what they ask Prometheus, and which alert watches the same. */

/** What a panel shows. */
export interface Panel {
  readonly title: string;
  /** What is to be seen, and where there is an alert of it, which. */
  readonly description: string;
  /** As Grafana calls it. */
  readonly unit: string;
  /** Questions to Prometheus, and what each line is called. `NODES` stands for the nodes that were picked. */
  readonly lines: readonly (readonly [expr: string, legend: string])[];
  readonly max?: number;
}

/** The nodes that were picked. */
const NODES = 'instance=~"$node"';
/** A second's worth: Grafana knows how often Prometheus asks, and takes no window that holds fewer than two answers. */
const EACH_SECOND = "[$__rate_interval]";

function perSecond(metric: string, by: string, labels = ""): string {
  return `sum by (${by}) (rate(${metric}{${labels === "" ? "" : `${labels}, `}${NODES}}${EACH_SECOND}))`;
}

function quantile(q: number, metric: string): string {
  return `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket{${NODES}}${EACH_SECOND})))`;
}

function gauge(metric: string): string {
  return `sum by (instance) (${metric}{${NODES}})`;
}

/** The panels, in rows: from what users feel to what it may come from. */
export const ROWS: Readonly<Record<string, readonly Panel[]>> = {
  Users: [
    {
      title: "Nodes",
      description:
        "Ready, and read by Prometheus. UserwireNoNodeReady, UserwireNodesGone, UserwireNotReady, UserwireNodeDown",
      unit: "short",
      lines: [[`sum(userwire_ready{${NODES}})`, "ready"], [`count(userwire_ready{${NODES}})`, "read"]],
    },
    {
      title: "Connections by node",
      description: "Open now",
      unit: "short",
      lines: [[gauge("userwire_connections"), "{{instance}}"]],
    },
    {
      title: "Connections by mode",
      description: "Open now: raw, framed (v1), or server-sent events",
      unit: "short",
      lines: [[`sum by (mode) (userwire_connections{${NODES}})`, "{{mode}}"]],
    },
    {
      title: "Opened",
      description: "Connections per second: a wave after a restart or a failover",
      unit: "cps",
      lines: [[perSecond("userwire_connections_opened_total", "mode"), "{{mode}}"]],
    },
    {
      title: "Handshakes refused",
      description: "Per second, by the code of the problem. UserwireHandshakesRefused, UserwireFull",
      unit: "reqps",
      lines: [[perSecond("userwire_handshakes_refused_total", "code"), "{{code}}"]],
    },
    {
      title: "Closed",
      description: "Per second, by close code: 0 broke off, 4508 is a slow reader. UserwireSlowReaders",
      unit: "cps",
      lines: [
        [perSecond("userwire_connections_closed_total", "code"), "{{code}}"],
        [perSecond("userwire_connections_failed_total", "code"), "{{code}} before it was open"],
      ],
    },
  ],
  Sends: [
    {
      title: "Sends",
      description: "Per second, by what came of them. UserwireSendsUnavailable, UserwireSendsRefused",
      unit: "reqps",
      lines: [[perSecond("userwire_sends_total", "outcome"), "{{outcome}}"]],
    },
    {
      title: "Sends that failed",
      description: "Share of all: 503 (unavailable), or no message that could be sent (refused)",
      unit: "percentunit",
      lines: ["unavailable", "refused"].map((outcome) => [
        `sum(rate(userwire_sends_total{outcome="${outcome}", ${NODES}}${EACH_SECOND})) ` +
        `/ sum(rate(userwire_sends_total{${NODES}}${EACH_SECOND}))`,
        outcome,
      ]),
      max: 1,
    },
    {
      title: "Time of a send",
      description: "Until Redis has answered. UserwireSendsSlow",
      unit: "s",
      lines: [0.5, 0.99, 0.999].map((q) => [quantile(q, "userwire_send_duration_seconds"), `${q * 100} %`]),
    },
    {
      title: "Messages to groups",
      description: "Per second, by what came of them",
      unit: "reqps",
      lines: [[perSecond("userwire_group_sends_total", "outcome"), "{{outcome}}"]],
    },
    {
      title: "Members of these groups",
      description: "Per second, by what became of the message for them",
      unit: "cps",
      lines: [[perSecond("userwire_group_members_total", "what"), "{{what}}"]],
    },
    {
      title: "Time of a message to a group",
      description: "From the first question to Redis to the last answer",
      unit: "s",
      lines: [0.5, 0.99].map((q) => [quantile(q, "userwire_group_send_duration_seconds"), `${q * 100} %`]),
    },
  ],
  Delivery: [
    {
      title: "Messages delivered",
      description: "Per second, by node. UserwireNotDelivered",
      unit: "cps",
      lines: [[perSecond("userwire_messages_delivered_total", "instance"), "{{instance}}"]],
    },
    {
      title: "Bytes delivered",
      description: "Per second, by node",
      unit: "Bps",
      lines: [[perSecond("userwire_delivered_bytes_total", "instance"), "{{instance}}"]],
    },
    {
      title: "Replayed, and broadcasts",
      description: "Per second: messages from the history, and broadcasts that nodes handed out",
      unit: "cps",
      lines: [
        [`sum(rate(userwire_messages_replayed_total{${NODES}}${EACH_SECOND}))`, "replayed"],
        [`sum(rate(userwire_broadcasts_total{${NODES}}${EACH_SECOND}))`, "broadcasts"],
      ],
    },
    {
      title: "Messages missed",
      description: "Per second: in gaps, and by slow readers. 0 when all is well. UserwireMessagesMissed",
      unit: "cps",
      lines: [[perSecond("userwire_messages_missed_total", "instance"), "{{instance}}"]],
    },
    {
      title: "Gaps announced",
      description: "Per second: trimmed (away for too long), or epoch (Redis lost data). UserwireHistoryLost",
      unit: "cps",
      lines: [[perSecond("userwire_gaps_total", "why"), "{{why}}"]],
    },
    {
      title: "Slow readers",
      description: "Connections per second that were cut, by node. UserwireSlowReaders",
      unit: "cps",
      lines: [[perSecond("userwire_connections_closed_total", "instance", 'code="4508"'), "{{instance}}"]],
    },
    {
      title: "Clients that take no more",
      description: "Connections for which messages wait just now, by node. UserwireSlowReaders",
      unit: "short",
      lines: [[gauge("userwire_connections_lagging"), "{{instance}}"]],
    },
  ],
  Redis: [
    {
      title: "Redis available",
      description: "1 or 0, by node. UserwireRedisUnavailable",
      unit: "short",
      lines: [[`min by (instance) (userwire_broker_available{${NODES}})`, "{{instance}}"]],
      max: 1,
    },
    {
      title: "Reconnects and interruptions",
      description: "In five minutes. UserwireRedisInterrupted, UserwireSubscriptionsLost",
      unit: "short",
      lines: [
        [
          `sum by (instance) (increase(userwire_redis_reconnects_total{${NODES}}[5m]))`,
          "Redis came back, {{instance}}",
        ],
        [
          `sum by (instance) (increase(userwire_subscription_interruptions_total{${NODES}}[5m]))`,
          "subscriptions lost, {{instance}}",
        ],
      ],
    },
    {
      title: "Warnings",
      description: "Of /readyz, by node: Redis may lose data, or a part of it is away. UserwireWarnings",
      unit: "short",
      lines: [[gauge("userwire_warnings"), "{{instance}}"]],
    },
  ],
  Webhooks: [
    {
      title: "Oldest event that waits",
      description: "On all nodes the same. UserwireWebhookLate",
      unit: "s",
      lines: [[`max(userwire_webhook_oldest_seconds{${NODES}})`, "age"]],
    },
    {
      title: "Webhooks",
      description: "Attempts per second, by what came of them",
      unit: "reqps",
      lines: [[perSecond("userwire_webhooks_total", "type, outcome"), "{{type}} {{outcome}}"]],
    },
    {
      title: "Requests of clients",
      description: "Per second, by what came of them. UserwireRequestsFailed",
      unit: "reqps",
      lines: [[perSecond("userwire_requests_total", "outcome"), "{{outcome}}"]],
    },
    {
      title: "Events dropped",
      description: "In five minutes. 0 when all is well. UserwireEventsDropped",
      unit: "short",
      lines: [[`sum(increase(userwire_events_dropped_total{${NODES}}[5m]))`, "dropped"]],
    },
  ],
  Process: [
    {
      title: "Memory",
      description: "Resident, by node",
      unit: "bytes",
      lines: [[gauge("process_resident_memory_bytes"), "{{instance}}"]],
    },
    {
      title: "Open files",
      description: "Of as many as it may have, by node; above 0.9 clients are refused. UserwireOpenFiles",
      unit: "percentunit",
      lines: [[
        `sum by (instance) (userwire_open_files{${NODES}}) / sum by (instance) (userwire_open_files_limit{${NODES}})`,
        "{{instance}}",
      ]],
      max: 1,
    },
    {
      title: "Lost sockets",
      description: "Descriptors that resets during handshakes took. UserwireLostSockets",
      unit: "short",
      lines: [[gauge("userwire_lost_sockets"), "{{instance}}"]],
    },
    {
      title: "Up for",
      description: "Since the start of each process. UserwireRestarting",
      unit: "s",
      lines: [[`time() - max by (instance) (process_start_time_seconds{${NODES}})`, "{{instance}}"]],
    },
    {
      title: "Nodes by version",
      description: "Two while an update is under way",
      unit: "short",
      lines: [[`sum by (version) (userwire_build_info{${NODES}})`, "{{version}}"]],
    },
    {
      title: "Certificates end in",
      description: "Empty where nodes have none. UserwireCertificateEnding, UserwireCertificateEnded",
      unit: "s",
      lines: [[
        `min by (instance, setting) (userwire_certificate_end_seconds{${NODES}}) - time()`,
        "{{setting}} {{instance}}",
      ]],
    },
    {
      title: "Log lines lost",
      description: "In five minutes. 0 when all is well. UserwireLogLinesLost",
      unit: "short",
      lines: [[
        `sum by (instance) (increase(userwire_log_lines_lost_total{${NODES}}[5m]))`,
        "{{instance}}",
      ]],
    },
  ],
};
