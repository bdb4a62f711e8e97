import type { Session } from '../provider.ts';

/** The same session, where whatever changes the target, or promises to, first waits for `ours`. Looking is free. */
export function guardSession(session: Session, ours: () => Promise<void>): Session {
  const renew = session.renew?.bind(session);
  const inspect = session.inspect?.bind(session);
  const observe = session.observe?.bind(session);
  const ends = session.ends?.bind(session);
  const list = session.list?.bind(session);
  const hold = session.hold?.bind(session);
  const after =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      await ours();
      return call(...args);
    };
  return {
    guarantee: after((...args) => session.guarantee(...args)),
    reserve: (grantId) => session.reserve(grantId),
    mint: after((...args) => session.mint(...args)),
    ...(session.oneDocument === undefined ? {} : { oneDocument: session.oneDocument }),
    ...(renew && { renew: after(renew) }),
    fence: after((...args) => session.fence(...args)),
    verify: (...args) => session.verify(...args),
    reap: after((...args) => session.reap(...args)),
    ...(inspect && { inspect }),
    ...(observe && { observe }),
    ...(ends && { ends }),
    ...(list && { list }),
    ...(hold && { hold }),
    check: after((...args) => session.check(...args)),
    close: () => session.close(),
  };
}
