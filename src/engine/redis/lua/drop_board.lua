-- Forgets what a board shows, builds and has published. Its counts of generations and of published states stay, so that
-- a board that is made anew under the same id goes on from there.
-- KEYS  1 meta, then all others of the board
-- Reply 1
redis.call('UNLINK', unpack(KEYS, 2))
redis.call('HDEL', KEYS[1], 'building', 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason', 'computed_at', 'next_computed_at')
return 1
