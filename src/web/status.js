/**
 * The top bar and the notices: asks `/readyz` while the page is visible and says in words what it learns.
 */
import { showAccess } from "./access.js";
import { byId, clockOf, setText } from "./dom.js";

const EVERY_MS = 10_000;

/** When something was heard of the service the last time, in Unix milliseconds. */
let heardAt = Date.now();

/**
 * Keeps the bar true from now on.
 * @param {(readiness: Readiness) => void} first Hears what comes first.
 * @returns {{ refresh: () => void, show: (readiness: Readiness) => void, ask: () => void }}
 *   `refresh` asks soon: for changes that the page itself has caused. Many calls make one question. `show` is told what
 *   came by another way, so that it need not be asked for; `ask` asks now.
 */
export function watchService(first) {
  /** @type {number | undefined} */
  let timer;
  let asking = false;

  async function ask() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    const answer = await readiness();
    show(answer);
    if (typeof answer !== "string") tellFirst(answer);
    asking = false;
    if (document.visibilityState === "visible") timer = setTimeout(ask, EVERY_MS);
  }

  const whenVisible = () => {
    if (document.visibilityState === "visible") ask();
    else clearTimeout(timer);
  };
  addEventListener("focus", ask);
  addEventListener("online", ask);
  document.addEventListener("visibilitychange", whenVisible);

  /** @type {typeof first | undefined} */
  let waiting = first;
  function tellFirst(/** @type {Readiness} */ answer) {
    waiting?.(answer);
    waiting = undefined;
  }
  ask();

  return {
    ask,
    refresh() {
      clearTimeout(timer);
      timer = setTimeout(ask, 250);
    },
    show(answer) {
      clearTimeout(timer);
      timer = setTimeout(ask, EVERY_MS);
      show(answer);
    },
  };
}

/**
 * @typedef {{ ready: boolean, broker: string, node: string, open: boolean, connections: number, why?: string }} Readiness
 * @returns {Promise<Readiness | string>} What the service says, or why it says nothing.
 */
async function readiness() {
  try {
    const response = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(5_000) });
    // 503 is an answer too: it carries the same body.
    return await response.json();
  } catch {
    return "This address does not answer";
  }
}

function show(/** @type {Readiness | string} */ answer) {
  const down = byId("notice-down");
  if (typeof answer === "string") {
    byId("service").dataset.state = "down";
    setText(byId("service-state"), "Unreachable");
    // What was true of it may not be any more.
    setText(byId("service-connections"), "–");
    setText(
      down,
      `${answer}: it did for the last time at ${clockOf(heardAt)}. Asking again every ${EVERY_MS / 1000} s.`,
    );
    down.hidden = false;
    return;
  }
  heardAt = Date.now();
  byId("service").dataset.state = answer.ready ? "ready" : "down";
  setText(byId("service-state"), answer.ready ? "Ready" : "Not ready");
  setText(byId("service-node"), String(answer.node));
  setText(byId("service-broker"), answer.broker === "redis" ? "Redis" : String(answer.broker));
  setText(byId("service-connections"), String(answer.connections));
  setText(down, answer.ready ? "" : `Not ready: ${answer.why ?? "no reason given"}.`);
  down.hidden = answer.ready;
  byId("notice-open").hidden = !answer.open;
  showAccess(!answer.open);
  byId("notice-memory").hidden = answer.broker !== "memory";
  document.title = `Userwire · ${answer.node}`;
}
