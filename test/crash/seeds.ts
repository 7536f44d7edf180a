/**
 * Seeds that found something once, each with what it found. A change of the model's workload makes them others: then run some thousands, and keep
 * what they find.
 */
export const regressions: ReadonlyArray<readonly [seed: number, caught: string]> = [
  [149, "a segment freed rightly was called missing, since a roll had left its part's last position beyond its end"],
  [155, "a segment torn while it was made came back behind its successor, and was called damaged at every start"],
  [258, "a lane's done interval that its cursor stood in was written with a negative length"],
  [376, "the same interval, read back wrong, hid messages that waited"],
  [495, "numbers of a last group that had been sent and then rotted were given to others"],
];
