import { messageOf, TidegateError } from "../../base/errors.ts";
import { findUsbPort, parseUsbPath } from "./devicePath.ts";

export interface PortSettings {
  /** The source's name, for messages that say where in the config to look. */
  readonly source: string;
  /** A device file, or `usb:VID:PID[:SERIAL]`. */
  readonly path: string;
  readonly baudRate: number;
  readonly dataBits: 5 | 6 | 7 | 8;
  // 1.5 stop bits, mark and space parity: serialport refuses them on Linux.
  readonly stopBits: 1 | 2;
  readonly parity: "none" | "even" | "odd";
  readonly rtscts: boolean;
}

export interface PortEvents {
  /** The bytes may be a view of a buffer that is reused. */
  data(chunk: Uint8Array): void;
  /** Once, when the port is lost; not after `close`. */
  gone(why: string): void;
}

/** One opened port. It is opened once: after a loss a new one is made. */
export interface Port {
  /** `done` is called when the operating system has taken the bytes or refused them. Not called after `gone` for certain. */
  write(bytes: Uint8Array, done: (error: Error | null | undefined) => void): void;
  pause(): void;
  resume(): void;
  /** Resolves when the device file is closed; never rejects. @param discardOutput drops what the device has not taken yet. */
  close(discardOutput: boolean): Promise<void>;
}

/** @throws TidegateError TG_SOURCE, its message for the operator. */
export type OpenPort = (settings: PortSettings, events: PortEvents) => Promise<Port>;

/**
 * Opens a port with the serialport package, around five habits of version 13 that were measured:
 * 1. A port lost during a write opens again as a zombie that holds the lock and refuses writes: each connection gets a new object.
 * 2. An error without a listener ends the process, and a late one may come after close: there is always a listener.
 * 3. Without a `data` listener nothing is read, and a hangup goes unseen: it is attached before the port opens.
 * 4. A write while closed is kept without limit and sent after the device was plugged in again: such a write is refused here.
 * 5. The lock is flock's, so it only keeps out who asks; it is asked for always.
 * DTR and RTS are left alone: pseudo-terminals have none, and toggling DTR resets some boards.
 */
export const openSerialPort: OpenPort = async (settings, events) => {
  const usb = parseUsbPath(settings.path);
  const path = usb === undefined ? settings.path : await findUsbPort(usb);
  // Loaded only when a config uses it: 70 ms and 11 MB.
  const { SerialPort } = await import("serialport").catch((cause: unknown) => {
    throw new TidegateError("TG_SOURCE", `serial ports do not work on this machine: ${messageOf(cause)}`, { cause });
  });
  const { baudRate, dataBits, stopBits, parity, rtscts } = settings;
  const port = new SerialPort({ path, baudRate, dataBits, stopBits, parity, rtscts, lock: true, autoOpen: false });

  let lost = false;
  const lose = (error: unknown): void => {
    if (lost) return;
    lost = true;
    events.gone(lossReason(error));
  };
  port.on("data", (chunk: Buffer) => {
    if (!lost) events.data(chunk);
  });
  port.on("error", lose);
  port.on("close", lose);
  await new Promise<void>((resolve, reject) => {
    port.open((cause) => {
      if (cause === null) return resolve();
      lost = true;
      reject(
        new TidegateError("TG_SOURCE", openProblem(settings.source, path, cause.message), { cause, retriable: true }),
      );
    });
  });

  const closed = (): Promise<void> =>
    new Promise((resolve) => {
      if (port.isOpen) port.close(() => resolve());
      else if (port.closing) port.once("close", () => resolve());
      else resolve();
    });
  let closing: Promise<void> | undefined;
  return {
    write(bytes, done) {
      if (lost || !port.isOpen) done(new Error("the port is closed"));
      else port.write(bytes, done);
    },
    pause: () => void port.pause(),
    resume: () => void port.resume(),
    close(discardOutput) {
      lost = true;
      // Closing a UART waits for its output, 30 s when the device holds it off, unless the output is thrown away first.
      closing ??=
        discardOutput && port.isOpen ? new Promise<void>((go) => port.flush(() => go())).then(closed) : closed();
      return closing;
    },
  };
};

/** After a hangup serialport passes on whatever errno it met first, such as "bad file descriptor"; the flag says what it means. */
function lossReason(error: unknown): string {
  if (error instanceof Error && "disconnected" in error && error.disconnected === true)
    return "the device was unplugged";
  return error instanceof Error ? error.message : "the port was closed";
}

/** What the operator can do about it. serialport gives the errno as text only. */
export function openProblem(source: string, path: string, message: string): string {
  if (/no such file/i.test(message)) return `no such device ${path}; plug it in or mend sources.${source}.path`;
  if (/permission denied/i.test(message)) return `no permission to open ${path}; add the user to the dialout group`;
  if (/cannot lock/i.test(message)) return `another program holds ${path}`;
  if (/busy/i.test(message)) return `${path} is busy: another program holds it`;
  if (/inappropriate ioctl|is a directory/i.test(message)) return `${path} is not a serial port`;
  return `${path} cannot be opened: ${message}`;
}
