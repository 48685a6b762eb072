/** The keys that verify tokens, where they are fetched: whether they come, which there are, and whether they can be used. */
import { RemoteKeys } from "../auth/remote_keys.ts";
import type { Config } from "../config/settings.ts";
import { silentLog } from "../log/log.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

export async function lookAtTokenKeys({ jwksUrl }: Config): Promise<Finding[]> {
  if (jwksUrl === undefined) return [];
  const troubles: string[] = [];
  const keys = new RemoteKeys(jwksUrl, {
    log: { ...silentLog, warn: (_event, { reason } = {}) => void troubles.push(String(reason)) },
  });
  const names = await keys.names().catch(() => undefined);
  if (names === undefined) {
    const says = `USERWIRE_JWKS_URL can't be used: ${troubles.join("; ")}`;
    return [
      fault("jwks", says, "open it with curl from this machine: it must answer with a JSON Web Key Set"),
    ];
  }
  const unusable = troubles.map((text) =>
    warning(
      "jwks",
      `USERWIRE_JWKS_URL: ${text}`,
      "tokens signed with it are refused: have the signer publish it anew",
    )
  );
  if (names.length === 0) {
    return [
      ...unusable,
      fault(
        "jwks",
        "no key that verifies signatures is published at USERWIRE_JWKS_URL",
        "see whether it is the right URL",
      ),
    ];
  }
  return [...unusable, ok("jwks", `keys are published: ${names.join(", ")}`)];
}
