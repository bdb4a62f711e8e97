/** A wall clock for this process that is so far ahead of the right one. Timers, and other processes, are as they were. */
export function clockOffBy(millis: number): DateConstructor {
  const right = Date;
  const now = () => right.now() + millis;
  return new Proxy(right, {
    construct: (made, args: unknown[]) => Reflect.construct(made, args.length === 0 ? [now()] : args),
    get: (made, member) => (member === 'now' ? now : Reflect.get(made, member)),
  });
}
