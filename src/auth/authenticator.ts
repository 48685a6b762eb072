/** Makes the one `Auth` of a process out of the settings: reads the keys, opens the verifier of tokens, picks the store. */
import type { Broker } from "../broker/broker.ts";
import { ConfigError, messageOf, orFaults, UnauthorizedError } from "../protocol/errors.ts";
import type { Scripts } from "../redis/commands.ts";
import type { Auth } from "./auth.ts";
import { openVerifier, type TokenOptions } from "./jwt.ts";
import { KeyRing, type KnownKey, parseKeyLines } from "./keys.ts";
import { MemoryTtlStore } from "./ttl_store_memory.ts";
import { RedisTtlStore } from "./ttl_store_redis.ts";
import { Revocations } from "./revocations.ts";
import { Tickets } from "./tickets.ts";

export interface AuthOptions {
  /** Hash lines of API keys. */
  apiKeys?: string | undefined;
  /** Path of a file of them, absolute. */
  apiKeysFile?: string | undefined;
  tokens: TokenOptions;
  channelPrefix: string;
}

/** What joins the nodes; stays the caller's to close. */
export interface AuthContext {
  /** Where tickets and revocations are kept and orders to close go out; undefined for in memory. */
  readonly redis: Scripts | undefined;
  /** Tells sockets what was revoked, where all is in memory. */
  readonly broker: Broker;
}

/**
 * Checks the settings. What it returns opens at once.
 * @throws {ConfigError} with every fault of keys and tokens.
 */
export function prepareAuth(options: AuthOptions): (context: AuthContext) => Auth {
  const faults: string[] = [];
  const keys = orFaults(() => readKeys(options), faults);
  const verify = orFaults(() => openVerifier(options.tokens), faults);
  if (faults.length > 0) throw new ConfigError(faults);

  const ring = keys && new KeyRing(keys, { fold: options.tokens.names.fold ?? false });
  return ({ redis, broker }) => {
    const store = redis ? new RedisTtlStore(redis) : new MemoryTtlStore(broker);
    const prefix = options.channelPrefix;
    const tickets = new Tickets(store, { prefix });
    const revocations = new Revocations(store, { prefix, ...options.tokens });

    return {
      isOpen: ring === undefined && verify === undefined,
      takesTokens: verify !== undefined,

      async authenticate({ kind, text }) {
        if (kind === "ticket") return await tickets.find(text) ?? refuseTicket();
        if (verify) return await verify(text);
        throw new UnauthorizedError(
          "Tokens can't be verified here: set USERWIRE_JWT_SECRET, USERWIRE_JWT_PUBLIC_KEY or USERWIRE_JWKS_URL",
        );
      },

      async redeem(ticket) {
        if (!await tickets.redeem(ticket)) refuseTicket();
      },

      authorize(key, scope) {
        if (ring) return ring.authorize(key, scope);
        if (verify === undefined) {
          return { name: "", mayAddress: () => true, mayAddressGroup: () => true, mayAddressAll: true };
        }
        throw new UnauthorizedError(
          "No API keys are configured: set USERWIRE_API_KEYS, see userwire key --help",
        );
      },

      issueTicket: async (username, ttlS, { reuse = false } = {}) =>
        await tickets.issue(username, ttlS, { after: await revocations.momentOf(username), reuse }),
      revoke: (username, revocation) => revocations.add(username, revocation),
      isRevoked: (identity) => revocations.has(identity),

      reload() {
        const fresh = readKeys(options);
        if (fresh) ring!.replace(fresh);
        return fresh?.length ?? 0;
      },
    };
  };
}

function refuseTicket(): never {
  throw new UnauthorizedError("The ticket is not valid: it was used, it is too old, or it was never one");
}

/** Undefined when no keys are configured, which is not the same as none. */
function readKeys({ apiKeys, apiKeysFile }: AuthOptions): KnownKey[] | undefined {
  if (apiKeys === undefined && apiKeysFile === undefined) return undefined;
  const keys: KnownKey[] = [];
  const faults: string[] = [];
  const read = (name: string, text: string, commas: boolean) => {
    const parsed = parseKeyLines(text, { commas });
    keys.push(...parsed.keys);
    faults.push(...parsed.faults.map((fault) => `${name}: ${fault}`));
  };
  if (apiKeys !== undefined) read("USERWIRE_API_KEYS", apiKeys, true);
  try {
    if (apiKeysFile !== undefined) read("USERWIRE_API_KEYS_FILE", Deno.readTextFileSync(apiKeysFile), false);
  } catch (error) {
    faults.push(`USERWIRE_API_KEYS_FILE: ${apiKeysFile} can't be read: ${messageOf(error)}`);
  }
  if (faults.length > 0) throw new ConfigError(faults);
  return keys;
}
