import { expect } from "chai";
import { type CrcName, crcNames, crcOf } from "../../../../src/wire/frame/crc.ts";

/** The catalogue's check values: the checksum of the nine ASCII digits. */
const checks: Readonly<Record<CrcName, number>> = {
  crc8: 0xf4,
  "crc16-ccitt": 0x29b1,
  "crc16-xmodem": 0x31c3,
  "crc16-kermit": 0x2189,
  "crc16-modbus": 0x4b37,
  crc32: 0xcbf43926,
};

describe("crc", () => {
  const digits = Buffer.from("123456789");

  for (const name of crcNames) {
    it(`${name} gives its check value`, () => {
      expect(crcOf(name).of(digits, 0, digits.length)).to.equal(checks[name]);
    });

    it(`${name} looks only at the range it is given`, () => {
      const around = Buffer.concat([Buffer.from([0xff, 0x01]), digits, Buffer.from([0x80])]);
      expect(crcOf(name).of(around, 2, 2 + digits.length)).to.equal(checks[name]);
    });

    it(`${name} notices every single flipped bit`, () => {
      const crc = crcOf(name);
      const data = Buffer.from("\u0000\u0000 a reading of thirty bytes \u00ff");
      const good = crc.of(data, 0, data.length);
      for (let bit = 0; bit < data.length * 8; bit += 1) {
        data[bit >> 3]! ^= 1 << (bit & 7);
        expect(crc.of(data, 0, data.length)).not.to.equal(good);
        data[bit >> 3]! ^= 1 << (bit & 7);
      }
    });
  }
});
