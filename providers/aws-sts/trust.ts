import { grantTag } from './handle.ts';
import { issuedTag } from './issued.ts';

export interface TrustStatement {
  readonly Sid: string;
  readonly Effect: 'Allow';
  readonly Principal: Readonly<Record<string, string>>;
  readonly Action: string;
  readonly Condition: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

const handle = '????????????';
const second = '??????????';

/**
 * Who may assume a role, and how: with the handle as source identity and as tag, the second of the mint as another, both of them transitive,
 * and with no other tag. One statement for each action, as AWS asks about each by itself: which keys it knows at which is not documented for all.
 */
export function trustOf(Principal: TrustStatement['Principal']): readonly TrustStatement[] {
  const common = { Effect: 'Allow', Principal } as const;
  const tags = { [`aws:RequestTag/${grantTag}`]: handle, [`aws:RequestTag/${issuedTag}`]: second };
  return [
    { ...common, Sid: 'Assume', Action: 'sts:AssumeRole', Condition: { StringLike: tags } },
    {
      ...{ ...common, Sid: 'Identify', Action: 'sts:SetSourceIdentity' },
      Condition: { StringLike: { 'sts:SourceIdentity': handle } },
    },
    {
      ...{ ...common, Sid: 'Tag', Action: 'sts:TagSession' },
      Condition: {
        StringLike: tags,
        'ForAllValues:StringEquals': { 'aws:TagKeys': [grantTag, issuedTag] },
        // Each of them must be there, which one operator alone can not say.
        'ForAnyValue:StringEquals': { 'sts:TransitiveTagKeys': grantTag },
        'ForAnyValue:StringLike': { 'sts:TransitiveTagKeys': issuedTag },
      },
    },
  ];
}
