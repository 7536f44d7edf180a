import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { TidegateError } from "../../base/errors.ts";

/** `usb:VID:PID[:SERIAL]`, taken apart. */
export interface UsbId {
  /** Four lower-case hexadecimal digits, as in sysfs. */
  readonly vendor: string;
  readonly product: string;
  readonly serial: string | undefined;
}

/** Where the kernel and udev tell of ports; other folders in tests. */
export interface DeviceFolders {
  readonly sysTty: string;
  readonly dev: string;
  readonly byId: string;
}

export const systemFolders: DeviceFolders = { sysTty: "/sys/class/tty", dev: "/dev", byId: "/dev/serial/by-id" };

const usbPattern = /^usb:([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?$/i;

/** Undefined for an ordinary path. @throws TidegateError TG_CONFIG for `usb:` with anything else behind it. */
export function parseUsbPath(path: string): UsbId | undefined {
  if (!path.startsWith("usb:")) return undefined;
  const match = usbPattern.exec(path);
  if (match === null) {
    throw new TidegateError("TG_CONFIG", `"${path}" is not usb:VID:PID[:SERIAL], with four hexadecimal digits each`);
  }
  // The serial number may hold colons itself: some adapters use their MAC address.
  return { vendor: match[1]!.toLowerCase(), product: match[2]!.toLowerCase(), serial: match[3] };
}

/**
 * The device file of a USB serial adapter, found in sysfs; neither udev nor its udevadm is needed, so it works in containers.
 * @throws TidegateError TG_SOURCE when none is plugged in, or several are (a two-port adapter is several).
 */
export async function findUsbPort(id: UsbId, folders: DeviceFolders = systemFolders): Promise<string> {
  const found: string[] = [];
  for (const name of await namesIn(folders.sysTty)) {
    if (await isPortOf(id, join(folders.sysTty, name, "device"))) found.push(name);
  }
  const wanted = `usb:${id.vendor}:${id.product}${id.serial === undefined ? "" : `:${id.serial}`}`;
  if (found.length === 0) {
    throw new TidegateError("TG_SOURCE", `no serial port of a device ${wanted} is plugged in`, { retriable: true });
  }
  if (found.length > 1) {
    const names = await stableNames(found, folders);
    throw new TidegateError("TG_SOURCE", `${wanted} is more than one port; name one of them as path: ${names}`, {
      retriable: true,
    });
  }
  return join(folders.dev, found[0]!);
}

/** `device` leads to the port's interface; the USB device that has the numbers is one or two folders above it. */
async function isPortOf(id: UsbId, device: string): Promise<boolean> {
  let folder = await realpath(device).catch(() => undefined);
  if (folder === undefined) return false; // a virtual console: no device behind it
  for (let up = 0; up < 4; up += 1) {
    const vendor = await attribute(folder, "idVendor");
    if (vendor !== undefined) {
      if (vendor.toLowerCase() !== id.vendor) return false;
      if ((await attribute(folder, "idProduct"))?.toLowerCase() !== id.product) return false;
      return id.serial === undefined || (await attribute(folder, "serial")) === id.serial;
    }
    folder = dirname(folder);
  }
  return false;
}

/** The /dev/serial/by-id links of these ports, where udev made them: they tell two ports of one adapter apart for good. */
async function stableNames(ports: readonly string[], folders: DeviceFolders): Promise<string> {
  const names = new Map(ports.map((port) => [port, join(folders.dev, port)]));
  for (const link of await namesIn(folders.byId)) {
    const target = basename(await readlink(join(folders.byId, link)).catch(() => ""));
    if (names.has(target)) names.set(target, join(folders.byId, link));
  }
  return [...names.values()].join(", ");
}

async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder).catch((): string[] => [])).sort();
}

async function attribute(folder: string, name: string): Promise<string | undefined> {
  return readFile(join(folder, name), "utf8").then(
    (text) => text.trim(),
    () => undefined,
  );
}
