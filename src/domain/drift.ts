/**
 * What can have become of a credential in the target without the broker. The list is closed: who reads an inspection
 * decides by these codes, and a provider that finds something else must first find its place here.
 */
export type DriftCode =
  /** Nothing of it is in the target, though nobody ended it here. */
  | 'absent'
  /** It is there, but the target's own record of what was granted is not (restored from a backup?). */
  | 'unregistered'
  /** The target has it as ended already. */
  | 'ended'
  /** It bears another name than its handle. */
  | 'renamed'
  /** The mark that makes it ours is gone or changed. */
  | 'unmarked'
  /** It can no longer log in. */
  | 'login'
  /** It has powers by itself that were not granted, or lacks one that was (superuser, may create roles). */
  | 'attributes'
  /** Its secret is another one, or none. */
  | 'password'
  /** The target's own end of it moved. */
  | 'expiry'
  /** It may hold more or fewer connections at once. */
  | 'connection_limit'
  /** It belongs to other groups, or to its own in another way, than was granted. */
  | 'memberships'
  /** Others act with its rights: they were made its members. */
  | 'members'
  /** Settings that it can have made by itself. No boundary is crossed, but a later session is not what was minted. */
  | 'settings_own'
  /** Settings that only an administrator can have made, or ours, taken away. */
  | 'settings'
  /** Rights given to itself and not to its group. */
  | 'rights'
  /** Rights on what will be made: by it for others, or by others for it. */
  | 'default_privileges'
  /** Row policies that name it. */
  | 'policies'
  /** Things that belong to it. */
  | 'owned'
  /** Its group itself has powers, memberships or possessions. */
  | 'template'
  /** Its group has rights that the entitlement does not declare. */
  | 'template_wider'
  /** Its group lacks rights that the entitlement declares. */
  | 'template_narrower'
  /** Everybody has rights that the entitlement does not declare, and so has it. */
  | 'public';

/**
 * Which of it ends a grant: its credential is not what was granted. Not what is true of the target's preparation, and so of many grants
 * at once; nor that the credential is gone; nor what it made with rights that it was granted: that is reaped with it.
 */
const ends: Readonly<Record<DriftCode, boolean>> = {
  absent: false,
  unregistered: true,
  ended: false,
  renamed: true,
  unmarked: true,
  login: true,
  attributes: true,
  password: true,
  expiry: true,
  connection_limit: true,
  memberships: true,
  members: true,
  settings_own: true,
  settings: true,
  rights: true,
  default_privileges: true,
  policies: true,
  owned: false,
  template: false,
  template_wider: false,
  template_narrower: false,
  public: false,
};

/** What of a drift ends the grant. */
export function endingDrift(drift: readonly Drift[]): readonly Drift[] {
  return drift.filter(({ what }) => ends[what]);
}

export interface Drift {
  readonly what: DriftCode;
  /** A sentence with names and counts. Never a secret, nor the value of a setting: an agent may have put one there. */
  readonly says: string;
}
