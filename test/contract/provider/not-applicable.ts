/** A case has nothing to show here; the message says why. It is told apart from a pass everywhere. */
export class NotApplicable extends Error {
  override readonly name = 'NotApplicable';
}
