/** What an operator does only when another one asks for the very same, where the catalog wants that. */
export const fourEyesOperations = ['apply', 'write_off', 'lift_kill'] as const;
export type FourEyesOperation = (typeof fourEyesOperations)[number];
