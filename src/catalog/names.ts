import { z } from 'zod';

const plain = '[a-z][a-z0-9-]{0,62}';

export const namePattern = new RegExp(`^${plain}$`);

/** Targets, issuers, sources, phases, actions. */
export const name = z.string().regex(namePattern, 'must be a name: lower-case letters, digits and dashes, at most 63');

/** `reconcile.invoices` */
export const purposeName = z
  .string()
  .max(128)
  .regex(new RegExp(`^${plain}(\\.${plain})*$`), 'must be names joined by dots: `reconcile.invoices`');

/** `ledger-db/read-invoices` */
export const entitlementName = z
  .string()
  .regex(new RegExp(`^${plain}/${plain}$`), 'must be `<target>/<name>`, each a lower-case name');

/** Text for people: one to `max` characters, no control characters, no white space around it. */
export function text(max: number): z.ZodString {
  return z
    .string()
    .min(1)
    .max(max)
    .regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u, 'must not contain control characters')
    .regex(/^\S(.*\S)?$/u, 'must not begin or end with white space');
}

/** Whole seconds. */
export function seconds(max: number): z.ZodNumber {
  const says = `must be whole seconds from 1 to ${max}`;
  return z.number(says).int(says).min(1, says).max(max, says);
}

/** A list without repetitions. */
export function uniqueList<T>(item: z.ZodType<T>): z.ZodType<T[]> {
  return z.array(item).superRefine((items, context) => {
    items.forEach((value, index) => {
      if (items.indexOf(value) < index)
        context.addIssue({ code: 'custom', path: [index], message: 'stands here twice' });
    });
  });
}
