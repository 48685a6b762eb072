/** What is wrong with the settings together, found without starting anything. */
import { redisTlsOf, tlsOf } from "../config/pem.ts";
import type { Config, Reading } from "../config/settings.ts";
import { silentLog } from "../log/log.ts";
import { orFaults } from "../protocol/errors.ts";
import { authOf } from "./app.ts";

/** The settings that each check reads. */
const TLS = ["tlsCert", "tlsKey"] as const;
const REDIS_TLS = ["redisCa", "redisCert", "redisKey"] as const;
const TOKENS = ["jwtSecret", "jwtPublicKey", "jwksUrl", "jwtAlgorithms"] as const;

/**
 * Faults in keys, tokens and files, beside those of single settings. A check is left out when a setting that it reads is
 * at fault itself.
 */
export function furtherFaults({ config, atFault }: Reading): string[] {
  const faults: string[] = [];
  const look = (keys: readonly (keyof Config)[], check: () => unknown) => {
    if (!keys.some((key) => atFault.has(key))) orFaults(check, faults);
  };
  look(TLS, () => tlsOf(config));
  look(REDIS_TLS, () => redisTlsOf(config));
  look(TOKENS, () => authOf(config, silentLog));
  return faults;
}
