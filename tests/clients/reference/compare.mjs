// Whether an answer is what graphql-js gives: verdict, data with its keys in order, paths of errors. Messages are ours.
import { parse, specifiedRules, validate } from 'graphql-17';
import { ANY } from './schema.mjs';

/** The document if graphql-js takes it. */
export function accepted(schema, query) {
  try {
    const document = parse(query);
    return validate(schema, document, specifiedRules).length === 0 ? document : undefined;
  } catch {
    return undefined;
  }
}

/** Lists of introspection are sets: what is equal comes to stand in the same place. */
function sorted(value) {
  if (Array.isArray(value)) {
    const items = value.map((item) => sorted(item));
    return items.map((item) => [JSON.stringify(item), item]).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
  }
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, sorted(inner)]));
}

/** The kind of the first difference below a place, if there is one. */
function difference(expected, actual, isIntrospection) {
  if (expected === ANY) return actual === null || actual === undefined ? 'data' : undefined;
  if (expected === null || actual === null || typeof expected !== 'object' || typeof actual !== 'object')
    return Object.is(expected, actual) || (expected === 0 && actual === 0) ? undefined : 'data';
  if (Array.isArray(expected) !== Array.isArray(actual)) return 'data';
  const [keys, found] = [Object.keys(expected), Object.keys(actual)];
  if (keys.length !== found.length || keys.some((key) => !Object.hasOwn(actual, key))) return 'data';
  for (const key of keys) {
    const inside = isIntrospection?.(key) ? [sorted(expected[key]), sorted(actual[key])] : [expected[key], actual[key]];
    const kind = difference(...inside);
    if (kind) return kind;
  }
  return keys.every((key, n) => key === found[n]) ? undefined : 'order of keys';
}

/** Each path once. Since lists of introspection are sets, a place in one is a place in any. */
function paths(errors, isIntrospection) {
  const places = new Set((errors ?? []).map(({ path }) => JSON.stringify(path ?? null)));
  const isOfSets = (path) => path?.length > 0 && isIntrospection?.(path[0]);
  const told = [...places].map((place) => JSON.parse(place));
  const alike = told.map((path) => (isOfSets(path) ? path.map((step) => (typeof step === 'number' ? 0 : step)) : path));
  return JSON.stringify(alike.map((path) => JSON.stringify(path)).sort());
}

/** What an answer differs in from graphql-js's, if in anything. `expected` has no data where graphql-js refuses. */
export function compare(expected, actual, isIntrospection) {
  const refused = (answer) => answer.data === undefined;
  if (refused(expected) !== refused(actual)) return 'verdict';
  if (refused(expected)) return actual.errors?.length > 0 ? undefined : 'refused without an error';
  const kind = difference(expected.data, actual.data, isIntrospection);
  if (kind) return kind;
  return paths(expected.errors, isIntrospection) === paths(actual.errors, isIntrospection) ? undefined : 'paths of errors';
}
