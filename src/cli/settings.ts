import { type Config, ConfigError, readConfig } from '../config.ts';

type Given<K extends keyof Config> = Config & { readonly [P in K]: NonNullable<Config[P]> };

/**
 * The settings, of which some must be given here. What is missing is told together with everything else that is wrong.
 * @param needed setting → what to say of it when it is missing.
 * @throws ConfigError
 */
export function readConfigNeeding<K extends keyof Config>(
  env: Readonly<Record<string, string | undefined>>,
  needed: Readonly<Record<K, string>>,
): Given<K> {
  const missing = Object.entries<string>(needed).flatMap(([key, says]) => {
    const name = `MAYFLY_${key.toUpperCase()}`;
    return env[name] === undefined && env[`${name}_FILE`] === undefined ? [`${name}: missing; ${says}`] : [];
  });
  let config: Config | undefined;
  try {
    config = readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError([...error.faults, ...missing]);
  }
  if (!hasAll(config, needed)) throw new ConfigError(missing);
  return config;
}

function hasAll<K extends keyof Config>(config: Config, needed: Readonly<Record<K, string>>): config is Given<K> {
  return (
    Object.entries(config).filter(([key, value]) => key in needed && value !== undefined).length ===
    Object.keys(needed).length
  );
}
