/** A call that is held at a named point. */
export interface Hold {
  /** Settles when something has come to the point and stands there. */
  readonly reached: Promise<void>;
  release(): void;
}

interface Armed {
  readonly arrive: () => void;
  readonly released: Promise<void>;
}

/** Named points at which a test holds whatever comes by: the first call after `hold`, and none after it. */
export class HoldPoints {
  readonly #armed = new Map<string, Armed>();

  hold(point: string): Hold {
    let arrive = () => {};
    let release = () => {};
    const reached = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#armed.set(point, { arrive, released });
    return { reached, release };
  }

  async pass(point: string): Promise<void> {
    const armed = this.#armed.get(point);
    if (armed === undefined) return;
    this.#armed.delete(point);
    armed.arrive();
    await armed.released;
  }
}
