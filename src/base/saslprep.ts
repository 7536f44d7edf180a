/**
 * SASLprep (RFC 4013): user names and passwords that look the same are the same bytes, whatever keyboard or client wrote them. Without its
 * table of unassigned code points (ours is Unicode's of today) and its rules on bidirectional text: a client that has them refuses such a
 * text by itself.
 */

/** RFC 3454 table C.1.2: they become a blank. */
const spaces = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;
/** RFC 3454 table B.1: they become nothing. */
const invisible = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|\u200c|\u200d|\u2060|[\ufe00-\ufe0f]|\ufeff/gu;
/** RFC 3454 tables C.2 to C.9: controls, private use, surrogates, no characters, what changes the display, tags. */
const prohibited =
  /\u0340|\u0341|[\p{Cc}\p{Cs}\p{Co}\p{Noncharacter_Code_Point}\u06dd\u070f\u180e\u200e\u200f\u2028-\u202e\u2061-\u2063\u206a-\u206f\u2ff0-\u2ffb\ufff9-\ufffd\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}]/u;

/** The prepared text; undefined when it holds what must not be in a user name or password. May be empty. */
export function saslprep(text: string): string | undefined {
  const prepared = text.replace(spaces, " ").replace(invisible, "").normalize("NFKC");
  return prohibited.test(prepared) ? undefined : prepared;
}
