import type { Reporter, TestModule } from 'vitest/node';

const SHOWN = 25;

/** Says at the end which files took longest, with what they load and start: where to look when a run takes too long. */
export default class Slowest implements Reporter {
  readonly #files: { readonly name: string; readonly seconds: number }[] = [];

  onTestModuleEnd(file: TestModule): void {
    const { prepareDuration, environmentSetupDuration, setupDuration, collectDuration, duration } = file.diagnostic();
    const millis = prepareDuration + environmentSetupDuration + setupDuration + collectDuration + duration;
    this.#files.push({ name: file.relativeModuleId, seconds: millis / 1000 });
  }

  onTestRunEnd(): void {
    const all = this.#files.reduce((sum, { seconds }) => sum + seconds, 0);
    console.log(`\n${this.#files.length} files, ${all.toFixed(0)} s one after another; the longest:`);
    const longest = this.#files.toSorted((a, b) => b.seconds - a.seconds).slice(0, SHOWN);
    for (const { name, seconds } of longest) console.log(`${seconds.toFixed(1).padStart(7)} s ${name}`);
  }
}
