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
    const key = (
      name: string,
    ) => ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", made.key(name)];
    await made.#openssl(
      "req",
      "-x509",
      ...key("ca"),
      "-out",
      made.cert("ca"),
      "-days",
      "2",
      "-subj",
      "/CN=Test authority",
    );
    await Deno.writeTextFile(
      `${made.dir}/server.ext`,
      "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    );
    for (const name of NAMES.slice(1)) {
      await made.#openssl("req", ...key(name), "-out", `${made.dir}/${name}.csr`, "-subj", "/CN=localhost");
      await made.#openssl(
        "x509",
        "-req",
        "-in",
        `${made.dir}/${name}.csr`,
        "-CA",
        made.cert("ca"),
        "-CAkey",
        made.key("ca"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        `${made.dir}/server.ext`,
        "-out",
        made.cert(name),
      );
    }
    return made;
  }

  /** Path of a certificate. */
  cert(name: string): string {
    return `${this.dir}/${name}.pem`;
  }

  /** Path of its private key. */
  key(name: string): string {
    return `${this.dir}/${name}.key`;
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
