/**
 * The clients and backends of the Python version, unchanged: what they write is here byte for byte, and they get what
 * they are used to. `docs/coming_from_python.md` says what is different; that it names every setting is tested too.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { SETTINGS } from "../../src/config/settings.ts";
import { HeldSeconds } from "../../testkit/held_timers.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";

/** As its sample client does: by the unspecified address, with what the library `websockets` writes. */
async function connectAsPython(service: Service): Promise<RawSocket> {
  const { port } = service.server;
  const socket = await RawSocket.dial(`ws://0.0.0.0:${port}`);
  const key = crypto.getRandomValues(new Uint8Array(16)).toBase64();
  socket.sendBytes(
    `GET / HTTP/1.1\r\nHost: 0.0.0.0:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n` +
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
      "User-Agent: Python/3.10 websockets/10.1\r\n\r\n",
  );
  const { status, headers } = await socket.readAnswer();
  assertEquals(status, 101);
  assertEquals(headers.get("sec-websocket-extensions"), null, "nothing that was not asked for");
  return socket;
}

/** Its settings, as the page translates them. */
const SETTINGS_OF_PYTHON = { HOST: "0.0.0.0", USERWIRE_OPEN: "true", USERWIRE_USERNAME_CASE: "lower" };

for (
  const [where, env] of [
    ["on every interface", SETTINGS_OF_PYTHON],
    ["with settings of its own", { USERWIRE_USERNAME_CASE: "lower" }],
    ["with shared subscriptions", { ...SETTINGS_OF_PYTHON, USERWIRE_SUBSCRIPTIONS: "shared" }],
  ] as const
) {
  redisTest(`A client and a backend of the Python version work unchanged, ${where}`, async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url, ...env });
    const name = "37gGsvs0ghz3ittPe7d24R", channel = name.toLowerCase();
    await using socket = await connectAsPython(service);
    // It may ask whether anybody is there before it says who it is, and does again and again.
    socket.sendText("ping");
    assertEquals(await socket.readText(), "pong");
    socket.sendText("ping");
    assertEquals(await socket.readText(), "pong");
    socket.sendText(`{"user_name": "${name}"}`);
    socket.sendText("ping");
    assertEquals(await socket.readText(), "pong");

    // The backend looks whether the channel is there, then publishes: two commands of any Redis client.
    await new Truth(redis).untilCount(channel, 1);
    assertEquals(await redis.cli("PUBSUB", "NUMSUB", channel), [channel, 1]);
    assertEquals(await redis.cli("PUBSUB", "CHANNELS", channel), [channel]);
    assertEquals(await redis.cli("PUBSUB", "CHANNELS", name), []);
    const event = '{"event_type": "order", "message": "Websocket test for 37gGsvs0ghz3ittPe7d24R \\u00e9"}';
    assertEquals(await redis.cli("PUBLISH", channel, event), 1);
    assertEquals(await socket.readText(), event);

    // It says its name again, and other things: no answer, no second subscription, and the socket stays.
    socket.sendText(`{"user_name": "${name}"}`);
    socket.sendText('{"seen": 7}');
    socket.sendText("ping");
    assertEquals(await socket.readText(), "pong");
    assertEquals(await redis.cli("PUBSUB", "NUMSUB", channel), [channel, 1]);

    socket.sendClose(1000);
    assertEquals((await socket.readClose()).code, 1000);
    await new Truth(redis).untilCount(channel, 0);
    assertEquals(
      await redis.cli("PUBSUB", "CHANNELS", channel),
      [],
      "what the backend looks at is true at once",
    );
  });
}

Deno.test("A ping before the name gives no more time to say it, and counts against the limits of frames", async () => {
  {
    // The time is up when the test says so, not while a busy machine has not answered yet.
    using seconds = new HeldSeconds();
    await using service = await Service.start({ USERWIRE_IDENTITY_TIMEOUT_S: "1" });
    await using patient = await RawSocket.open(service.socketUrl());
    seconds.run();
    patient.sendText("ping");
    assertEquals(await patient.readText(), "pong");
    seconds.run();
    assertEquals((await patient.readClose()).code, 4408);
  }
  await using service = await Service.start({ USERWIRE_MAX_FRAMES_PER_SECOND: "10" });
  await using hasty = await RawSocket.open(service.socketUrl());
  hasty.sendTexts(Array(50).fill("ping"));
  assertEquals((await hasty.readClose()).code, 4429);
});

Deno.test("The page for those who come from the Python version speaks of settings that exist, and of all that matter", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/coming_from_python.md", import.meta.url));
  const known = Object.values(SETTINGS).map(({ env }) => env as string);
  const named = [...page.matchAll(/`((?:USERWIRE|LOG|REDIS)_[A-Z_]+|HOST|PORT)\b/g)].map(([, name]) => name!);
  for (const name of named) assert(known.includes(name), name);
  for (
    const name of [
      ...["HOST", "USERWIRE_OPEN", "USERWIRE_USERNAME_CASE", "USERWIRE_IDENTITY_TIMEOUT_S", "LOG_ROTATE"],
      ...["USERWIRE_ALLOWED_ORIGINS", "USERWIRE_MAX_FRAME_BYTES", "USERWIRE_MAX_CONNECTIONS_PER_USER"],
    ]
  ) {
    assertStringIncludes(page, name);
  }
});
