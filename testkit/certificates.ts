/**
 * Certificates for tests, made anew by `openssl`: an authority of their own, and what it signed for this machine and
 * for a client. They go with the test.
 */
const NAMES = ["ca", "server", "other", "client"] as const;

export class Certificates implements AsyncDisposable {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<Certificates> {
    const made = new Certificates(await Deno.makeTempDir({ prefix: "userwire-tls-" }));
    try {
      await made.#makeAll();
      return made;
    } catch (error) {
      await made[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #makeAll(): Promise<void> {
    const key = (
      name: string,
    ) => ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", this.key(name)];
    await this.#openssl(
      "req",
      "-x509",
      ...key("ca"),
      "-out",
      this.cert("ca"),
      "-days",
      "2",
      "-subj",
      "/CN=Test authority",
    );
    await Deno.writeTextFile(
      `${this.dir}/server.ext`,
      "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    );
    for (const name of NAMES.slice(1)) {
      await this.#openssl("req", ...key(name), "-out", `${this.dir}/${name}.csr`, "-subj", "/CN=localhost");
      await this.renew(name, 2);
    }
  }

  /** Signs one of them anew, with the key that it has. @param days After how many it ends; 0 for now. */
  async renew(name: string, days: number): Promise<void> {
    await this.#openssl(
      "x509",
      "-req",
      "-in",
      `${this.dir}/${name}.csr`,
      "-CA",
      this.cert("ca"),
      "-CAkey",
      this.key("ca"),
      "-CAcreateserial",
      "-days",
      String(days),
      "-extfile",
      `${this.dir}/server.ext`,
      "-out",
      this.cert(name),
    );
  }

  /** Path of a certificate. */
  cert(name: string): string {
    return `${this.dir}/${name}.pem`;
  }

  /** Path of its private key. */
  key(name: string): string {
    return `${this.dir}/${name}.key`;
  }

  /** Settings of Redis, each with its value: with these it asks nobody for a certificate. */
  forRedis(): [name: string, value: string][] {
    return [
      ["tls-cert-file", this.cert("server")],
      ["tls-key-file", this.key("server")],
      ["tls-ca-cert-file", this.cert("ca")],
      ["tls-auth-clients", "no"],
    ];
  }

  get ca(): string {
    return Deno.readTextFileSync(this.cert("ca"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }

  async #openssl(...args: string[]): Promise<void> {
    const { success, stderr } = await new Deno.Command("openssl", {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (!success) throw new Error(`openssl ${args[0]} failed: ${new TextDecoder().decode(stderr)}`);
  }
}
