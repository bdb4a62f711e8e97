/** Why a catalog is not put in force, or not even compared; and what takes two people. For `problems.ts`. */
export const catalogProblems = {
  too_much_drift: [
    409,
    'The catalog would end more living grants than it may',
    'See what ends with `mayfly catalog diff`. If all of that is meant, apply it with `--expect-revoked` and that number.',
  ],
  catalog_rollback: [
    409,
    'The catalog is older than the one in force',
    'Raise `serial` in catalog.yaml. To go back on purpose apply it with `--allow-rollback` and a reason (`allow_rollback`).',
  ],
  second_person_needed: [
    409,
    'This takes a second person',
    'Have another operator, with the same role, ask for the very same. On the store itself: `--break-glass` and a reason, which is told.',
  ],
  catalog_changed: [409, 'Another revision became active meanwhile', 'Look at the difference again, then apply.'],
  catalog_invalid: [422, 'The catalog is not valid', '`errors` names file, line and path.'],
  catalog_signature_missing: [
    422,
    'The catalog is not signed',
    'Sign it with `mayfly catalog sign`, by one of the keys in MAYFLY_CATALOG_KEYS, and apply it with `--signature`.',
  ],
  catalog_signature_invalid: [
    422,
    'The signature of the catalog does not hold',
    'Sign it with `mayfly catalog sign`, by one of the keys in MAYFLY_CATALOG_KEYS.',
  ],
  catalog_signature_mismatch: [
    422,
    'The signature is for another catalog',
    'Sign exactly the files that are applied, and name the same commit.',
  ],
  catalog_signature_old: [
    422,
    'The signature was made too long ago, or is of tomorrow',
    'Sign it again: it holds for a day.',
  ],
  comparison_running: [
    429,
    'This replica is comparing another catalog at this moment',
    'Wait as long as `Retry-After` says; `mayfly catalog diff` on the store itself waits for nobody.',
  ],
  policies_busy: [
    503,
    'This replica has as many sets of policies in hand as it can',
    'Others have decisions made again at this moment. Try again after `Retry-After`.',
  ],
} as const satisfies Record<string, readonly [number, string, string]>;
