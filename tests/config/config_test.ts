/** The table of settings: what is accepted, what every fault says, and that a secret is never shown. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertThrows } from "@std/assert";
import { type Config, type Setting, SETTINGS, type Sources } from "../../src/config/settings.ts";
import { loadConfig } from "../../testkit/config.ts";
import { ConfigError } from "../../src/protocol/errors.ts";

function faultsOf(sources: Sources): readonly string[] {
  return assertThrows(() => loadConfig(sources), ConfigError).faults;
}

/** The only fault there is. */
function faultOf(sources: Sources): string {
  const faults = faultsOf(sources);
  assertEquals(faults.length, 1, faults.join("\n"));
  return faults[0]!;
}

Deno.test("readConfig gives every setting its default, and freezes the whole", () => {
  const config: Config = loadConfig({});
  assertEquals(config, {
    host: "127.0.0.1",
    port: 8765,
    redisUrl: undefined,
    redisUrlFile: undefined,
    redisSentinelUser: undefined,
    redisSentinelPassword: undefined,
    redisFunctions: "off",
    redisCa: undefined,
    redisCert: undefined,
    redisKey: undefined,
    processes: 1,
    opsHost: "127.0.0.1",
    opsPort: undefined,
    logLevel: "info",
    logDir: "logs",
    logFormat: "pretty",
    logMaxBytes: 10 * 1024 * 1024,
    logRotate: "size",
    logMaxFiles: 5,
    open: false,
    apiKeys: undefined,
    apiKeysFile: undefined,
    jwtSecret: undefined,
    jwtPublicKey: undefined,
    jwksUrl: undefined,
    jwtAlgorithms: [],
    jwtIssuer: undefined,
    jwtAudience: undefined,
    jwtClockToleranceS: 5,
    maxTokenLifeS: 2_592_000,
    tokenInQuery: false,
    ticketTtlS: 30,
    publicUrl: undefined,
    page: "on",
    openapi: "on",
    metrics: "key",
    tlsCert: undefined,
    tlsKey: undefined,
    node: undefined,
    subscriptions: "dedicated",
    sharedConnections: 1,
    channelPrefix: "",
    history: 100,
    historyTtlS: 300,
    maxReplay: 300,
    broadcastRaw: false,
    usernameCase: "keep",
    allowedOrigins: [],
    maxConnections: 10_000,
    maxConnectionsPerUser: 20,
    onTooMany: "refuse",
    maxConnectionsPerAddress: 2_000,
    upgradesPerSecond: 500,
    trustedProxies: [],
    maxFrameBytes: 65_536,
    maxFramesPerSecond: 100,
    maxBytesPerSecond: 4_194_304,
    maxHeaderBytes: 65_536,
    maxFanoutBytes: 64 * 1024 * 1024,
    maxGroupUsers: 10_000,
    maxGroupSends: 2,
    maxBodyBytes: 65_536,
    bodyTimeoutS: 10,
    maxBufferedBytes: 1_048_576,
    pingS: 25,
    idleTimeoutS: 30,
    identityTimeoutS: 5,
    slowTimeoutS: 10,
    redisTimeoutMs: 3000,
    webhookUrl: undefined,
    webhookSecrets: undefined,
    webhookEvents: ["users"],
    webhookTimeoutMs: 5000,
    offlineAfterS: 15,
    drainS: 10,
  });
  assert(Object.isFrozen(config));
  assert(
    Object.isFrozen(loadConfig({ env: { USERWIRE_ALLOWED_ORIGINS: "https://a.example" } }).allowedOrigins),
  );
});

Deno.test("readConfig lets a flag win over its variable", () => {
  const env = { PORT: "1", USERWIRE_MAX_FRAME_BYTES: "2", LOG_LEVEL: "warn" };
  const config = loadConfig({ env, flags: { port: "3", "max-frame-bytes": "4", "log-level": undefined } });
  assertEquals([config.port, config.maxFrameBytes, config.logLevel], [3, 4, "warn"]);
});

Deno.test("readConfig takes an empty value as unset, whoever gave it", () => {
  const env = { PORT: "", REDIS_URL: "redis://localhost", USERWIRE_CHANNEL_PREFIX: "", USERWIRE_TYPO: "" };
  const config = loadConfig({ env, flags: { "redis-url": "" } });
  assertEquals([config.port, config.redisUrl, config.channelPrefix], [8765, undefined, ""]);
});

Deno.test("readConfig reads booleans as true, false, 1, 0 and bare flags", () => {
  for (const text of ["true", "1", "TRUE"]) {
    assertEquals(loadConfig({ env: { USERWIRE_OPEN: text } }).open, true);
  }
  for (const text of ["false", "0"]) assertEquals(loadConfig({ env: { USERWIRE_OPEN: text } }).open, false);
  assertEquals(loadConfig({ env: { USERWIRE_OPEN: "false" }, flags: { open: true } }).open, true);
  assertEquals(loadConfig({ env: { USERWIRE_OPEN: "true" }, flags: { open: false } }).open, false);
  for (const text of ["yes", "2", "constructor"]) {
    assertMatch(
      faultOf({ env: { USERWIRE_OPEN: text } }),
      /^USERWIRE_OPEN must be true, false, 1 or 0, but is "/,
    );
  }
});

Deno.test("readConfig refuses numbers that are none or out of range, and quotes them", () => {
  for (const text of ["abc", "70000", "-1", "1.5", " 8765", "0x10", "1e3", "Infinity"]) {
    assertEquals(
      faultOf({ env: { PORT: text } }),
      `PORT must be a whole number from 0 to 65535, but is "${text}": correct it, or leave it out (default: 8765)`,
    );
  }
  assertMatch(
    faultOf({ env: { USERWIRE_PING_S: "0" } }),
    /whole number of seconds from 1 .*\(default: 25 seconds\)$/,
  );
  for (const text of ["0", "1023", "65537", "16k"]) {
    assertMatch(
      faultOf({ env: { USERWIRE_MAX_HEADER_BYTES: text } }),
      /whole number of bytes from 1024 to 65536, .*\(default: 65536 bytes\)$/,
    );
  }
  assertEquals(loadConfig({ env: { USERWIRE_DRAIN_S: "0", PORT: "0" } }).drainS, 0);
});

Deno.test("readConfig names the flag when the flag is at fault", () => {
  assertMatch(faultOf({ env: { PORT: "1" }, flags: { port: "x" } }), /^--port must be .* but is "x"/);
  assertMatch(faultOf({ flags: { "log-dir": true } }), /^--log-dir needs a value: give text/);
});

Deno.test("readConfig takes a number of processes, or auto, and says what several of them need", () => {
  const redis = { REDIS_URL: "redis://localhost" };
  const read = (env: Record<string, string>) => loadConfig({ env: { ...redis, ...env } });
  assertEquals(read({ USERWIRE_PROCESSES: "Auto" }).processes, "auto");
  assertEquals(read({ USERWIRE_PROCESSES: "4", USERWIRE_OPS_PORT: "9000" }).opsPort, 9000);
  assertEquals(loadConfig({ env: { USERWIRE_PROCESSES: "1" } }).processes, 1);
  for (const text of ["0", "257", "many"]) {
    assertMatch(
      faultOf({ env: { ...redis, USERWIRE_PROCESSES: text } }),
      /^USERWIRE_PROCESSES must be a whole number from 1 to 256, or auto, but is /,
    );
  }
  const several = { ...redis, USERWIRE_PROCESSES: "2" };
  const faults: [env: Record<string, string>, fault: RegExp][] = [
    [{ USERWIRE_PROCESSES: "auto" }, /^USERWIRE_PROCESSES needs Redis, .*: set REDIS_URL, or /],
    [
      { USERWIRE_OPS_PORT: "9000" },
      /^USERWIRE_OPS_PORT is where several .*: set USERWIRE_PROCESSES too, or /,
    ],
    [{ ...several, PORT: "65535" }, /^USERWIRE_OPS_PORT has no default when PORT is 65535/],
    [{ ...several, PORT: "99", USERWIRE_OPS_PORT: "99" }, /^USERWIRE_OPS_PORT must not be PORT, 99/],
    [
      { ...several, USERWIRE_OPS_HOST: "0.0.0.0" },
      /^USERWIRE_OPS_HOST "0\.0\.0\.0" can be reached .* metrics/,
    ],
  ];
  for (const [env, fault] of faults) assertMatch(faultOf({ env }), fault);
  read({ ...several, USERWIRE_OPS_HOST: "0.0.0.0", USERWIRE_OPEN: "true" });
  read({ ...several, USERWIRE_OPS_HOST: "0.0.0.0", USERWIRE_JWT_SECRET: "x".repeat(32) });
});

Deno.test("readConfig takes a choice in any letter case, and lists the choices for a wrong one", () => {
  assertEquals(loadConfig({ env: { LOG_LEVEL: "WARN", USERWIRE_USERNAME_CASE: "Lower" } }).logLevel, "warn");
  assertMatch(faultOf({ env: { LOG_FORMAT: "xml" } }), /^LOG_FORMAT must be pretty or json, but is "xml"/);
});

Deno.test("readConfig names the nearest setting for an unknown USERWIRE_ variable, and leaves others alone", () => {
  const nearest = {
    USERWIRE_PINGS_S: "USERWIRE_PING_S",
    USERWIRE_MAX_FRAME_BYTE: "USERWIRE_MAX_FRAME_BYTES",
    USERWIRE_ALLOW_ORIGINS: "USERWIRE_ALLOWED_ORIGINS",
    USERWIRE_PORT: "PORT",
    USERWIRE_REDIS_URL: "REDIS_URL",
    USERWIRE_URI: "USERWIRE_URL",
  };
  for (const [name, meant] of Object.entries(nearest)) {
    const fault = faultOf({ env: { [name]: "secret" } });
    assertEquals(fault, `${name} is not a setting: remove it, or rename it to ${meant} if that is meant`);
  }
  loadConfig({ env: { USERWIRE_URL: "http://127.0.0.1:1", PATH: "/bin", LOG_LEVELS: "x", userwire_x: "y" } });
});

Deno.test("readConfig suggests no name for an unknown one that is near to none", () => {
  for (const name of ["USERWIRE_X", "USERWIRE_SERVICE_PORT", "USERWIRE_FOO_BAR", "USERWIRE_PORT_8765_TCP"]) {
    assertEquals(
      faultOf({ env: { [name]: "8765" } }),
      `${name} is not a setting: remove it; "userwire serve --help" lists every setting`,
    );
  }
});

/** What a pod gets for a Service with a named port, as the documentation of Kubernetes has it. */
function serviceVariables(name: string, host = "10.0.0.11"): Record<string, string> {
  const address = host.includes(":") ? `[${host}]` : host;
  return {
    [`${name}_SERVICE_HOST`]: host,
    [`${name}_SERVICE_PORT`]: "8765",
    [`${name}_SERVICE_PORT_HTTP_WS`]: "8765",
    [`${name}_PORT`]: `tcp://${address}:8765`,
    [`${name}_PORT_8765_TCP`]: `tcp://${address}:8765`,
    [`${name}_PORT_8765_TCP_PROTO`]: "tcp",
    [`${name}_PORT_8765_TCP_PORT`]: "8765",
    [`${name}_PORT_8765_TCP_ADDR`]: host,
    [`${name}_PORT_53_UDP`]: `udp://${address}:53`,
    [`${name}_PORT_53_UDP_ADDR`]: host,
  };
}

Deno.test("readConfig passes over the variables that Kubernetes makes for services called userwire", () => {
  const env = {
    ...serviceVariables("USERWIRE"),
    ...serviceVariables("USERWIRE_API", "fd00::11"),
    ...serviceVariables("USERWIRE_SERVICE"),
    USERWIRE_DRAIN_S: "7",
  };
  const config = loadConfig({ env });
  assertEquals([config.port, config.drainS], [8765, 7]);
  // Beside them a mistake is still one.
  const mistakes = {
    USERWIRE_PINGS_S: "1",
    USERWIRE_NAME: "a",
    USERWIRE_ENV_X: "x",
    USERWIRE_PORTS: "tcp://10.0.0.11:8765",
    USERWIRE_OTHER_SERVICE_HOST: "10.0.0.11",
  };
  const names = faultsOf({ env: { ...env, ...mistakes } }).map((fault) => fault.split(" ")[0]);
  assertEquals(names, Object.keys(mistakes));
});

Deno.test("readConfig passes over the variables that Docker makes for a link called userwire", () => {
  const env = {
    USERWIRE_NAME: "/web/userwire",
    USERWIRE_PORT: "tcp://172.17.0.5:8765",
    USERWIRE_PORT_8765_TCP_START: "tcp://172.17.0.5:8765",
    USERWIRE_PORT_8765_TCP_END: "tcp://172.17.0.5:8767",
    USERWIRE_ENV_USERWIRE_OPEN: "true",
  };
  assertEquals(loadConfig({ env }).open, false);
});

Deno.test("readConfig reports all faults at once, in the order of the table, unknown names last", () => {
  const env = { USERWIRE_X: "1", USERWIRE_DRAIN_S: "x", HOST: "0.0.0.0", LOG_LEVEL: "loud", PORT: "-1" };
  const names = faultsOf({ env }).map((fault) => fault.split(" ")[0]);
  assertEquals(names, ["PORT", "LOG_LEVEL", "USERWIRE_DRAIN_S", "HOST", "USERWIRE_X"]);
});

Deno.test("readConfig accepts the URLs that Redis clients accept", () => {
  for (
    const url of [
      "redis://localhost",
      "redis://localhost:6379/0",
      "redis://user:p%40ss@redis.example:6380/15",
      "redis://:pass@[::1]:6379/",
      "rediss://user:pass@redis.example",
      "unix:///run/redis.sock",
      "unix://user:pass@/run/redis.sock?db=1",
    ]
  ) assertEquals(loadConfig({ env: { REDIS_URL: url, USERWIRE_CHANNEL_PREFIX: "a:" } }).redisUrl, url);
});

Deno.test("readConfig refuses a database of Redis without a prefix, because channels know no databases", () => {
  const bad = [
    "redis://localhost/3",
    "rediss://user:hunter2@localhost:6380/15",
    "redis://localhost/3?x=1",
    "unix:///run/redis.sock?db=1",
    "unix:///run/redis.sock?x=1&db=2",
  ];
  for (const url of bad) {
    const fault = faultOf({ env: { REDIS_URL: url } });
    assertMatch(
      fault,
      /^REDIS_URL names database \d+, .*: set USERWIRE_CHANNEL_PREFIX .*, or use database 0$/,
    );
    assertNotMatch(fault, /hunter2/);
    loadConfig({ env: { REDIS_URL: url, USERWIRE_CHANNEL_PREFIX: "a:" } });
  }
  const good = ["redis://localhost", "redis://localhost/", "redis://localhost/0", "redis://localhost/00"];
  for (const url of [...good, "unix:///run/3/redis.sock", "unix:///run/redis.sock?db=0"]) {
    assertEquals(loadConfig({ env: { REDIS_URL: url } }).redisUrl, url);
  }
});

Deno.test("readConfig refuses other URLs for Redis, shows a right one, and never the password", () => {
  for (
    const url of [
      "hunter2",
      "localhost:hunter2",
      "http://:hunter2@localhost",
      "redis:hunter2",
      "redis://:hunter2@",
      "redis://:hunter2#x@localhost",
      "redis://:hunter2%@localhost",
      "redis://user:hunter2@localhost/db",
      "redis://user:hunter2@local host",
      "unix://hunter2",
      "unix:///",
    ]
  ) {
    const fault = faultOf({ env: { REDIS_URL: url } });
    assertMatch(fault, /^REDIS_URL must be a URL such as redis:\/\/user:password@localhost:6379\/0/);
    assertNotMatch(fault, /hunter2/);
  }
});

Deno.test("readConfig keeps to loopback unless the service is opened aloud", () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) {
    assertEquals(loadConfig({ env: { HOST: host } }).host, host);
  }
  for (const host of ["0.0.0.0", "::", "192.168.1.2", "127.0.0.1.example.com", "localhost.example.com"]) {
    assertMatch(
      faultOf({ env: { HOST: host } }),
      /^HOST ".*" can be reached from other .* set USERWIRE_OPEN=true /,
    );
    assertEquals(loadConfig({ env: { HOST: host, USERWIRE_OPEN: "true" } }).host, host);
  }
  // One fault, not two: nobody knows yet whether it is open.
  assertMatch(faultOf({ env: { HOST: "::", USERWIRE_OPEN: "yes" } }), /^USERWIRE_OPEN must be/);
});

Deno.test("readConfig refuses a host with a scheme, a port or white space", () => {
  for (const host of ["http://localhost", "localhost:8765", "127.0.0.1:80", "a b", "[::1]", ":"]) {
    assertMatch(
      faultOf({ env: { HOST: host } }),
      /^HOST must be an address or a host name, without a port, but is "/,
    );
  }
});

Deno.test("readConfig refuses a channel prefix that can't stand in channels and keys, or is another's", () => {
  assertEquals(loadConfig({ env: { USERWIRE_CHANNEL_PREFIX: "prod:é:" } }).channelPrefix, "prod:é:");
  for (
    const prefix of [
      "a b",
      "a\t",
      "a\u0000",
      "a\u0085",
      "\u00a0",
      "\u2028",
      "{a}",
      "a{",
      "}a",
      "userwire:",
      "__",
      "\ufffd",
    ]
  ) {
    assertMatch(
      faultOf({ env: { USERWIRE_CHANNEL_PREFIX: prefix } }),
      /^USERWIRE_CHANNEL_PREFIX must be text without/,
    );
  }
});

Deno.test("readConfig reads origins as browsers write them", () => {
  const read = (text: string) => loadConfig({ env: { USERWIRE_ALLOWED_ORIGINS: text } }).allowedOrigins;
  assertEquals(read("https://App.example.com:443/, http://localhost:3000"), [
    "https://app.example.com",
    "http://localhost:3000",
  ]);
  assertEquals(read("*"), ["*"]);
  assertEquals(read("capacitor://localhost,"), ["capacitor://localhost"]);
  assertEquals(read("https://*.Example.com:443/, null, file:///"), [
    "https://*.example.com",
    "null",
    "file://",
  ]);
  for (
    const text of [
      "app.example.com",
      "https://a.example/path",
      "https://*",
      "https://a.*.example",
      "https://a.example https://b",
    ]
  ) {
    assertMatch(faultOf({ env: { USERWIRE_ALLOWED_ORIGINS: text } }), /list of origins such as .* but is "/);
  }
});

Deno.test("readConfig reads where clients find the service, as the start of an address of sockets", () => {
  const read = (text: string) => loadConfig({ env: { USERWIRE_PUBLIC_URL: text } }).publicUrl;
  assertEquals(read("wss://push.example.com"), "wss://push.example.com");
  assertEquals(read("HTTPS://Push.example.com:443/"), "wss://push.example.com");
  assertEquals(read("https://example.com/a/push//"), "wss://example.com/a/push");
  assertEquals(read("http://[::1]:8765"), "ws://[::1]:8765");
  for (
    const text of [
      "push.example.com",
      "//push.example.com",
      "redis://push.example.com",
      "wss://",
      "wss://push.example.com/ws",
      "wss://example.com/push/ws/",
      "wss://push.example.com?x=1",
      "wss://push.example.com#x",
      "wss://user@push.example.com",
      "wss://a.example, wss://b.example",
    ]
  ) {
    assertMatch(
      faultOf({ env: { USERWIRE_PUBLIC_URL: text } }),
      /^USERWIRE_PUBLIC_URL must be an address such as wss:\/\/push\.example\.com .* but is "/,
    );
  }
});

Deno.test("SETTINGS has one name for each thing: flag, variable and key agree", () => {
  for (const [key, { env, flag }] of Object.entries(SETTINGS)) {
    assertEquals(flag, env.replace(/^USERWIRE_/, "").toLowerCase().replaceAll("_", "-"));
    assertEquals(key.toLowerCase(), flag.replaceAll("-", ""));
  }
});

Deno.test("SETTINGS has no default that would be refused as a value", () => {
  for (const { env, kind, fallback } of Object.values<Setting<unknown>>(SETTINGS)) {
    if (fallback !== undefined) assertEquals(kind.parse(String(fallback)), fallback, env);
  }
});
