/**
 * The certificates and keys that settings name, read from disk with every fault at once. What is in them is checked
 * as far as that needs no cryptography of our own; no fault quotes a file.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { ConfigError, messageOf } from "../protocol/errors.ts";
import { type Config, SETTINGS } from "./settings.ts";

/** PEM text; a certificate is never without its key. */
export interface Pem {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/**
 * What clients are served with; undefined when that is plain HTTP.
 * @throws {ConfigError}
 */
export function tlsOf(config: Config): Pem | undefined {
  return readPem(config, { cert: "tlsCert", key: "tlsKey" });
}

/**
 * What Redis is called with, beside the public certificate authorities; undefined when that is nothing.
 * @throws {ConfigError}
 */
export function redisTlsOf(config: Config): Pem | undefined {
  return readPem(config, { ca: "redisCa", cert: "redisCert", key: "redisKey" });
}

/** When a certificate ends, in Unix milliseconds. @param cert PEM; of several the first counts. */
export function endOfCertificate(cert: string): number {
  return Date.parse(new X509Certificate(cert).validTo);
}

/** When each certificate ends, in Unix seconds, by the setting that names its file. */
export function certificateEnds(tls: Pem | undefined, redisTls: Pem | undefined): Record<string, number> {
  const certificates = { tlsCert: tls?.cert, redisCa: redisTls?.ca, redisCert: redisTls?.cert };
  const ends: Record<string, number> = {};
  for (const [setting, cert] of Object.entries(certificates)) {
    if (cert === undefined) continue;
    ends[SETTINGS[setting as keyof typeof certificates].env] = endOfCertificate(cert) / 1_000;
  }
  return ends;
}

type FileSetting = "tlsCert" | "tlsKey" | "redisCa" | "redisCert" | "redisKey";

/** @param files The settings that name the files. */
function readPem(config: Config, files: Partial<Record<keyof Pem, FileSetting>>): Pem | undefined {
  const faults: string[] = [];
  const read = (setting: FileSetting | undefined, parse: (text: string) => unknown, what: string) => {
    const path = setting && config[setting];
    if (setting === undefined || path === undefined) return undefined;
    const { env } = SETTINGS[setting];
    let text: string;
    try {
      text = Deno.readTextFileSync(path);
    } catch (error) {
      faults.push(`${env}: ${path} can't be read: ${messageOf(error)}`);
      return undefined;
    }
    try {
      parse(text);
      return text;
    } catch {
      faults.push(`${env}: ${path} must hold ${what} in PEM, but does not`);
      return undefined;
    }
  };
  const ca = read(files.ca, (text) => new X509Certificate(text), "a certificate");
  const cert = read(files.cert, (text) => new X509Certificate(text), "a certificate");
  const key = read(files.key, createPrivateKey, "a private key without a passphrase");
  if (cert && key && !new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
    const { env } = SETTINGS[files.key!];
    faults.push(`${env}: the key in ${config[files.key!]} is not the one of the certificate`);
  }
  if (faults.length > 0) throw new ConfigError(faults);
  if (ca === undefined && cert === undefined) return undefined;
  return { ...(ca !== undefined && { ca }), ...(cert !== undefined && key !== undefined && { cert, key }) };
}
