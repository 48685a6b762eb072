/**
 * A program that uses the built client where there is little, after `bare_runtime.js`. It writes what a request is answered
 * with, and what is said of a server that is no Userwire.
 *
 *     deno run --preload bare_runtime.js bare_program.js file:///…/client.js http://127.0.0.1:8765 http://127.0.0.1:8080
 */
import process from "node:process";

const [clientUrl, serviceUrl, otherUrl] = process.argv.slice(2);
const { connect, RefusedError } = await import(clientUrl);

const client = connect(`${serviceUrl}ws?tenant=1`, { user: "Zoë" });
const { user, data } = await client.request("echo", { order: 7 });
await client.close();

const vain = connect(otherUrl, { user: "Zoë", transport: "websocket", backoff: { baseMs: 20 } });
const error = await new Promise((resolve) => vain.on("error", resolve));
await vain.close();
process.stdout.write(JSON.stringify([user, data, error instanceof RefusedError, error.code]));
