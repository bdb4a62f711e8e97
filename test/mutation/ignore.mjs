/** What is no behaviour of the code that is mutated, with the reason why. */
const ignored = [
  {
    why: 'a mark for the crash tests, which list all of them and reach each; test/steps.test.ts holds their places',
    is: (path) => isStep(path) || (path.isIfStatement() && isOnlyStep(path.get('consequent'))),
  },
  {
    why: 'the words of a log line: people read them, nothing decides by them',
    is: (path) =>
      (path.isStringLiteral() || path.isTemplateLiteral()) &&
      path.listKey === 'arguments' &&
      path.key === 1 &&
      isNamed(path.parent.callee, 'log'),
  },
];

function isStep(path) {
  return path.isCallExpression() && isNamed(path.node.callee, 'step');
}

function isOnlyStep(path) {
  return path.isExpressionStatement() && isStep(path.get('expression'));
}

function isNamed(callee, name) {
  return callee?.name === name || callee?.property?.name === name;
}

export const strykerPlugins = [
  { kind: 'Ignore', name: 'mayfly', value: { shouldIgnore: (path) => ignored.find(({ is }) => is(path))?.why } },
];
