/**
 * A sample client: how a connection opens and closes, seen from outside. It uses nothing of this project, only the
 * WebSocket every browser has, so it is a place to start for a client of your own. Start the service, then:
 *
 *     deno run --allow-net tests/client/sample_client.ts --user alice --seconds 30
 *
 * and send to alice from another terminal or from the page at http://127.0.0.1:8765/. Ctrl+C closes early.
 * Exit code 0: it was open and closed as it wanted. 1: it could not connect, or was closed by the other side.
 */
import { parseArgs } from "node:util";

const USAGE =
  "deno run --allow-net tests/client/sample_client.ts [--url ws://127.0.0.1:8765] [--user alice] [--raw] [--seconds 10]";

const startedMs = performance.now();

/** Writes one step with the time since the start. */
function say(step: string, text: string): void {
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(3).padStart(8);
  console.log(`${seconds} s  ${step.padEnd(10)}  ${text}`);
}

/** There are two ways to connect. */
function connect(url: string, user: string, raw: boolean): WebSocket {
  // Raw, as the oldest clients do it: the first frame says who it is, and what is sent to it arrives as it is.
  if (raw) return new WebSocket(new URL("/", url));
  // With frames: the address says who it is, and `userwire.v1` asks for JSON around each message.
  const address = new URL("/ws", url);
  address.searchParams.set("username", user);
  return new WebSocket(address, "userwire.v1");
}

/** Stays connected for a while; resolves with whether all went well. */
function run(options: { url: string; user: string; raw: boolean; seconds: number }): Promise<boolean> {
  const { url, user, raw, seconds } = options;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let messages = 0;
  let closesItself = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const socket = connect(url, user, raw);
  socket.binaryType = "arraybuffer";
  say("connecting", socket.url);

  function close(why: string): void {
    // 1000 is the normal end. A client of yours would not come back after it.
    say("closing", `with 1000: ${why}`);
    closesItself = true;
    socket.close(1000);
  }
  const interrupt = () => close("Ctrl+C");
  Deno.addSignalListener("SIGINT", interrupt);

  socket.onopen = () => {
    // With the name in the address no message is missed from here on. When a frame brings it, that begins a moment
    // later.
    say("open", raw ? "raw" : `subprotocol ${socket.protocol}`);
    timer = setTimeout(() => close(`${seconds} s are over`), seconds * 1000);
    if (raw) {
      socket.send(JSON.stringify({ user_name: user }));
      socket.send("ping");
      say("ping", `after the first frame, which said that this is ${user}`);
    }
  };

  socket.onmessage = ({ data }) => {
    if (raw && data === "pong") return say("pong", "the server answers");
    if (raw) {
      messages++;
      return say("message", typeof data === "string" ? data : `${data.byteLength} bytes`);
    }
    const frame = JSON.parse(data);
    switch (frame.t) {
      case "hi": // always the first frame
        return say("hi", `connection ${frame.conn} of ${frame.user} on ${frame.node}`);
      case "m":
        messages++;
        return say("message", JSON.stringify(frame.data));
      case "p": // nothing else was sent for a while
        return say("alive", "the server is still there");
      case "bye": // always the last frame, when it is the server that closes
        return say("bye", `${frame.code} ${frame.why}, come back in ${frame.retry_ms ?? "?"} ms`);
    } // Other frames are for newer clients.
  };

  socket.onerror = (event) => say("error", (event as ErrorEvent).message);

  socket.onclose = ({ code, reason }) => {
    clearTimeout(timer);
    Deno.removeSignalListener("SIGINT", interrupt);
    say("closed", `${code} ${reason || "(no reason)"}, after ${messages} messages`);
    resolve(closesItself && code === 1000);
  };
  return promise;
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      url: { type: "string", default: "ws://127.0.0.1:8765" },
      user: { type: "string", default: "alice" },
      raw: { type: "boolean", default: false },
      seconds: { type: "string", default: "10" },
    },
  });
  const seconds = Number(values.seconds);
  if (!(seconds >= 0)) throw new TypeError(`--seconds must be a number from 0 on: it is "${values.seconds}"`);
  return { ...values, seconds };
}

try {
  Deno.exitCode = await run(readArguments()) ? 0 : 1;
} catch (error) {
  console.error(`${(error as Error).message}\nUsage: ${USAGE}`);
  Deno.exitCode = 1;
}
