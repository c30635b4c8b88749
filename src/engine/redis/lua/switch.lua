#!lua flags=allow-oom
-- Shows the generation that is being built, and drops the one shown before.
-- KEYS  1 meta  2 scores  3 cursor  4 beyond  5 next scores  6 next cursor  7 next beyond
-- ARGV  1 generation  2 epoch  3 period  4 revision  5 rules_version  6 built_at
--       7 reason
-- Reply 1, or 0 where it is not being built
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[1] then return 0 end
-- UNLINK frees a large board off the main thread; RENAME onto it would not. A generation without scores has no key.
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
for i = 5, 7 do
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('RENAME', KEYS[i], KEYS[i - 3]) end
end
local computed_at = redis.call('HGET', KEYS[1], 'next_computed_at') or ''
redis.call('HDEL', KEYS[1], 'building', 'next_computed_at')
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'epoch', ARGV[2], 'period', ARGV[3], 'revision', ARGV[4],
  'rules_version', ARGV[5], 'built_at', ARGV[6], 'reason', ARGV[7], 'computed_at', computed_at)
return 1
