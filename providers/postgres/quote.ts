/**
 * The only place where text is spliced into SQL on this side; the definer functions use `format('%I')`.
 * @throws TypeError on what no identifier can be: empty, with NUL, or over 63 bytes (which the server would cut).
 */
export function identifier(name: string): string {
  if (name === '' || name.includes('\0') || Buffer.byteLength(name) > 63) {
    throw new TypeError('not an SQL identifier');
  }
  return `"${name.replaceAll('"', '""')}"`;
}

/** A string literal that means the same whatever `standard_conforming_strings` is. */
export function literal(text: string): string {
  if (text.includes('\0')) {
    throw new TypeError('not an SQL string');
  }
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? `E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

/** A DO block whose delimiter does not occur in it, whatever the names in it are. */
export function block(body: string): string {
  let tag = '$mayfly$';
  for (let count = 1; body.includes(tag); count += 1) {
    tag = `$mayfly${count}$`;
  }
  return `DO ${tag}\n${body}\n${tag};`;
}
