/** When alerts fire, and when they do not: numbers of nodes, read once a minute, in promtool's short form. */

/** What Prometheus has read, and when it is asked. */
export interface Case {
  /** What it is about. */
  readonly when: string;
  readonly series: Readonly<Record<string, string>>;
  readonly atMinute: number;
  /** Labels of the alerts that fire then, but for their severity. */
  readonly fires: readonly Readonly<Record<string, string>>[];
}

const NODE = { job: "userwire", instance: "a" };
/** Nobody in particular: summed up. */
const ALL = [{}];
const ONE = [NODE];
const NONE: readonly never[] = [];

/** The name of a series of a node. */
function of(metric: string, labels = "", instance = "a"): string {
  return `${metric}{job="userwire",instance="${instance}"${labels === "" ? "" : `,${labels}`}}`;
}

function refused(code: string): string {
  return of("userwire_handshakes_refused_total", `code="${code}"`);
}

function sends(outcome: string): string {
  return of("userwire_sends_total", `outcome="${outcome}"`);
}

const opened = of("userwire_connections_opened_total", 'mode="v1"');
const open = of("userwire_connections", 'mode="v1"');
const ready = of("userwire_ready");
const available = of("userwire_broker_available");
const delivered = of("userwire_messages_delivered_total");
const missed = of("userwire_messages_missed_total");
const epoch = of("userwire_gaps_total", 'why="epoch"');
const slow = of("userwire_connections_closed_total", 'code="4508"');
const started = of("process_start_time_seconds");
const reconnects = of("userwire_redis_reconnects_total");
const interruptions = of("userwire_subscription_interruptions_total");
const lostLines = of("userwire_log_lines_lost_total");
const oldest = of("userwire_webhook_oldest_seconds");
const dropped = of("userwire_events_dropped_total");
const warnings = of("userwire_warnings");
const certificate = of("userwire_certificate_end_seconds", 'setting="USERWIRE_TLS_CERT"');
const DAY = 86_400;

/** Sends that took up to half a second, and longer. */
function durations(quick: string, all: string): Record<string, string> {
  const bucket = (le: string) => of("userwire_send_duration_seconds_bucket", `le="${le}"`);
  return {
    [bucket("0.5")]: quick,
    [bucket("1")]: all,
    [bucket("+Inf")]: all,
    [of("userwire_send_duration_seconds_count")]: all,
  };
}

function requests(failed: string, answered: string): Record<string, string> {
  const outcome = (name: string) => of("userwire_requests_total", `outcome="${name}"`);
  return { [outcome("timeout")]: failed, [outcome("answered")]: answered };
}

function counted(when: string, series: Record<string, string>, atMinute: number, fires: Case["fires"]): Case {
  return { when, series, atMinute, fires };
}

/** What rises once, at the third reading; and what falls to 0 because the process was started again. */
const ONCE = "0 0 20+0x60";
const AFRESH = "20 20 0+0x60";
const NEVER = "0+0x60";

export const CASES: Readonly<Record<string, readonly Case[]>> = {
  UserwireNoNodeReady: [
    counted("none is ready", { [ready]: "1 0+0x20" }, 4, ALL),
    counted("none can be read", { [of("up")]: "0+0x20" }, 4, ALL),
    counted("for want of Redis", { [ready]: "0+0x20", [available]: "0+0x20" }, 4, NONE),
    counted("another one is", { [ready]: "0+0x20", [of("userwire_ready", "", "b")]: "1+0x20" }, 4, NONE),
  ],
  UserwireNodesGone: [
    // As where pods come and go: nobody reads them any more, and nothing says that they are down.
    counted("without a trace", { [ready]: "1+0x60", [of("userwire_ready", "", "b")]: "1+0x20" }, 30, ALL),
    counted(
      "under other names",
      { [ready]: "1+0x20", [of("userwire_ready", "", "b")]: "_x20 1+0x40" },
      30,
      NONE,
    ),
    counted(
      "one of three",
      {
        [ready]: "1+0x60",
        [of("userwire_ready", "", "b")]: "1+0x60",
        [of("userwire_ready", "", "c")]: "1+0x20",
      },
      30,
      NONE,
    ),
  ],
  UserwireHandshakesRefused: [
    counted("most are", { [refused("unauthorized")]: "0+60x20", [opened]: "0+6x20" }, 12, ALL),
    counted("some are", { [refused("unauthorized")]: "0+6x20", [opened]: "0+60x20" }, 12, NONE),
    counted("a node drains", { [refused("draining")]: "0+60x20", [opened]: "0+6x20" }, 12, NONE),
    counted("a scanner at night", { [refused("unauthorized")]: "0+1x20", [opened]: NEVER }, 12, NONE),
  ],
  UserwireSendsUnavailable: [
    counted("one in ten is", { [sends("unavailable")]: "0+10x20", [sends("reached")]: "0+90x20" }, 10, ALL),
    counted("a single one", { [sends("unavailable")]: "0 0 1+0x20", [sends("reached")]: "0+1x20" }, 4, NONE),
    counted("nothing is sent", { [sends("unavailable")]: NEVER, [sends("reached")]: NEVER }, 10, NONE),
    counted("started again", { [sends("unavailable")]: AFRESH, [sends("reached")]: "90 90 0+0x20" }, 4, NONE),
  ],
  UserwireSendsSlow: [
    counted("half of them", durations("0+10x30", "0+20x30"), 15, ONE),
    counted("none", durations("0+20x30", "0+20x30"), 15, NONE),
    counted("one of few", durations("0+0x30", "0+1x30"), 15, NONE),
  ],
  UserwireNotDelivered: [
    counted("no message comes out", { [sends("reached")]: "0+10x20", [delivered]: "7+0x20" }, 12, ALL),
    counted("they do", { [sends("reached")]: "0+10x20", [delivered]: "0+10x20" }, 12, NONE),
    counted("nobody sends", { [sends("reached")]: "7+0x20", [delivered]: "7+0x20" }, 12, NONE),
  ],
  UserwireSendsRefused: [
    counted("one in three", { [sends("refused")]: "0+5x40", [sends("reached")]: "0+10x40" }, 25, ALL),
    counted("one in a hundred", { [sends("refused")]: "0+5x40", [sends("reached")]: "0+500x40" }, 25, NONE),
  ],
  UserwireHistoryLost: [
    counted("for many clients at once", { [epoch]: ONCE }, 4, ALL),
    counted("for one", { [epoch]: "0 0 1+0x20" }, 4, NONE),
    counted("started again", { [epoch]: AFRESH }, 4, NONE),
    counted("long ago", { [epoch]: ONCE }, 20, NONE),
  ],
  UserwireMessagesMissed: [
    counted("many of few", { [missed]: ONCE, [delivered]: "0+10x60" }, 5, ALL),
    counted("few of many", { [missed]: ONCE, [delivered]: "0+100000x60" }, 5, NONE),
    counted("none", { [missed]: NEVER, [delivered]: NEVER }, 5, NONE),
  ],
  UserwireSlowReaders: [
    counted("many of few", { [slow]: ONCE, [open]: "100+0x20" }, 4, ALL),
    counted("few of many", { [slow]: ONCE, [open]: "10000+0x20" }, 4, NONE),
    counted("started again", { [slow]: AFRESH, [open]: "100+0x20" }, 4, NONE),
  ],
  UserwireRequestsFailed: [
    counted("a third", requests("0+5x20", "0+10x20"), 10, ALL),
    counted("none", requests(NEVER, "0+10x20"), 10, NONE),
    counted("nobody asks", requests(NEVER, NEVER), 10, NONE),
  ],
  UserwireNodeDown: [
    counted("gone", { [of("up")]: "1 0+0x20" }, 5, ONE),
    counted("started again", { [of("up")]: "1 0 1+0x20" }, 2, NONE),
    counted("another program", { 'up{job="other",instance="a"}': "0+0x20" }, 5, NONE),
  ],
  UserwireRestarting: [
    counted("in circles", { [started]: "100 200 300 400+0x20" }, 5, ONE),
    counted("once, for an update", { [started]: "100 200+0x20" }, 5, NONE),
  ],
  UserwireNotReady: [
    counted("for long", { [ready]: "0+0x20", [available]: "1+0x20" }, 8, ONE),
    counted("for want of Redis", { [ready]: "0+0x20", [available]: "0+0x20" }, 8, NONE),
    counted("for a restart", { [ready]: "1 0 0 1+0x20", [available]: "1+0x20" }, 3, NONE),
  ],
  UserwireFull: [
    counted("the first is refused", { [refused("full")]: "0 0 1+0x20" }, 3, [{ ...NODE, code: "full" }]),
    counted(
      "refused for another reason",
      { [refused("unauthorized")]: ONCE, [refused("full")]: NEVER },
      3,
      NONE,
    ),
  ],
  UserwireOpenFiles: [
    counted(
      "most",
      { [of("userwire_open_files")]: "900+0x20", [of("userwire_open_files_limit")]: "1000+0x20" },
      5,
      ONE,
    ),
    counted(
      "some",
      { [of("userwire_open_files")]: "700+0x20", [of("userwire_open_files_limit")]: "1000+0x20" },
      5,
      NONE,
    ),
    counted("no limit known", { [of("userwire_open_files")]: "900+0x20" }, 5, NONE),
  ],
  UserwireLostSockets: [
    counted("five a minute", { [of("userwire_lost_sockets")]: "0+5x70" }, 60, ONE),
    counted("one a minute", { [of("userwire_lost_sockets")]: "0+1x70" }, 60, NONE),
    counted("started again", { [of("userwire_lost_sockets")]: "500 500 0+0x70" }, 60, NONE),
  ],
  UserwireCertificateEnding: [
    counted("in ten days", { [certificate]: `${10 * DAY}+0x20` }, 15, [{
      ...NODE,
      setting: "USERWIRE_TLS_CERT",
    }]),
    counted("in an hour", { [certificate]: `${DAY}+0x20` }, 15, NONE),
    counted("in thirty", { [certificate]: `${30 * DAY}+0x20` }, 15, NONE),
  ],
  UserwireCertificateEnded: [
    counted("in an hour", { [certificate]: "3600+0x20" }, 2, [{ ...NODE, setting: "USERWIRE_TLS_CERT" }]),
    counted("long ago", { [certificate]: "60+0x20" }, 20, [{ ...NODE, setting: "USERWIRE_TLS_CERT" }]),
    counted("in ten days", { [certificate]: `${10 * DAY}+0x20` }, 2, NONE),
  ],
  UserwireLogLinesLost: [
    counted("some", { [lostLines]: ONCE }, 4, ONE),
    counted("none", { [lostLines]: NEVER }, 4, NONE),
    counted("started again", { [lostLines]: AFRESH }, 4, NONE),
  ],
  UserwireRedisUnavailable: [
    counted("for minutes", { [available]: "1 0+0x20" }, 4, ONE),
    counted("for a moment", { [available]: "1 0 1+0x20" }, 2, NONE),
  ],
  UserwireRedisInterrupted: [
    counted("once", { [reconnects]: ONCE }, 4, ONE),
    counted("long ago", { [reconnects]: ONCE }, 30, NONE),
    counted("the node was started again", { [reconnects]: AFRESH }, 4, NONE),
  ],
  UserwireSubscriptionsLost: [
    counted("alone", { [interruptions]: ONCE, [reconnects]: NEVER }, 5, ONE),
    counted(
      "while Redis is away",
      {
        [interruptions]: ONCE,
        [reconnects]: NEVER,
        [available]: "1 1 0+0x20",
      },
      5,
      NONE,
    ),
    counted("with all of Redis", { [interruptions]: ONCE, [reconnects]: "0 0 1+0x20" }, 5, NONE),
  ],
  UserwireWarnings: [
    counted("for long", { [warnings]: "1+0x20" }, 8, ONE),
    counted("for a moment", { [warnings]: "0 1 0+0x20" }, 8, NONE),
  ],
  UserwireWebhookLate: [
    counted("for ten minutes", { [oldest]: "0+60x20" }, 10, ALL),
    counted("for a moment", { [oldest]: "30+0x20" }, 10, NONE),
  ],
  UserwireEventsDropped: [
    counted("some", { [dropped]: ONCE }, 4, ALL),
    counted("none", { [dropped]: NEVER }, 4, NONE),
    counted("started again", { [dropped]: AFRESH }, 4, NONE),
  ],
};
