/** What no process of ours may write, wherever and however it was started: its own secrets, and whatever looks like one. */

/** Settings that hold nothing else. */
const SECRET_SETTINGS = ["USERWIRE_JWT_SECRET", "USERWIRE_JWT_PUBLIC_KEY"];
const PATTERNS: readonly (readonly [what: string, pattern: RegExp])[] = [
  ["a token", /eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*/],
  ["an API key", /uw_[A-Za-z0-9-]{1,32}_[\w-]{43}/],
  ["a ticket", /ticket=[\w-]{43}/],
];

/**
 * Searches what a process with these settings writes.
 * @returns Which kinds of secrets are in a text.
 */
export function secretsIn(env: Readonly<Record<string, string>>): (text: string) => string[] {
  const own = new Map<string, string>();
  for (const name of SECRET_SETTINGS) if (env[name]) own.set(env[name], name);
  const password = URL.parse(env.REDIS_URL ?? "")?.password;
  if (password) own.set(decodeURIComponent(password), "the password of Redis");
  for (const line of (env.USERWIRE_API_KEYS ?? "").split(",")) {
    const hash = line.split(":").at(3);
    if (hash) own.set(hash, "the hash of an API key");
  }
  return (text) => [
    ...[...own].filter(([secret]) => text.includes(secret)).map(([, name]) => name),
    ...PATTERNS.filter(([, pattern]) => pattern.test(text)).map(([what]) => what),
  ];
}
