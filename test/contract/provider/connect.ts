import { ProviderError, Secret, type Session } from '../../../src/provider.ts';
import type { Driver, System } from './driver.ts';
import { type Notes, noted } from './notes.ts';

/** Connects as the broker does, for this installation. What the session says, logs and throws is noted. */
export function connectAs(driver: Driver, system: System, notes: Notes, installation: string): Session {
  const session = driver.provider.connect(driver.provider.targetSchema.parse(system.connection), {
    target: 'contract-target',
    installation,
    secret: (reference) => {
      const value = system.secrets[reference];
      if (value === undefined) throw new ProviderError('misconfigured', `there is no ${reference}`);
      return new Secret(value);
    },
    log: (event, message) => {
      notes.hear('a log line', { event, message });
    },
  });
  return noted(session, notes);
}
