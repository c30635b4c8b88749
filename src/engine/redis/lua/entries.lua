-- Rank and points of products on what a board shows.
-- KEYS  1 meta  2 scores  3 cursor  4 beyond
-- ARGV  the products
-- Reply nil where nothing is shown, else: the build (see page.lua), its cursors, then rank from 0 and points of each, '' for both
--       where it is not listed
local build = redis.call('HMGET', KEYS[1], 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason')
if not build[1] then return false end
local entries = {}
for i = 1, #ARGV do
  local points = redis.call('ZSCORE', KEYS[2], ARGV[i])
  entries[2 * i - 1] = points and redis.call('ZREVRANK', KEYS[2], ARGV[i]) or ''
  -- At a bound it may stand for more, see exact.lua.
  local is_bound = points == '9007199254740991' or points == '-9007199254740991'
  entries[2 * i] = is_bound and redis.call('HGET', KEYS[4], ARGV[i]) or points or ''
end
return {build, redis.call('HGETALL', KEYS[3]), entries}
