import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { TidegateError } from "../../../../src/base/errors.ts";
import { type DeviceFolders, findUsbPort, parseUsbPath } from "../../../../src/sources/serial/devicePath.ts";

describe("usb: paths", () => {
  it("are taken apart; the serial number may hold colons", () => {
    expect(parseUsbPath("/dev/ttyUSB0")).to.equal(undefined);
    expect(parseUsbPath("usb:0403:6001")).to.deep.equal({ vendor: "0403", product: "6001", serial: undefined });
    expect(parseUsbPath("usb:303A:1001:F4:12:FA")).to.deep.equal({
      vendor: "303a",
      product: "1001",
      serial: "F4:12:FA",
    });
  });

  it("are refused when they are anything else", () => {
    for (const path of ["usb:", "usb:0403", "usb:403:6001", "usb:0403:6001:", "usb:04zz:6001"]) {
      expect(() => parseUsbPath(path), path).to.throw(TidegateError, "usb:VID:PID");
    }
  });

  describe("are found in sysfs", () => {
    let root: string;
    let folders: DeviceFolders;

    /** A USB device as sysfs shows it: attributes on the device, ports below one of its interfaces, links from class/tty. */
    function plug(bus: string, idVendor: string, idProduct: string, serial: string, ports: readonly string[]): void {
      const device = join(root, "devices", bus);
      ports.forEach((port, n) => {
        const folder = join(device, `${bus}:1.${n}`, port);
        mkdirSync(join(folder, "tty", port), { recursive: true });
        symlinkSync(folder, join(folder, "tty", port, "device"));
        symlinkSync(join(folder, "tty", port), join(folders.sysTty, port));
        symlinkSync(`../../${port}`, join(folders.byId, `usb-Maker_${serial}-if0${n}-port0`));
      });
      for (const [name, value] of Object.entries({ idVendor, idProduct, serial })) {
        writeFileSync(join(device, name), `${value}\n`);
      }
    }

    async function problemOf(path: string): Promise<string> {
      try {
        return await findUsbPort(parseUsbPath(path)!, folders);
      } catch (error) {
        expect((error as TidegateError).code).to.equal("TG_SOURCE");
        return (error as TidegateError).message;
      }
    }

    beforeEach(() => {
      root = mkdtempSync(join(tmpdir(), "tidegate-"));
      folders = { sysTty: join(root, "class/tty"), dev: "/dev", byId: join(root, "by-id") };
      mkdirSync(join(folders.sysTty, "tty0"), { recursive: true }); // a console: no device
      mkdirSync(folders.byId, { recursive: true });
      plug("1-1", "0403", "6001", "A600", ["ttyUSB0"]);
      plug("1-2", "0403", "6001", "B700", ["ttyUSB1"]);
      plug("1-3", "303a", "1001", "F4:12:FA", ["ttyACM0"]);
      plug("1-4", "0403", "6010", "FT2232", ["ttyUSB2", "ttyUSB3"]);
    });
    afterEach(() => rmSync(root, { recursive: true, force: true }));

    it("by vendor, product and serial number, in either case", async () => {
      expect(await problemOf("usb:0403:6001:B700")).to.equal("/dev/ttyUSB1");
      expect(await problemOf("usb:303A:1001")).to.equal("/dev/ttyACM0");
      expect(await problemOf("usb:303a:1001:F4:12:FA")).to.equal("/dev/ttyACM0");
    });

    it("or not, and say so", async () => {
      expect(await problemOf("usb:0403:6001:C800")).to.contain("no serial port of a device usb:0403:6001:C800");
      expect(await problemOf("usb:1a86:7523")).to.contain("no serial port");
    });

    it("and name the stable paths when several fit", async () => {
      expect(await problemOf("usb:0403:6001")).to.match(/more than one port.*usb-Maker_A600.*usb-Maker_B700/);
      expect(await problemOf("usb:0403:6010:FT2232")).to.match(/FT2232-if00-port0.*FT2232-if01-port0/);
    });

    it("also where there is no sysfs and no udev at all", async () => {
      folders = { sysTty: join(root, "none"), dev: "/dev", byId: join(root, "none") };
      expect(await problemOf("usb:0403:6001")).to.contain("no serial port");
    });
  });
});
