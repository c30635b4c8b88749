-- Forgets what a board shows, builds and has published. Its counts of generations and of published states stay, so that
-- a board that is made anew under the same id goes on from there.
-- KEYS  1 meta  2 scores  3 cursor  4 next scores  5 next cursor  6 top  7 feed
-- Reply 1
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
redis.call('HDEL', KEYS[1], 'building', 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason', 'computed_at', 'next_computed_at')
return 1
