import { describe, expect, test } from 'vitest';
import { changeControlOf } from './change-control.ts';
import { diffCatalogs } from './diff.ts';
import { faultLines, load, sampleWith } from './testing/sample.ts';

const withControl = (text: string) => sampleWith({ 'catalog.yaml': text });

describe('catalog.yaml', () => {
  test('says by which serial and by how many people a catalog is replaced', () => {
    const text = 'serial: 7\nfour_eyes: [apply, lift_kill]\n';
    const control = { serial: 7, fourEyes: ['apply', 'lift_kill'] };
    expect(load(withControl(text)).changeControl).toEqual(control);
    expect(changeControlOf(withControl(text))).toEqual(control);
  });

  test('may be absent or empty: then nothing of that holds', () => {
    for (const files of [sampleWith({}), withControl('# nothing\n'), withControl('{}')]) {
      expect(load(files).changeControl).toEqual({ serial: null, fourEyes: [] });
      expect(changeControlOf(files)).toEqual({ serial: null, fourEyes: [] });
    }
  });

  test.each([
    ['serial: 0', 'catalog.yaml:1'],
    ['serial: 1.5', 'catalog.yaml:1'],
    ['serial: "7"', 'catalog.yaml:1'],
    ['serial: 7\nfour_eyes: [aply]', 'catalog.yaml:2'],
    ['four_eyes: [apply, apply]', 'catalog.yaml:1'],
    ['four_eye: [apply]', 'catalog.yaml:1'],
    ['[]', 'catalog.yaml:1'],
  ])('%s is refused by line', (text, line) => {
    expect(faultLines(withControl(text)).join('\n')).toContain(line);
    expect(() => changeControlOf(withControl(text))).toThrow('can not be read');
  });

  test('is a change like any other', () => {
    const { changes } = diffCatalogs(
      load(withControl('serial: 7')),
      load(withControl('{ serial: 8, four_eyes: [apply] }')),
    );
    expect(changes).toEqual([
      {
        ...{ kind: 'change_control', name: 'catalog.yaml', change: 'changed' },
        fields: [
          { path: 'serial', before: 7, after: 8 },
          { path: 'four_eyes', before: [], after: ['apply'] },
        ],
      },
    ]);
  });
});
