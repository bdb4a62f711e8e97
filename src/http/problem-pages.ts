import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import { problemCodes, problemKind } from '../domain/problems.ts';
import { type ProblemPageBody, problemPageBody } from './answers.ts';
import type { Page } from './page.ts';
import { noBody } from './route.ts';
import { writeAnswer, writeText } from './write.ts';

/** Where the `type` of every problem leads: what the code means and what to do. */
export const problemPage: Page = {
  method: 'get',
  path: '/problems/{code}',
  name: 'readProblem',
  tag: 'broker',
  summary: 'What a problem code means',
  params: z.object({
    code: z.string().meta({ description: 'A `code`, as in a problem body.', example: 'task_ended' }),
  }),
  body: noBody,
  answers: { 200: { says: 'The page.', schema: problemPageBody, types: ['text/html'] } },
  refusals: ['not_found'],
  show: ({ request, response, params }) => {
    const code = problemCodes.find((known) => known === params['code']);
    if (code === undefined) throw new MayflyError('not_found');
    const { status, title, next } = problemKind(code);
    const body: ProblemPageBody = { type: `/problems/${code}`, code, status, title, next };
    response.setHeader('Vary', 'Accept');
    if (/\btext\/html\b/i.test(request.headers.accept ?? ''))
      writeText(response, 200, 'text/html; charset=utf-8', htmlOf(body));
    else writeAnswer(response, { status: 200, body });
  },
};

function htmlOf({ code, status, title, next }: ProblemPageBody): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(code)}</title></head>
<body>
<h1>${escaped(title)}</h1>
<p>${escaped(next)}</p>
<dl><dt>code</dt><dd><code>${escaped(code)}</code></dd><dt>HTTP status</dt><dd>${status}</dd></dl>
</body>
</html>
`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
