/**
 * The certificates and keys that settings name, read from disk with every fault at once. What is in them is checked
 * as far as that needs no cryptography of our own; no fault quotes a file.
 */
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { absolutePath } from "./paths.ts";

/** Paths by the names of their settings. */
export interface PemPaths {
  ca?: Named | undefined;
  cert?: Named | undefined;
  key?: Named | undefined;
}

interface Named {
  readonly env: string;
  readonly path: string;
}

/** PEM text; a certificate is never without its key. */
export interface Pem {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/**
 * @returns Undefined when no path is given.
 * @throws {ConfigError}
 */
export function readPem(paths: PemPaths, cwd: string): Pem | undefined {
  const faults: string[] = [];
  const read = (named: Named | undefined, parse: (text: string) => unknown, what: string) => {
    if (named === undefined) return undefined;
    let text: string;
    try {
      text = Deno.readTextFileSync(absolutePath(named.path, cwd));
    } catch (error) {
      faults.push(`${named.env}: ${named.path} can't be read: ${messageOf(error)}`);
      return undefined;
    }
    try {
      parse(text);
      return text;
    } catch {
      faults.push(`${named.env}: ${named.path} must hold ${what} in PEM, but does not`);
      return undefined;
    }
  };
  const ca = read(paths.ca, (text) => new X509Certificate(text), "a certificate");
  const cert = read(paths.cert, (text) => new X509Certificate(text), "a certificate");
  const key = read(paths.key, createPrivateKey, "a private key without a passphrase");
  if (cert !== undefined && key !== undefined && !belongTogether(cert, key)) {
    faults.push(`${paths.key!.env}: the key in ${paths.key!.path} is not the one of the certificate`);
  }
  if (faults.length > 0) throw new ConfigError(faults);
  if (ca === undefined && cert === undefined) return undefined;
  return { ...(ca !== undefined && { ca }), ...(cert !== undefined && key !== undefined && { cert, key }) };
}

function belongTogether(cert: string, key: string): boolean {
  const format = { format: "pem", type: "spki" } as const;
  return new X509Certificate(cert).publicKey.export(format) === createPublicKey(key).export(format);
}
