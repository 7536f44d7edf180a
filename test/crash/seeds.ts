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
  [32, "a part of a segment that was rolled reached into the next one: dropped unread, it took messages there along"],
  [107, "merging wrote into the last group while the store closed, and the checkpoint of a clean close was not taken"],
  [131, "a spare that a failed store had begun, and the one after it, were called damaged"],
  [317, "counts asked for in a commit that threw led a lane's reading past messages"],
  [485, "a segment that was rolled and freed since was called missing"],
  [10_386, "a commit that threw left a part reaching into the next segment"],
  [50_125, "a checkpoint that had its name when the sync of the folder failed was not removed while the gateway ran"],
  [100_082, "checkpoints that two crashes in a row had kept from being removed stayed until the next one was taken"],
  [102_652, "the store clock counted a time twice: from a message's store time, with an older group's wall time"],
  [
    106_494,
    "closing did not sync a group that was being written without a sync: a power cut after it repeated messages",
  ],
  [11_436, "a torn group that nobody waited for, before a whole empty one, was called damaged"],
  [501_034, "a freed segment in which fresh readings had left before the backlog's end was called missing"],
];

/** The same, found since the recipe is what it is: nothing of it is changed for them. A change of the recipe makes them others, too. */
export const recent: ReadonlyArray<readonly [seed: number, caught: string]> = [
  [6_002_343, "a merged segment reached into what is in RAM, and a lane went on there in the middle of a record"],
];
