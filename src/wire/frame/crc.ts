/**
 * Cyclic redundancy checks, one table of 256 entries each, made at first use. Names and check values ("123456789") are those of the
 * catalogue of parametrised CRC algorithms (reveng):
 *
 *   name           catalogue             width  poly        init        refl.  xorout      check
 *   crc8           CRC-8/SMBUS               8  07          00          no     00          F4
 *   crc16-ccitt    CRC-16/IBM-3740          16  1021        FFFF        no     0000        29B1   (CCITT-FALSE)
 *   crc16-xmodem   CRC-16/XMODEM            16  1021        0000        no     0000        31C3
 *   crc16-kermit   CRC-16/KERMIT            16  1021        0000        yes    0000        2189
 *   crc16-modbus   CRC-16/MODBUS            16  8005        FFFF        yes    0000        4B37
 *   crc32          CRC-32/ISO-HDLC          32  04C11DB7    FFFFFFFF    yes    FFFFFFFF    CBF43926
 *
 * Those with init 0 take a run of zeros (a line held low) for good: for a new device crc16-ccitt or crc32 is the better choice.
 */
export type CrcName = "crc8" | "crc16-ccitt" | "crc16-xmodem" | "crc16-kermit" | "crc16-modbus" | "crc32";

export interface Crc {
  readonly name: CrcName;
  /** Bytes the checksum takes on the wire. */
  readonly bytes: 1 | 2 | 4;
  /** The checksum of data[from, to), as an unsigned number. */
  of(data: Uint8Array, from: number, to: number): number;
}

interface Parameters {
  readonly bytes: 1 | 2 | 4;
  readonly poly: number;
  readonly init: number;
  readonly reflected: boolean;
  readonly xorOut: number;
}

const catalogue: Readonly<Record<CrcName, Parameters>> = {
  crc8: { bytes: 1, poly: 0x07, init: 0, reflected: false, xorOut: 0 },
  "crc16-ccitt": { bytes: 2, poly: 0x1021, init: 0xffff, reflected: false, xorOut: 0 },
  "crc16-xmodem": { bytes: 2, poly: 0x1021, init: 0, reflected: false, xorOut: 0 },
  "crc16-kermit": { bytes: 2, poly: 0x1021, init: 0, reflected: true, xorOut: 0 },
  "crc16-modbus": { bytes: 2, poly: 0x8005, init: 0xffff, reflected: true, xorOut: 0 },
  crc32: { bytes: 4, poly: 0x04c11db7, init: 0xffffffff, reflected: true, xorOut: 0xffffffff },
};

export const crcNames = Object.keys(catalogue) as readonly CrcName[];

const made = new Map<CrcName, Crc>();

/** The algorithm of that name; the same object each time. */
export function crcOf(name: CrcName): Crc {
  let crc = made.get(name);
  if (crc === undefined) {
    crc = makeCrc(name, catalogue[name]);
    made.set(name, crc);
  }
  return crc;
}

function makeCrc(name: CrcName, { bytes, poly, init, reflected, xorOut }: Parameters): Crc {
  const width = bytes * 8;
  if (reflected) {
    const table = reflectedTable(reverseBits(poly, width));
    const of = (data: Uint8Array, from: number, to: number): number => {
      let rest = init;
      for (let at = from; at < to; at += 1) rest = (rest >>> 8) ^ table[(rest ^ data[at]!) & 0xff]!;
      return (rest ^ xorOut) >>> 0;
    };
    return { name, bytes, of };
  }
  const table = plainTable(poly, width);
  const shift = width - 8;
  const mask = 2 ** width - 1;
  const of = (data: Uint8Array, from: number, to: number): number => {
    let rest = init;
    for (let at = from; at < to; at += 1) rest = ((rest << 8) ^ table[((rest >>> shift) ^ data[at]!) & 0xff]!) & mask;
    return rest ^ xorOut;
  };
  return { name, bytes, of };
}

function reflectedTable(poly: number): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let rest = byte;
    for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? (rest >>> 1) ^ poly : rest >>> 1;
    return rest;
  });
}

/** For widths 8 and 16: with 32 the shifts would turn negative, but the only one of that width here is reflected. */
function plainTable(poly: number, width: number): Uint32Array {
  const top = 2 ** (width - 1);
  const mask = 2 ** width - 1;
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let rest = byte << (width - 8);
    for (let bit = 0; bit < 8; bit += 1) rest = (rest & top ? (rest << 1) ^ poly : rest << 1) & mask;
    return rest;
  });
}

function reverseBits(value: number, width: number): number {
  let reversed = 0;
  for (let bit = 0; bit < width; bit += 1) if (value & (1 << bit)) reversed |= 1 << (width - 1 - bit);
  return reversed >>> 0;
}
