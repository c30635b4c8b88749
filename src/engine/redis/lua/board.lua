-- What generations a board has.
-- KEYS  1 meta  2 cursor  3 next cursor
-- Reply the shown build (see page.lua) or nil, its cursors, the number being built or nil, its cursors, partition and
--       position of those that the shown build was computed at, with a space between
local shown = redis.call('HMGET', KEYS[1], 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason')
return {shown[1] and shown, redis.call('HGETALL', KEYS[2]), redis.call('HGET', KEYS[1], 'building'),
  redis.call('HGETALL', KEYS[3]), redis.call('HGET', KEYS[1], 'computed_at') or ''}
