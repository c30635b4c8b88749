-- The whole of what a board shows, with its cursors.
-- KEYS  1 meta  2 scores  3 cursor  4 beyond
-- Reply nil where nothing is shown, else: the build (see page.lua), partition and position of each cursor, product and
--       points of each place
local build = redis.call('HMGET', KEYS[1], 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason')
if not build[1] then return false end
local places = redis.call('ZREVRANGE', KEYS[2], 0, -1, 'WITHSCORES')
return {build, redis.call('HGETALL', KEYS[3]), told(places, KEYS[4])}
