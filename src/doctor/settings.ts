/** The settings: every fault of them, alone and together, and who says what. */
import { shownSettings } from "../config/shown.ts";
import type { Reading, SettingsFile } from "../config/settings.ts";
import { isLoopback } from "../net/addresses.ts";
import { wideOrigins } from "../net/origin.ts";
import { furtherFaults } from "../server/check.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

/** @param reading Also with faults: then what they touch has its default. */
export function lookAtSettings(reading: Reading & { readonly file?: SettingsFile }): Finding[] {
  const faults = [...reading.faults, ...furtherFaults(reading)];
  const set = shownSettings(reading, reading.file).filter(({ source }) => source !== "default")
    .map(({ name, source, file }) => `${name} (${source}${file === undefined ? "" : ` ${file}`})`);
  return [
    // Each says what to do, too.
    ...faults.map((text) => fault("settings", text)),
    ok("settings", set.length === 0 ? "all have their defaults" : `set are ${set.join(", ")}`),
    ...lookAtAccess(reading),
    ...lookAtOrigins(reading),
  ];
}

/** Keys and tokens, as far as settings say it. */
function lookAtAccess({ config, atFault }: Reading): Finding[] {
  const { apiKeys, apiKeysFile, jwtSecret, jwtPublicKey, jwksUrl, host } = config;
  const keys = apiKeys ?? apiKeysFile;
  const tokens = jwtSecret ?? jwtPublicKey ?? jwksUrl;
  if ([...atFault].some((key) => /^(?:apiKeys|jw)/.test(key))) return [];
  if (keys === undefined && tokens === undefined) {
    const who = isLoopback(host) ? "any program on this machine" : "everybody who reaches this address";
    const says = `open mode: ${who} may connect and send as anyone`;
    return [warning("keys", says, "for anything but a try make keys: userwire key new --help")];
  }
  return [
    keys === undefined
      ? warning(
        "keys",
        "there are no API keys, so nobody may send by HTTP",
        "make one: userwire key new --help",
      )
      : ok("keys", "API keys are read"),
    tokens === undefined ? ok("tokens", "sockets are let in by tickets only: nothing verifies tokens") : ok(
      "tokens",
      `tokens are verified by ${jwtSecret ? "a secret" : jwtPublicKey ? "a public key" : "a JWKS"}`,
    ),
  ];
}

function lookAtOrigins({ config: { allowedOrigins } }: Reading): Finding[] {
  const wide = wideOrigins(allowedOrigins).map(({ origin, reason }) =>
    warning("origins", `USERWIRE_ALLOWED_ORIGINS has ${origin}: ${reason}`, "name the sites that you serve")
  );
  if (wide.length > 0) return wide;
  const others = allowedOrigins.length === 0 ? "" : ` and of ${allowedOrigins.join(", ")}`;
  return [ok("origins", `pages of the service's own host${others} may connect`)];
}
