/**
 * A backend that sends by `userwire/publisher`, for Node: it does what the calls on its command line say, one after the
 * other, and writes what each came to as a line of JSON.
 *
 * `REDIS_CA`, `REDIS_CERT` and `REDIS_KEY` are its `redisTls`.
 *
 *     node publisher_program.js file:///…/publisher.js redis://127.0.0.1:6379 '["send", "alice", {"order": 7}]'
 */
import process from "node:process";

const [moduleUrl, redisUrl, ...calls] = process.argv.slice(2);
const { Publisher } = await import(moduleUrl);

function say(/** @type {unknown} */ what) {
  process.stdout.write(JSON.stringify(what) + "\n");
}

const { REDIS_CA: ca, REDIS_CERT: cert, REDIS_KEY: key } = process.env;
try {
  const publisher = await Publisher.open({ redisUrl, redisTls: { ca, cert, key } });
  for (const call of calls) {
    const [method, ...args] = JSON.parse(
      call,
      (_, value) => value?.bytes ? Uint8Array.from(value.bytes) : value,
    );
    try {
      const result = await publisher[method](...args);
      say(result instanceof Map ? Object.fromEntries(result) : result ?? null);
    } catch (error) {
      say({ error: error.name, message: error.message });
    }
  }
  await publisher.close();
} catch (error) {
  say({ error: error.name, message: error.message });
}
