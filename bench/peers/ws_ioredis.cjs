/**
 * The job of Userwire as a Node developer would write it for speed: `ws`, and one `ioredis` connection per process
 * for all subscriptions. No history, no limits, no log; bare `PUBLISH`, at most once.
 */
const { Redis } = require("ioredis");
const { WebSocketServer } = require("ws");

const subscriber = new Redis(process.env.REDIS_URL);
/** Username to the sockets of that user. */
const rooms = new Map();

subscriber.on("message", (username, payload) => {
  for (const socket of rooms.get(username) ?? []) socket.send(payload);
});

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.env.PORT),
});

server.on("connection", (socket, request) => {
  const username = new URL(request.url, "ws://localhost").searchParams.get(
    "username",
  );
  const room = rooms.get(username);
  if (room) {
    room.add(socket);
  } else {
    rooms.set(username, new Set([socket]));
    subscriber.subscribe(username).catch(() => socket.close(1013));
  }
  socket.on("error", () => {}); // it closes too
  socket.on("close", () => {
    const room = rooms.get(username);
    room.delete(socket);
    if (room.size > 0) return;
    rooms.delete(username);
    subscriber.unsubscribe(username).catch(() => {});
  });
});

server.on(
  "listening",
  () => console.log(`listening on http://127.0.0.1:${server.address().port}/`),
);
process.on("SIGTERM", () => process.exit(0));
