import type { AwaitingBody } from '../http/awaiting.ts';
import { say, styled } from './output.ts';

/** What another operator has to type. */
export function tellAwaiting({ asked_by: by, expires_at: until }: AwaitingBody, command: readonly string[]): void {
  say(`${styled('yellow', 'Nothing is done yet')}: it takes two, and ${by} is the first.`);
  say(`Another operator has to type until ${until}:`);
  say(`  ${command.map(quoted).join(' ')}`);
}

/** For a shell. */
function quoted(word: string): string {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
