/** Looked at again within the hour, whatever the provider says. 0 where it names no time to come. */
export function secondsUntil(time: unknown): number {
  const seconds = time instanceof Date ? Math.min((time.getTime() - Date.now()) / 1000, 3_600) : 0;
  return seconds > 0 ? Math.max(1, seconds) : 0;
}
