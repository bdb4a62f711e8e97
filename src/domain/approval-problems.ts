/** What keeps an approval from being given, or from being used. For `problems.ts`. */
export const approvalProblems = {
  approval_required: [
    403,
    'Policy wants this approved each time',
    'Ask for a new grant: an approval is for one grant and its life, and a renewal has none.',
  ],
  approver_not_in_group: [
    403,
    'Only somebody of another group may approve this',
    '`groups` says of which it is still needed: a second yes of the same group adds nothing. Who is in one stands under `operators` in trust.yaml.',
  ],
  approver_is_party: [
    403,
    'Nobody approves what is asked for in their own name',
    'Let somebody else of the group decide. You may still deny it.',
  ],
  approver_unmapped: [
    403,
    'It can not be told whether you are who this is asked for',
    'The task’s issuer needs `subjects` in trust.yaml: which of your source’s operators its tasks are on behalf of. You may still deny it.',
  ],
  approval_pending: [
    409,
    'The grant is not approved yet',
    'Wait with GET /v1/grants/{id}?wait=30, then collect it. Whoever wants to take back what is not approved yet denies it.',
  ],
  approval_over: [
    409,
    'The approval is not open any more',
    '`state` says what became of it. Ask for a new grant where nothing came of this one.',
  ],
  approval_stale: [
    409,
    'What would be given is not what was approved',
    'Ask again: an approval is for exactly what was asked, by the catalog of that time. `differs` says what changed.',
  ],
  delivery_not_approved: [
    409,
    'It was approved for another delivery',
    'Collect it with the same `delivery` that it was asked for with, or without one.',
  ],
  too_many_approvals: [
    429,
    'The task has asked for too many approvals',
    'Wait until some of them are decided, or release those that are not needed. A task that has had as many as it may in its whole life asks for no more: `Retry-After` is its end.',
  ],
} as const satisfies Record<string, readonly [number, string, string]>;
