/** The session holds something that cannot be moved to another process; `message` says what. */
export class NotCapturable extends Error {
  override readonly name = "NotCapturable";
}
