import { describe, expect, it } from 'vitest';
import { readDer, readInside } from './der.ts';

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const long = (count: number): string => '00'.repeat(count);

describe('DER', () => {
  it('is read value by value', () => {
    expect(readDer(bytes('02 01 05  30 00  04 02 aa bb'))).toEqual([
      { tag: 0x02, bytes: bytes('05') },
      { tag: 0x30, bytes: bytes('') },
      { tag: 0x04, bytes: bytes('aabb') },
    ]);
    expect(readDer(bytes(''))).toEqual([]);
  });

  it.each([
    ['127 bytes', '04 7f', 127],
    ['128 bytes', '04 81 80', 128],
    ['255 bytes', '04 81 ff', 255],
    ['256 bytes', '04 82 01 00', 256],
    ['65,536 bytes', '04 83 01 00 00', 65_536],
  ])('has lengths of %s', (_what, head, count) => {
    expect(readDer(bytes(head + long(count)))[0]?.bytes).toHaveLength(count);
  });

  it.each([
    ['a tag alone', '04', 'ends too early'],
    ['a value cut short', '04 02 aa', 'longer than what holds it'],
    ['a length cut short', '04 82 01', 'ends too early'],
    ['a length without end', '30 80 00 00', 'not definite'],
    ['a length in too long a form', `04 81 7f ${long(127)}`, 'shortest form'],
    ['a length that begins with nothing', `04 82 00 80 ${long(128)}`, 'shortest form'],
    ['a length of four bytes', '04 84 00 00 00 01 aa', 'absurd'],
    ['a tag of two bytes', '1f 81 01 01 00', 'more than one byte'],
  ])('is not %s', (_what, hex, message) => {
    expect(() => readDer(bytes(hex))).toThrow(message);
  });

  it('tells one kind from another, and from nothing', () => {
    const [value] = readDer(bytes('30 03 02 01 05'));
    expect(readInside(value, 0x30)).toEqual([{ tag: 0x02, bytes: bytes('05') }]);
    expect(() => readInside(value, 0x31)).toThrow('another value');
    expect(() => readInside(undefined, 0x30)).toThrow('another value');
  });
});
