import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A CA and a certificate of it for 127.0.0.1 and localhost, in `folder`. Needs openssl. Some clients refuse a certificate that is its own CA. */
export async function makeCertificate(folder: string): Promise<TlsFiles> {
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const openssl = (...args: string[]): Promise<unknown> => run("openssl", args, { cwd: folder });
  const authority = ["-x509", ...ec, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test CA", "-days", "2"];
  await openssl("req", ...authority, "-addext", "keyUsage=critical,keyCertSign");
  const names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
  const wanted = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1", "-addext", names];
  await openssl("req", ...ec, ...wanted);
  const signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy"];
  await openssl("x509", "-req", "-in", "server.csr", "-out", "server.crt", ...signed);
  const at = (name: string): string => join(folder, name);
  return { ca: at("ca.crt"), cert: at("server.crt"), key: at("server.key") };
}
