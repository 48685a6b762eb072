/**
 * The job of Userwire as it is commonly written with one Redis connection per socket: `ws` and `redis`, connected
 * and subscribed after the handshake was answered. No history, no limits, no log; bare `PUBLISH`, at most once.
 */
const { createClient } = require("redis");
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.env.PORT),
});

server.on("connection", async (socket, request) => {
  const username = new URL(request.url, "ws://localhost").searchParams.get(
    "username",
  );
  const subscriber = createClient({ url: process.env.REDIS_URL });
  const release = () => {
    if (subscriber.isOpen) subscriber.destroy();
  };
  subscriber.on("error", () => socket.close(1013));
  socket.on("error", () => {}); // it closes too
  socket.on("close", release);
  try {
    await subscriber.connect();
    await subscriber.subscribe(username, (payload) => socket.send(payload));
  } catch {
    socket.close(1013);
  }
  // The client may have left before there was anything to release.
  if (socket.readyState !== socket.OPEN) release();
});

server.on(
  "listening",
  () => console.log(`listening on http://127.0.0.1:${server.address().port}/`),
);
process.on("SIGTERM", () => process.exit(0));
