import { randomUUID } from 'node:crypto';
import type { Call } from './knobs.ts';
import type { Refusal } from './refusal.ts';

/** An element's content: text, elements by name, or a list of `member` elements. */
export type Content = string | number | readonly Content[] | { readonly [name: string]: Content | undefined };

function element(name: string, content: Content): string {
  return `<${name}>${inside(content)}</${name}>`;
}

function inside(content: Content): string {
  if (typeof content === 'string') return escape(content);
  if (typeof content === 'number') return String(content);
  if (Array.isArray(content)) return content.map((each: Content) => element('member', each)).join('');
  return Object.entries(content)
    .map(([name, value]) => (value === undefined ? '' : element(name, value)))
    .join('');
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** As the query protocol answers. */
export function queryAnswer(action: string, result: Content | undefined): string {
  const own = result === undefined ? {} : { [`${action}Result`]: result };
  return element(`${action}Response`, { ...own, ResponseMetadata: { RequestId: randomUUID() } });
}

export function errorAnswer(service: Call['service'], { code, message, status }: Refusal): string {
  if (service === 's3') return element('Error', { Code: code, Message: message, RequestId: randomUUID() });
  const Type = status < 500 ? 'Sender' : 'Receiver';
  return element('ErrorResponse', { Error: { Type, Code: code, Message: message }, RequestId: randomUUID() });
}
