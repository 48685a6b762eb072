/**
 * Honest users, in a thread of their own so that what the attackers do in theirs is not taken for the service's delay:
 * each is sent to over HTTP, one message after the other, and how long each message takes to arrive is noted.
 *
 * Beside them somebody asks `/healthz` again and again.
 *
 * In: `{ url, key, users }` to begin, `"report"`. Out: `"ready"`; to each report the times since the last one, in
 * milliseconds; `{ fault }` once something is not as it should be.
 */

interface Start {
  readonly url: string;
  readonly key: string;
  readonly users: readonly (readonly [username: string, socketUrl: string, subprotocols: string[]])[];
}

/** What was waited for since the last report, in milliseconds. */
export interface Report {
  readonly messages: readonly number[];
  readonly health: readonly number[];
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<Start | "report">) => void;
  postMessage(message: unknown): void;
};
/** Between two messages to a user: others are to have their turn. */
const PAUSE_MS = 5;

let tookMs: number[] = [];
let healthMs: number[] = [];

scope.onmessage = async ({ data }) => {
  if (data === "report") {
    scope.postMessage({ messages: tookMs, health: healthMs } satisfies Report);
    tookMs = [];
    healthMs = [];
    return;
  }
  try {
    const sockets = await Promise.all(data.users.map(([, url, protocols]) => open(url, protocols)));
    scope.postMessage("ready");
    await Promise.all([
      ...data.users.map(([username], i) => serve(username, sockets[i]!, data)),
      askHealth(data.url),
    ]);
  } catch (error) {
    scope.postMessage({ fault: String(error) });
  }
};

async function open(url: string, protocols: string[]): Promise<WebSocket> {
  const socket = new WebSocket(url, protocols);
  await new Promise<void>((resolve, reject) => {
    socket.onmessage = () => resolve(); // the greeting
    socket.onclose = ({ code }) => reject(new Error(`An honest socket was closed with ${code}`));
  });
  return socket;
}

/** Never resolves. @throws when a message is not delivered, or the socket closes. */
async function serve(username: string, socket: WebSocket, { url, key }: Start): Promise<never> {
  for (let n = 0;; n++) {
    const startMs = performance.now();
    const arrived = new Promise<void>((resolve, reject) => {
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.t === "m" && frame.data === n) resolve();
      };
      socket.onclose = ({ code }) => reject(new Error(`An honest socket was closed with ${code}`));
    });
    // It may reject while nobody waits for it yet.
    arrived.catch(() => {});
    const response = await fetch(`${url}v1/users/${username}/messages`, {
      method: "POST",
      headers: { "authorization": `Bearer ${key}`, "content-type": "application/json" },
      body: String(n),
    });
    const { sockets } = await response.json();
    if (sockets !== 1) throw new Error(`A send to an honest user was answered ${response.status}`);
    await arrived;
    tookMs.push(performance.now() - startMs);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Never resolves. @throws when the answer is not 200. */
async function askHealth(url: string): Promise<never> {
  while (true) {
    const startMs = performance.now();
    const response = await fetch(`${url}healthz`);
    await response.body?.cancel();
    if (!response.ok) throw new Error(`/healthz was answered ${response.status}`);
    healthMs.push(performance.now() - startMs);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
