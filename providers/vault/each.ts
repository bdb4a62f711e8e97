/** Works on all of them, so many at once. The first failure is thrown when those under way are over; no more are begun then. */
export async function each<T>(
  items: readonly T[],
  width: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const queue = items.entries();
  let failed = false;
  const lanes = Array.from({ length: Math.min(width, items.length) }, async () => {
    for (const [index, item] of queue) {
      if (failed) return;
      try {
        await work(item, index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  });
  const done = await Promise.allSettled(lanes);
  for (const lane of done) if (lane.status === 'rejected') throw lane.reason;
}
