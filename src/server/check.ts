/** What is wrong with the settings together, found without starting anything. */
import { redisTlsOf, tlsOf } from "../config/pem.ts";
import type { Config, Reading } from "../config/settings.ts";
import { silentLog } from "../log/log.ts";
import { orFaults } from "../protocol/errors.ts";
import { authOf } from "./app.ts";

/**
 * Faults in keys, tokens and files, beside those of single settings. A check is left out when a setting that it reads is
 * at fault itself.
 */
export function furtherFaults({ config, atFault }: Reading): string[] {
  const faults: string[] = [];
  const look = (check: () => unknown, reads: readonly (keyof Config)[]) => {
    if (!reads.some((key) => atFault.has(key))) orFaults(check, faults);
  };
  look(() => tlsOf(config), ["tlsCert", "tlsKey"]);
  look(() => redisTlsOf(config), ["redisCa", "redisCert", "redisKey"]);
  look(() => authOf(config, silentLog), ["jwtSecret", "jwtPublicKey", "jwksUrl", "jwtAlgorithms"]);
  return faults;
}
