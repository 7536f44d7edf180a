/**
 * value = raw * scale + offset, without the noise of binary fractions: 2153 * 0.01 is 21.53, not 21.530000000000001. Scale and offset are
 * decimal numbers in the config, so both are taken as whole numbers over a power of ten; whole raw values then need one division, which
 * is correctly rounded.
 */
export interface Scaling {
  /** @param raw a whole number */
  fromWhole(raw: number): number;
  /** @param digits significant digits that the raw type carries */
  fromFloat(raw: number, digits: number): number;
  /** The raw value, not rounded. */
  toRaw(value: number): number;
}

/** More decimals than this are no decimal fraction that somebody wrote but 1/3 and the like. */
const decimalsMax = 12;

/** Digits after the point of a number's shortest decimal form; Infinity when there are more than can be kept exact. */
export function decimalsOf(value: number): number {
  const [mantissa = "", exponent = "0"] = String(value).split("e");
  const point = mantissa.indexOf(".");
  const decimals = Math.max(0, (point < 0 ? 0 : mantissa.length - point - 1) - Number(exponent));
  return decimals > decimalsMax ? Number.POSITIVE_INFINITY : decimals;
}

/** @param scale finite and not 0 */
export function createScaling(scale: number, offset: number): Scaling {
  const toRaw = (value: number): number => (value - offset) / scale;
  const fromFloat = (raw: number, digits: number): number => Number((raw * scale + offset).toPrecision(digits));
  const power = 10 ** Math.max(decimalsOf(scale), decimalsOf(offset));
  const factor = Math.round(scale * power);
  const shift = Math.round(offset * power);
  if (!Number.isSafeInteger(factor) || !Number.isSafeInteger(shift)) {
    return { fromWhole: (raw) => fromFloat(raw, 15), fromFloat, toRaw };
  }
  return { fromWhole: (raw) => (raw * factor + shift) / power, fromFloat, toRaw };
}
