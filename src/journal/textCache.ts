/** Texts read over and over (topics, sources): found again by their bytes, so that reading a thousand messages makes no thousand strings. */

const slots = 512;
const textMax = 128;

export class TextCache {
  readonly #texts: string[] = new Array<string>(slots).fill("");

  /** The UTF-8 text at [from, to). At most 512 texts of up to 128 ASCII characters are kept. */
  text(buffer: Buffer, from: number, to: number): string {
    const length = to - from;
    if (length === 0) return "";
    if (length > textMax) return buffer.toString("utf8", from, to);
    let hash = length;
    for (let at = from; at < to; at += 1) hash = (Math.imul(hash, 31) + buffer[at]!) | 0;
    const slot = (hash ^ (hash >>> 9)) & (slots - 1);
    const known = this.#texts[slot]!;
    if (known.length === length && equals(known, buffer, from)) return known;
    const text = buffer.toString("utf8", from, to);
    if (text.length === length) this.#texts[slot] = text; // ASCII only: `equals` compares bytes
    return text;
  }
}

function equals(text: string, buffer: Buffer, from: number): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) !== buffer[from + index]) return false;
  }
  return true;
}
