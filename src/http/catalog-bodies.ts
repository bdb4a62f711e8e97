import { z } from 'zod';
import type { CatalogSeen } from '../broker/read-catalog.ts';
import { fourEyesOperations } from '../domain/four-eyes.ts';
import { time } from './answers.ts';

/** What operators are told of the catalog in force. */
export const catalogBody = z
  .strictObject({
    revision: z.int().meta({ description: 'Number of the active revision.' }),
    digest: z.string().meta({ description: 'Of its files.' }),
    enforce: z.enum(['revoke', 'report']).meta({
      description: 'Whether living grants that it does not permit end, or it is only told.',
    }),
    applied_by: z.string(),
    applied_at: time,
    commit: z.string().nullable().meta({ description: 'Where its files come from, as whoever applied it said.' }),
    signed: z.boolean().meta({ description: 'Somebody vouched for it when it was applied.' }),
    serial: z.int().nullable().meta({ description: 'What replaces it must have a higher one.' }),
    four_eyes: z.array(z.enum(fourEyesOperations)).meta({ description: 'What takes two operators.' }),
    drift: z
      .strictObject({
        undecided: z.int().meta({ description: 'Living grants that are yet to be decided by it.' }),
        oldest_seconds: z.number().meta({
          description: 'Since the first revision was applied that one of them was not decided under.',
        }),
      })
      .meta({ description: 'How far living grants are decided again. Of all targets.' }),
  })
  .meta({ id: 'Catalog' });
export type CatalogBody = z.output<typeof catalogBody>;

export function viewOfCatalog({ revision, changeControl, drift }: CatalogSeen): CatalogBody {
  const { number, digest, enforce, appliedBy, appliedAt, commit, signed } = revision;
  return {
    ...{
      revision: number,
      digest,
      enforce,
      applied_by: appliedBy,
      applied_at: appliedAt.toISOString(),
      commit,
      signed,
    },
    ...{ serial: changeControl.serial, four_eyes: [...changeControl.fourEyes] },
    drift: { undecided: drift.undecided, oldest_seconds: drift.oldestSeconds },
  };
}
