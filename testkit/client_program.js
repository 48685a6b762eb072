/**
 * A program that uses the built client, for runtimes other than this one: it connects as alice and writes what it is
 * told as lines of JSON, until the message "end".
 *
 *     node client_program.js file:///…/client.js http://127.0.0.1:8765
 */
import process from "node:process";

const [clientUrl, serviceUrl] = process.argv.slice(2);
const { connect } = await import(clientUrl);

function say(/** @type {unknown} */ what) {
  process.stdout.write(JSON.stringify(what) + "\n");
}

const client = connect(serviceUrl, { user: "alice", backoff: { baseMs: 20 } });
client.on("state", (/** @type {string} */ state) => say({ state }));
client.on("gap", (/** @type {unknown} */ gap) => say({ gap }));
client.on("error", (/** @type {Error} */ { message }) => say({ error: message }));
client.on(
  "lost",
  (/** @type {{ code: number, opened: boolean }} */ { code, opened }) => say({ code, opened }),
);
for await (const { data, seq } of client) {
  if (data === "end") break;
  say({ seq, data: data instanceof Uint8Array ? { bytes: [...data] } : data });
}
say({ closed: await client.close() });
