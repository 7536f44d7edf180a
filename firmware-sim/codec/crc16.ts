/** CRC-16/CCITT-FALSE (also CRC-16/IBM-3740): polynomial 0x1021, start 0xffff, not reflected, nothing added. "123456789" gives 0x29b1. */
export function crc16(bytes: Uint8Array): number {
  let crc = 0xffff;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}
