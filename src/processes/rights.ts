/**
 * What the program may do, as flags of `deno run` and `deno compile`: the service's own rights, with which each process of
 * several is started too. None may start programs; that is the supervisor's right alone.
 */
export const PERMISSIONS: readonly string[] = [
  "--allow-net",
  "--allow-env",
  "--allow-read",
  "--allow-write",
  "--allow-sys=hostname",
  // Deno allows imports from a list of hosts unless told not to.
  "--deny-import",
  // A service has nobody to ask for more.
  "--no-prompt",
];

/**
 * Bounded spaces for young objects: sockets live long, and much of what V8 would set aside stays empty. With 5,000
 * sockets a quarter less memory, and no more CPU.
 */
export const V8_FLAGS = "--v8-flags=--max-semi-space-size=16";
